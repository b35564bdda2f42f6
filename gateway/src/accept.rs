//! New connections of one core.
//!
//! In: the core's listeners. Out: a connection and its reading task each. Always: what is over a limit is told OVERLOADED
//! and closed; without descriptors accepting pauses for a growing time and the connections that are open go on; a panic in
//! a connection's task ends that connection alone.

use crate::connection::Connection;
use crate::core::{Core, yield_now};
use crate::transport::{Kind, Transport, send_once};
use futures_util::FutureExt as _;
use im_codec::websocket::Refusal;
use im_codec::{CloseReason, encode_delimited};
use im_proto::client::{self, CloseCode, server_frame};
use monoio::net::TcpListener;
use socket2::{SockRef, Socket};
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

/// Connections accepted before other tasks run.
const ACCEPTS_PER_TURN_MAX: usize = 64;
/// The pause after a first failed accept, and the longest.
const BACKOFF_MS_MIN: u64 = 20;
const BACKOFF_MS_MAX: u64 = 1_000;

pub struct Listener {
    kind: Kind,
    listener: TcpListener,
}

impl Listener {
    pub fn new(kind: Kind, socket: Socket) -> io::Result<Self> {
        Ok(Self { kind, listener: TcpListener::from_std(socket.into())? })
    }

    /// Whoever connects now is refused by the kernel or goes to another core.
    pub fn close(&self) {
        let _ = self.with_socket(|socket| socket.shutdown(Shutdown::Both));
    }

    fn with_socket<T>(&self, with: impl FnOnce(&Socket) -> T) -> T {
        // SAFETY: the descriptor is open for as long as `self.listener` lives, which outlives this call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.listener.as_raw_fd()) };
        with(&SockRef::from(&descriptor))
    }
}

/// The task that accepts until the core drains or stops.
pub async fn accept(core: Rc<Core>, listener: Rc<Listener>) {
    let mut backoff_ms = BACKOFF_MS_MIN;
    while !core.is_draining.get() && !core.is_stopping.get() {
        let accepted = match listener.listener.readable(false).await {
            Ok(()) => accept_some(&core, &listener),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(()) => {
                backoff_ms = BACKOFF_MS_MIN;
                yield_now().await;
            }
            Err(_) if core.is_draining.get() || core.is_stopping.get() => return,
            Err(error) => {
                core.metrics().accept_errors.add(1);
                tracing::warn!(core = core.index, %error, backoff_ms, "cannot accept");
                monoio::time::sleep(Duration::from_millis(backoff_ms)).await;
                backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
            }
        }
    }
}

fn accept_some(core: &Rc<Core>, listener: &Listener) -> io::Result<()> {
    for _ in 0..ACCEPTS_PER_TURN_MAX {
        match listener.with_socket(Socket::accept) {
            Ok((socket, address)) => {
                let address = address.as_socket().map(|a| a.ip());
                if let (Some(address), false) = (address, core.is_draining.get()) {
                    open(core, listener.kind, socket, address);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                // The client was gone before it was accepted.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

fn open(core: &Rc<Core>, kind: Kind, socket: Socket, address: IpAddr) {
    core.metrics().accepts.add(1);
    let permit = match core.shared.admission.admit(address, core.now_ms()) {
        Ok(permit) => permit,
        Err(refused) => {
            core.metrics().accepts_refused.add(1);
            tracing::debug!(%address, ?refused, "refused a connection");
            return send_once(&socket, &overloaded(kind));
        }
    };
    if let Some(bytes) = core.shared.config.send_buffer_bytes {
        // The kernel's own size is as good when it refuses this one.
        let _ = socket.set_send_buffer_size(bytes);
    }
    let transport = match Transport::new(kind, socket) {
        Ok(transport) => transport,
        Err(error) => return tracing::debug!(%error, "a connection ended while it was accepted"),
    };
    let id = core.next_connection_id();
    let connection = Connection::new(id, transport, permit, core);
    core.connections.borrow_mut().insert(id, connection.clone());
    core.metrics().connections.add(1);
    core.metrics().websocket_connections.add(u64::from(kind == Kind::WebSocket));
    monoio::spawn(run(core.clone(), connection));
}

/// The one task of a connection.
async fn run(core: Rc<Core>, connection: Rc<Connection>) {
    let reading = AssertUnwindSafe(connection.clone().read(core.clone()));
    if reading.catch_unwind().await.is_err() {
        core.metrics().connection_panics.add(1);
        tracing::error!(connection = %connection.id, "a connection panicked and is closed");
        connection.close(&core, CloseReason::new(CloseCode::Internal, "a fault of the server's"));
        connection.write_waiting(&core);
    }
    connection.gone(&core);
}

fn overloaded(kind: Kind) -> bytes::Bytes {
    if kind == Kind::WebSocket {
        return Refusal::Overloaded.response().into();
    }
    let CloseReason { code, reconnect_after_ms, detail } =
        CloseReason::new(CloseCode::Overloaded, "too many connections");
    let closing = client::Closing { code: code as i32, reconnect_after_ms, detail };
    encode_delimited(&client::ServerFrame { request_id: 0, body: Some(server_frame::Body::Closing(closing)) })
}
