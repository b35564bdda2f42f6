//! The ways a client's bytes come in, behind one type.
//!
//! In: an accepted socket. Out: bytes of delimited frames in both directions. Always: reading and writing never block and
//! take `&self`; waiting is apart from both and owns no buffer, so an idle connection has none, and a waiting future that
//! is dropped loses no bytes. A further transport is one file and one variant here.

mod tcp;

use bytes::{Bytes, BytesMut};
use socket2::Socket;
use std::io::{self, IoSlice};
pub use tcp::send_once;

pub enum Transport {
    Tcp(tcp::Tcp),
}

impl Transport {
    pub fn tcp(socket: Socket) -> io::Result<Self> {
        tcp::Tcp::new(socket).map(Self::Tcp)
    }

    /// Waits until there is something to read, or the connection has ended.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
        }
    }

    /// Waits until the socket takes bytes again, or the connection has ended.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
        }
    }

    /// What has arrived, taken out of `buffer`; empty when the client has ended its side.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Bytes> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buffer),
        }
    }

    /// Writes as much of `slices` as the socket takes now.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(slices),
        }
    }

    /// Nothing more is written; the client sees the end behind what was.
    pub fn end_writing(&self) {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(std::net::Shutdown::Write),
        }
    }

    /// Ends both directions now. Whoever waits in [`readable`](Self::readable) or [`writable`](Self::writable) goes on.
    pub fn end(&self) {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(std::net::Shutdown::Both),
        }
    }
}
