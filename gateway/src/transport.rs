//! The ways a client's bytes come in, behind one type.
//!
//! In: an accepted socket. Out: bytes for the session, frames for the client. Always: reading and writing never block and
//! take `&self`; waiting is apart from both and owns no buffer, so an idle connection has none, and a waiting future that
//! is dropped loses no bytes. A further transport is one file and one variant here.

mod tcp;
mod websocket;

use crate::config::GatewayConfig;
use bytes::{Bytes, BytesMut};
use im_codec::{Action, Session};
use im_proto::client::CloseCode;
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use tcp::Tcp;
pub use tcp::send_once;
use websocket::WebSocket;

/// Frames given to the kernel in one write.
const WRITE_FRAMES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    WebSocket,
}

pub enum Transport {
    Tcp(Tcp),
    /// Boxed: a TCP connection is not to pay for its state.
    WebSocket(Box<WebSocket>),
}

impl Transport {
    pub fn new(kind: Kind, socket: Socket) -> io::Result<Self> {
        let tcp = Tcp::new(socket)?;
        Ok(match kind {
            Kind::Tcp => Self::Tcp(tcp),
            Kind::WebSocket => Self::WebSocket(Box::new(WebSocket::new(tcp))),
        })
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Tcp(_) => Kind::Tcp,
            Self::WebSocket(_) => Kind::WebSocket,
        }
    }

    /// Waits until there is something to read, or the connection has ended.
    pub async fn readable(&self) -> io::Result<()> {
        self.tcp().readable().await
    }

    /// Waits until the socket takes bytes again, or the connection has ended.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp().writable().await
    }

    /// What has arrived, taken out of `buffer`; empty when the client has ended its side.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<BytesMut> {
        self.tcp().try_read(buffer)
    }

    /// Gives the session what was read, or with `None` what is held. What it cannot take yet is held.
    pub fn bring(
        &self,
        input: Option<BytesMut>,
        config: &GatewayConfig,
        session: &mut Session,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        match self {
            Self::Tcp(_) => {
                if let Some(input) = input {
                    session.receive(input.freeze(), now_ms, actions);
                }
            }
            Self::WebSocket(websocket) => websocket.bring(input, config, session, now_ms, actions),
        }
    }

    /// Input is held that the session could not take.
    pub fn holds_input(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::WebSocket(websocket) => websocket.holds_input(),
        }
    }

    /// There is something of the transport's own to write, though no frame waits.
    pub fn has_own(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::WebSocket(websocket) => websocket.has_own(),
        }
    }

    /// Writes as much of `frames` as the socket takes now, and answers how much of them that was.
    pub fn try_write(&self, frames: &VecDeque<Bytes>) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(frames),
            Self::WebSocket(websocket) => websocket.try_write(frames),
        }
    }

    /// The session is closed with this code. False: the frames that wait cannot be sent any more.
    pub fn close(&self, code: CloseCode) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::WebSocket(websocket) => websocket.close(code),
        }
    }

    /// Nothing more is written; the client sees the end behind what was.
    pub fn end_writing(&self) {
        self.tcp().shutdown(Shutdown::Write);
    }

    /// Ends both directions now. Whoever waits in [`readable`](Self::readable) or [`writable`](Self::writable) goes on.
    pub fn end(&self) {
        self.tcp().shutdown(Shutdown::Both);
    }

    fn tcp(&self) -> &Tcp {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::WebSocket(websocket) => websocket.tcp(),
        }
    }
}

/// Fills `slices` with frames up to `bytes` of them. Answers how many it took.
fn gather<'a>(slices: &mut [IoSlice<'a>], frames: &'a VecDeque<Bytes>, mut bytes: usize) -> usize {
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        if bytes == 0 {
            break;
        }
        let taken = frame.len().min(bytes);
        *slice = IoSlice::new(&frame[..taken]);
        bytes -= taken;
        count += 1;
    }
    count
}
