//! The connections of a role's gRPC port.
//!
//! In: a bound listener. Out: its connections, whose small frames leave at once. Always: where an accept fails, for want of
//! descriptors most of all, the next one waits, longer each time: tonic would try again at once, and use up a processor.

use crate::planted::planted;
use futures_util::stream::{self, Stream};
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Never ends, and no item is an error.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async move {
        let (connection, _) = until_accepted(|| listener.accept()).await;
        // One that is broken already says so when it is read.
        let _ = connection.set_nodelay(true);
        Some((Ok(connection), listener))
    })
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
        assert!(connections.next().await.unwrap().unwrap().nodelay().unwrap());
    }
}
