//! TCP: delimited frames as they are.
//!
//! In: a connected socket. Out: its bytes. Always: the driver (io_uring or epoll) only tells when the socket is ready; the
//! transfer itself is one system call that does not wait. So no buffer is lent to the kernel, and none can be lost.

use super::{WRITE_FRAMES_MAX, gather};
use bytes::{Bytes, BytesMut};
use monoio::net::TcpStream;
use socket2::{SockRef, Socket};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room that a read is given at least, and what is allocated when less is left.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

pub struct Tcp {
    stream: TcpStream,
}

impl Tcp {
    pub fn new(socket: Socket) -> io::Result<Self> {
        socket.set_tcp_nodelay(true)?;
        Ok(Self { stream: TcpStream::from_std(socket.into())? })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<BytesMut> {
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            // Takes the same memory again when no slice of it is alive, which is the rule.
            buffer.reserve(READ_BYTES_MAX);
        }
        let start = buffer.len();
        let count = self.with_socket(|s| s.recv_with_flags(buffer.spare_capacity_mut(), libc::MSG_DONTWAIT))?;
        // SAFETY: the kernel has written `count` bytes to the spare capacity behind `start`.
        unsafe { buffer.set_len(start + count) };
        Ok(buffer.split())
    }

    pub fn try_write(&self, frames: &VecDeque<Bytes>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
        let count = gather(&mut slices, frames, usize::MAX);
        self.try_write_slices(&slices[..count])
    }

    pub fn try_write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        self.with_socket(|socket| match slices {
            [one] => socket.send_with_flags(one, flags),
            many => socket.send_vectored_with_flags(many, flags),
        })
    }

    pub fn shutdown(&self, how: Shutdown) {
        // An error means that the connection has ended already.
        let _ = self.with_socket(|socket| socket.shutdown(how));
    }

    fn with_socket<T>(&self, with: impl FnOnce(&Socket) -> T) -> T {
        // SAFETY: the descriptor is open for as long as `self.stream` lives, which outlives this call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) };
        with(&SockRef::from(&descriptor))
    }
}

/// Writes a last frame to a connection that is refused.
pub fn send_once(socket: &Socket, frame: &[u8]) {
    // It is refused all the same if it does not take the frame.
    let _ = socket.send_with_flags(frame, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    let _ = socket.shutdown(Shutdown::Write);
}
