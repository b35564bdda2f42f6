//! The connections of a role's gRPC port.
//!
//! In: a bound listener. Out: its connections, whose small frames leave at once. Always: one that says nothing is closed; where an
//! accept fails, for want of descriptors most of all, the next one waits, longer each time: tonic would try again at once, and use
//! up a processor.

use crate::planted::planted;
use futures_util::stream::{self, Stream};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// For the first bytes of a connection; it is closed without them.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Never ends, and no item is an error.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<Accepted>> {
    stream::unfold(listener, |listener| async move {
        let (stream, _) = until_accepted(|| listener.accept()).await;
        // One that is broken already says so when it is read.
        let _ = stream.set_nodelay(true);
        let says_nothing = (!planted("silence_is_kept")).then(|| Box::pin(tokio::time::sleep(FIRST_READ_TIMEOUT)));
        Some((Ok(Accepted { stream, says_nothing }), listener))
    })
}

/// A connection that has to say something before long: keep-alives begin behind the first words.
pub struct Accepted {
    stream: TcpStream,
    /// Until the first bytes came.
    says_nothing: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let Some(says_nothing) = &mut self.says_nothing else { return read };
        if read.is_ready() {
            self.says_nothing = None;
            return read;
        }
        says_nothing.as_mut().poll(context).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

async fn until_accepted<T, F: Future<Output = io::Result<T>>>(accept: impl Fn() -> F) -> T {
    let mut pause = PAUSE_MIN;
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            // The peer was gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept a connection of a role");
                if !planted("failed_accept_repeated_at_once") {
                    tokio::time::sleep(pause).await;
                }
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::pin::pin;
    use tokio_stream::StreamExt as _;

    const TRIES: u32 = 20;
    /// Of Linux: no descriptor is left.
    const EMFILE: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn an_accept_that_fails_is_repeated_less_and_less_often_and_the_next_one_at_once() {
        let tries = Cell::new(0);
        let accept = || {
            tries.set(tries.get() + 1);
            let outcome = if tries.get() < TRIES { Err(io::Error::from_raw_os_error(EMFILE)) } else { Ok(()) };
            async move { outcome }
        };
        let begun = tokio::time::Instant::now();
        until_accepted(accept).await;
        // 10, 20, … 640 ms, and a second for each of the others.
        assert_eq!(begun.elapsed().as_millis() / 1_000, 13, "{:?}", begun.elapsed());
        let begun = tokio::time::Instant::now();
        until_accepted(accept).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_connection_sends_small_frames_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = pin!(connections(listener));
        let _peer = TcpStream::connect(address).await.unwrap();
        assert!(connections.next().await.unwrap().unwrap().stream.nodelay().unwrap());
    }
}
