//! What stands between an adapter and its server and can break.
//!
//! In: the server's address. Out: an address of its own. Always: bytes are passed on unchanged, or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub struct Gate {
    pub address: SocketAddr,
    /// While it is shut, bytes are taken and not passed on.
    pub is_open: watch::Sender<bool>,
    to: watch::Sender<String>,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    /// Connections up to this number are as dead as those to a host without power: nobody hears of it.
    hung: AtomicU64,
}

impl Gate {
    pub async fn new(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, watched) = watch::channel(true);
        let (to, leads_to) = watch::channel(to);
        let counts = Arc::new(Counts::default());
        let serving = tokio::spawn(serve(listener, leads_to, watched, counts.clone()));
        Self { address, is_open, to, counts, serving }
    }

    /// Connections made through it so far.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Passes nothing more on in the connections made so far, and leaves them open; new ones go through.
    pub fn hang(&self) {
        self.counts.hung.store(self.accepted(), Ordering::SeqCst);
    }

    /// Cuts every connection; new ones lead elsewhere.
    pub fn lead_to(&self, to: String) {
        self.to.send_replace(to);
    }

    /// Cuts every connection and takes no new one.
    pub async fn remove(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn serve(
    listener: TcpListener,
    mut to: watch::Receiver<String>,
    is_open: watch::Receiver<bool>,
    counts: Arc<Counts>,
) {
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            changed = to.changed() => {
                served.shutdown().await;
                if changed.is_err() {
                    return;
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let leads_to = to.borrow().clone();
        let inner = TcpStream::connect(leads_to).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) =
            (accepted.unwrap().0.into_split(), inner.into_split());
        let number = counts.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let place = (number, counts.clone());
        served.spawn(carry(from_client, to_server, is_open.clone(), place.clone()));
        served.spawn(carry(from_server, to_client, is_open.clone(), place));
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_open: watch::Receiver<bool>,
    (number, counts): (u64, Arc<Counts>),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = from.read(&mut buffer).await.inspect(|read| buffer.truncate(*read)) {
        let is_shut = is_open.wait_for(|is_open| *is_open).await.is_err();
        if number <= counts.hung.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if is_shut || to.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.resize(64 * 1024, 0);
    }
}
