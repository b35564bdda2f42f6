//! A way to a server on which each answer takes as long as a test says.
//!
//! In: the server's address. Out: an address of its own. Always: bytes are passed on unchanged and in their order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub struct SlowWay {
    pub address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl SlowWay {
    pub async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let delay_ms = Arc::new(AtomicU64::new(0));
        tokio::spawn(serve(listener, server, delay_ms.clone()));
        Self { address, delay_ms }
    }

    pub fn delay(&self, by: Duration) {
        self.delay_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, server: String, delay_ms: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(&server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let delay_ms = delay_ms.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        });
    }
}
