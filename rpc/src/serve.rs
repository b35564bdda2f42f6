//! A gRPC server of one role.
//!
//! In: services, an address, perhaps certificates. Out: a running server with the standard health service. Always: a request
//! is bounded in size, and in time unless it is a stream; connections that went silent are found by keep-alives; stopping lets
//! what is under way end, and waits for no peer without end.

use crate::accept;
use crate::config::{ConfigError, TlsOptions};
use crate::planted::planted;
use crate::tls;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;

const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// No request takes longer, and streams end when they are told; a peer that stopped in the middle of its first words would be
/// waited for without end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way on one connection; one more waits at its caller.
const STREAMS_MAX: u32 = 256;
/// Requests that a peer reset before we looked at them, and those that we reset for its errors. Beyond either the connection
/// is cut: a peer that resets in a storm pays for it, not we.
const RESETS_MAX: usize = STREAMS_MAX as usize;
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Tells a server, and streams that would never end by themselves, to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// Returns when it is time.
    pub fn told(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.0.subscribe();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    }
}

/// What a role offers, and how long one request of it may take.
pub struct Services {
    pub(crate) routes: Routes,
    pub(crate) timeout: Option<Duration>,
}

/// A server that runs until it is stopped.
pub struct Served {
    pub address: SocketAddr,
    stop: Stop,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    readiness: Readiness,
}

/// What the health service of a server answers.
#[derive(Clone)]
pub struct Readiness(tonic_health::server::HealthReporter);

impl Readiness {
    /// From now on, for the server as a whole.
    pub async fn set(&self, is_ready: bool) {
        let status =
            if is_ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        self.0.set_service_status("", status).await;
    }
}

impl Served {
    pub async fn ready(&self, is_ready: bool) {
        self.readiness.set(is_ready).await;
    }

    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Takes nothing new, lets what is under way end within [`STOP_TIMEOUT`], and returns.
    pub async fn stop(mut self) {
        self.stop.0.send_replace(true);
        let patience = if planted("stop_waits_for_ever") { Duration::MAX } else { STOP_TIMEOUT };
        match tokio::time::timeout(patience, &mut self.task).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the gRPC server ended with an error"),
            Ok(Err(error)) => tracing::error!(%error, "the gRPC server panicked"),
            Err(_) => {
                tracing::warn!("a gRPC connection did not end in time");
                self.task.abort();
            }
        }
    }
}

/// Serves on a bound listener, not ready yet.
pub async fn serve(
    listener: TcpListener,
    tls: Option<&TlsOptions>,
    services: Services,
    stop: Stop,
) -> Result<Served, ConfigError> {
    let address = listener.local_addr().map_err(|error| ConfigError::Tls(error.to_string()))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let readiness = Readiness(health);
    readiness.set(false).await;
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .http2_max_header_list_size(Some(HEADER_BYTES_MAX));
    if let Some(timeout) = services.timeout {
        server = server.timeout(timeout);
    }
    if let Some(tls) = tls {
        let tls = tls::of_server(tls)?.timeout(HANDSHAKE_TIMEOUT);
        server = server.tls_config(tls).map_err(|error| ConfigError::Tls(error.to_string()))?;
    }
    let router = server.add_routes(services.routes.add_service(health_service));
    let task = tokio::spawn(router.serve_with_incoming_shutdown(accept::connections(listener), stop.told()));
    Ok(Served { address, stop, task, readiness })
}
