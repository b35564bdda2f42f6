//! A gRPC server of one role.
//!
//! In: services, an address, perhaps certificates. Out: a running server with the standard health service. Always: a request
//! is bounded in size and in time; connections that went silent are found by keep-alives; stopping lets what is under way
//! end.

use crate::config::{ConfigError, TlsOptions};
use crate::tls;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

/// No request of ours takes longer; a delivery stream is one request, so it is not bounded here but by its keep-alives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way on one connection; a peer that resets streams in a storm is cut off by the HTTP/2 library.
const STREAMS_MAX: u32 = 1_024;

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

/// A server that runs until it is stopped.
pub struct Served {
    pub address: SocketAddr,
    stop: Stop,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    health: tonic_health::server::HealthReporter,
}

impl Served {
    /// What the health service answers from now on, for the server as a whole.
    pub async fn ready(&self, is_ready: bool) {
        let status =
            if is_ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        self.health.set_service_status("", status).await;
    }

    /// Takes nothing new, lets what is under way end, and returns.
    pub async fn stop(self) {
        self.stop.0.send_replace(true);
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the gRPC server ended with an error"),
            Err(error) => tracing::error!(%error, "the gRPC server panicked"),
        }
    }
}

/// Serves `routes` on a bound listener, not ready yet.
pub async fn serve(
    listener: TcpListener,
    tls: Option<&TlsOptions>,
    routes: Routes,
    stop: Stop,
) -> Result<Served, ConfigError> {
    let address = listener.local_addr().map_err(|error| ConfigError::Tls(error.to_string()))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .tcp_nodelay(true);
    if let Some(tls) = tls {
        server = server.tls_config(tls::of_server(tls)?).map_err(|error| ConfigError::Tls(error.to_string()))?;
    }
    let router = server.add_routes(routes.add_service(health_service));
    let task = tokio::spawn(router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.told()));
    Ok(Served { address, stop, task, health })
}
