//! A TCP proxy that makes trouble.
//!
//! In: connections, where they go, what trouble there is. Out: the same bytes in the same order, late, or not, or to their
//! end in one direction only. Always: it loses no byte of a connection that lives on; trouble strikes the connections that
//! are open as it does new ones, and ends for both at once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const READ_BYTES: usize = 64 * 1024;

/// As seen from whoever connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forth,
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Everything that was read waits before it is written.
    Delay(Duration),
    /// Nothing of one direction arrives until the trouble ends.
    Hold(Direction),
    /// One direction is at its end, the other goes on; with the trouble the connection ends.
    HalfClose(Direction),
    /// Connections end, and no new one gets through.
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    trouble: watch::Sender<Trouble>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    /// On a free port of loopback. Several targets are taken by turns; one that refuses is passed over.
    pub async fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trouble = watch::Sender::new(Trouble::None);
        let targets = Arc::new(Mutex::new(targets));
        let accepts = tokio::spawn(accept(listener, targets.clone(), trouble.subscribe()));
        Self { address, targets, trouble, accepts }
    }

    pub fn lead_to(&self, targets: Vec<SocketAddr>) {
        *self.targets.lock().unwrap() = targets;
    }

    pub fn make(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
        self.trouble.send_replace(Trouble::Cut);
    }
}

async fn accept(listener: TcpListener, targets: Arc<Mutex<Vec<SocketAddr>>>, trouble: watch::Receiver<Trouble>) {
    let mut turn = 0;
    while let Ok((stream, _)) = listener.accept().await {
        turn += 1;
        let mut targets = targets.lock().unwrap().clone();
        let first = turn % targets.len().max(1);
        targets.rotate_left(first);
        tokio::spawn(serve(stream, targets, trouble.clone()));
    }
}

async fn serve(stream: TcpStream, targets: Vec<SocketAddr>, trouble: watch::Receiver<Trouble>) {
    if *trouble.borrow() == Trouble::Cut {
        return;
    }
    for target in targets {
        let Ok(target) = TcpStream::connect(target).await else { continue };
        // Nothing may wait for more than the trouble says.
        if stream.set_nodelay(true).is_err() || target.set_nodelay(true).is_err() {
            return;
        }
        let ((from_client, to_client), (from_target, to_target)) = (stream.into_split(), target.into_split());
        let forth = pump(from_client, to_target, Direction::Forth, trouble.clone());
        let back = pump(from_target, to_client, Direction::Back, trouble);
        // Either the connection is torn, or both directions came to their end.
        let _ = tokio::try_join!(forth, back);
        return;
    }
}

/// The connection ends in both directions.
struct Torn;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut trouble: watch::Receiver<Trouble>,
) -> Result<(), Torn> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let now = *trouble.borrow_and_update();
        match now {
            Trouble::Cut => return Err(Torn),
            Trouble::HalfClose(closed) if closed == direction => {
                let _ = to.shutdown().await;
                discard(&mut from, &mut buffer, &mut trouble).await;
                return Err(Torn);
            }
            Trouble::Hold(held) if held == direction => {
                trouble.changed().await.map_err(|_| Torn)?;
                continue;
            }
            Trouble::None | Trouble::Delay(_) | Trouble::HalfClose(_) | Trouble::Hold(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.map_err(|_| Torn)?,
            changed = trouble.changed() => {
                changed.map_err(|_| Torn)?;
                continue;
            }
        };
        if read == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        if let Trouble::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await.map_err(|_| Torn)?;
    }
}

/// Takes bytes that nobody gets, until there is other trouble.
async fn discard(from: &mut OwnedReadHalf, buffer: &mut [u8], trouble: &mut watch::Receiver<Trouble>) {
    let rest = async { while matches!(from.read(buffer).await, Ok(1..)) {} };
    tokio::select! {
        () = rest => { let _ = trouble.changed().await; }
        _ = trouble.changed() => {}
    }
}
