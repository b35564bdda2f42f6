//! What stands between an adapter and its server and can break.
//!
//! In: the server's address. Out: an address of its own. Always: bytes are passed on unchanged, or not at all.

use std::net::SocketAddr;
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
    /// Where new connections lead, once those that led elsewhere are cut.
    led: watch::Receiver<String>,
    serving: JoinHandle<()>,
}

impl Gate {
    pub async fn new(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, watched) = watch::channel(true);
        let (leads, led) = watch::channel(to.clone());
        let (to, leads_to) = watch::channel(to);
        Self { address, is_open, to, led, serving: tokio::spawn(serve(listener, leads_to, leads, watched)) }
    }

    /// Cuts every connection; new ones lead elsewhere.
    pub async fn lead_to(&mut self, to: String) {
        self.to.send_replace(to.clone());
        self.led.wait_for(|led| *led == to).await.unwrap();
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
    leads: watch::Sender<String>,
    is_open: watch::Receiver<bool>,
) {
    let mut served = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            changed = to.changed() => {
                served.shutdown().await;
                if changed.is_err() {
                    return;
                }
                leads.send_replace(to.borrow().clone());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let leads_to = to.borrow().clone();
        let inner = TcpStream::connect(leads_to).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) =
            (accepted.unwrap().0.into_split(), inner.into_split());
        served.spawn(carry(from_client, to_server, is_open.clone()));
        served.spawn(carry(from_server, to_client, is_open.clone()));
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut is_open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(1..) = from.read(&mut buffer).await.inspect(|read| buffer.truncate(*read)) {
        if is_open.wait_for(|is_open| *is_open).await.is_err() || to.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.resize(64 * 1024, 0);
    }
}
