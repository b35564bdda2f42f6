//! What every role needs of its process: a runtime, signals, ports, and an orderly end for connections.
//!
//! In: names and addresses. Out: the same, open, or a [`Failure`] that says what to mend. Always: SIGTERM and SIGINT mean the
//! same.

use crate::exit::Failure;
use im_gateway::GatewayHandle;
use im_logic::WorkerHandle;
use im_logic::accounts::AccountsHandle;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Clients are told to go over this time, and those that stay longer than the second are cut.
const DRAIN_SPREAD_MS: u64 = 500;
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// A worker that ended by itself has met what it believed impossible: the process ends, and whoever starts it again, or
/// another process, goes on with its partitions.
const LOOK_AT_WORKERS: Duration = Duration::from_secs(1);
/// So long the end of a role waits for calls that cannot be cut short, as one of a service that does not answer.
#[cfg(feature = "distributed")]
const LAST_CALLS: Duration = Duration::from_secs(1);
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_POLL: Duration = Duration::from_millis(20);

pub fn runtime(name: &str, threads: usize) -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))
}

/// Runs a role that keeps nothing of its own: nobody waits for what its last calls would bring.
#[cfg(feature = "distributed")]
pub fn run(name: &str, threads: usize, role: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime(name, threads)?;
    let ended = runtime.block_on(role);
    runtime.shutdown_timeout(LAST_CALLS);
    ended
}

/// The operating system's wish that the process ends.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let terminate = signal(SignalKind::terminate()).map_err(other)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(other)?;
        Ok(Self { terminate, interrupt })
    }

    pub async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns when a worker, or who follows the accounts, does not run any more, though nobody told it to end.
pub async fn a_worker_ended(workers: &[WorkerHandle], accounts: &AccountsHandle) -> Failure {
    while !workers.iter().any(WorkerHandle::has_ended) && !accounts.have_ended() {
        tokio::time::sleep(LOOK_AT_WORKERS).await;
    }
    Failure::Other("a worker ended by itself; see the log".to_owned())
}

/// Waits a little for a port: io_uring lets go of a killed server's listeners only some time after the process is gone.
pub async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(PORT_POLL).await;
            }
            bound => {
                let failed = |error| Failure::Listen(format!("cannot listen on {address} (listen.{name}): {error}"));
                return bound.map_err(failed);
            }
        }
    }
}

/// Tells the clients to go, and returns when they are gone or have had their time.
pub async fn drain(gateway: &GatewayHandle) {
    gateway.drain(DRAIN_SPREAD_MS);
    let deadline = Instant::now() + DRAIN_DEADLINE;
    while gateway.connections() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

/// Ends the cores.
pub async fn shut_down(gateway: GatewayHandle) {
    gateway.shutdown();
    // Joining threads blocks.
    let _ = tokio::task::spawn_blocking(move || gateway.join()).await;
}

/// A service that a role cannot be without.
#[cfg(feature = "distributed")]
pub fn service(error: impl std::fmt::Display) -> Failure {
    Failure::Service(format!("{error}; `im-server doctor` looks at every service"))
}

/// A value of the configuration that only its user could judge.
#[cfg(feature = "distributed")]
pub fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

pub fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}
