//! Composition root: everything in one process, with the embedded store.
//!
//! In: a configuration. Out: a server that runs until SIGTERM or SIGINT, or a [`Failure`]. Always: the order of opening is
//! ports of the network, folder, keys; of closing: clients, queue, workers, store; nothing of it is on a message's path.

use crate::config::Config;
use crate::demo::Demo;
use crate::exit::Failure;
use crate::fault_points::Points;
use crate::http::{self, Endpoints};
use crate::join::{AskRequests, DeliverToGateway, ForwardToQueue};
use crate::page::Page;
use crate::{clock, logging, metrics, start_text, tokens};
use im_gateway::{Gateway, GatewayHandle};
use im_logic::{Logic, Ports, WorkerHandle};
use im_storage::embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenError, OpenOptions};
use im_storage::ports::{self, GatewayBoot, Routes as _};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Threads for the logic: decisions are short, and the cores of the gateway need the processors too.
const LOGIC_THREADS: usize = 2;
/// Clients are told to go over this time, and those that stay longer than the second are cut.
const DRAIN_SPREAD_MS: u64 = 500;
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
const DRAIN_POLL: Duration = Duration::from_millis(20);
const LEASE_MS: u32 = 30_000;
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_POLL: Duration = Duration::from_millis(20);

/// Serves until it is told to stop.
pub fn run(config: &Config) -> Result<(), Failure> {
    logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(LOGIC_THREADS)
        .thread_name("im-logic")
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(other)?;
    let listener = bind("http", config.listen.http).await?;
    let http_address = listener.local_addr().map_err(other)?;
    // The gateway opens its own listeners later; a port in use must be known before the data is touched.
    drop([bind("tcp", config.listen.tcp).await?, bind("websocket", config.listen.websocket).await?]);
    let is_new = !config.store.folder.join("store.redb").exists();
    let store = open_store(config)?;
    let keys = tokens::Keys::open_or_create(config)?;
    let server = Server::start(config, http_address, &store, &keys).await?;
    tokio::spawn(http::serve(listener, server.endpoints.clone()));
    start_text::print(config, is_new, &server.gateway, http_address, &keys);
    server.endpoints.ready.store(true, Ordering::Release);

    let reason = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = store.failed() => Some(failure),
    };
    server.endpoints.ready.store(false, Ordering::Release);
    if let Some(failure) = reason {
        tracing::error!(%failure, "the store has failed; nothing more is acked");
        server.gateway.shutdown();
        return Err(Failure::Other(format!("the store has failed: {failure}; everything acked is safe")));
    }
    tracing::info!("stopping");
    server.stop().await;
    store.close().await.map_err(other)
}

fn open_store(config: &Config) -> Result<EmbeddedStore, Failure> {
    EmbeddedStore::open(&open_options(config)).map_err(|error| open_failure(config, error))
}

pub(crate) fn open_options(config: &Config) -> OpenOptions {
    OpenOptions {
        folder: config.store.folder.clone(),
        cache_bytes: config.store.cache_mib as usize * 1024 * 1024,
        now_ms: clock::now_ms(),
    }
}

pub(crate) fn open_failure(config: &Config, error: OpenError) -> Failure {
    match error {
        OpenError::Damaged(_) => Failure::Damaged(format!("store.folder {}: {error}", config.store.folder.display())),
        _ => Failure::Folder(format!("store.folder: {error}")),
    }
}

/// What runs.
struct Server {
    gateway: GatewayHandle,
    queue: Arc<EmbeddedQueue>,
    workers: Vec<WorkerHandle>,
    endpoints: Arc<Endpoints>,
}

impl Server {
    async fn start(
        config: &Config,
        http: SocketAddr,
        store: &EmbeddedStore,
        keys: &tokens::Keys,
    ) -> Result<Self, Failure> {
        let (queue, consumers) = EmbeddedQueue::new(config.logic.partitions, config.logic.queue_records_max as usize);
        let delivery = Arc::new(DeliverToGateway::default());
        let routes = Arc::new(EmbeddedRoutes::new());
        let points = Points::from_env()?;
        let ports = points.ports(Ports {
            queue: queue.clone(),
            log: store.entry_log(),
            directory: store.directory(),
            inbox: store.inbox(),
            routes: routes.clone(),
            delivery: delivery.clone(),
        });
        let logic = Logic::new(ports.clone(), config.logic_config());
        let mut workers = Vec::new();
        for consumer in consumers {
            workers.push(logic.spawn_worker(points.consumer(consumer)));
        }
        // Sync would answer from a past state before this.
        for worker in &mut workers {
            if !worker.ready().await {
                return Err(Failure::Other("a worker ended while it caught up; see the log".to_owned()));
            }
        }
        let requests = Arc::new(logic.requests(keys.ring(config)?));
        let ask = Arc::new(AskRequests::new(requests, tokio::runtime::Handle::current()));
        let forward = Arc::new(ForwardToQueue::new(ports.queue));
        let gateway = Gateway::start(config.gateway_config(http), forward, ask.clone())
            .map_err(|error| Failure::Listen(format!("cannot start the gateway: {error}")))?;
        ask.name_gateway(GatewayBoot(gateway.boot()));
        delivery.connect(gateway.clone());
        keep_lease(routes, GatewayBoot(gateway.boot()));
        let snapshot = (gateway.clone(), logic.metrics(), queue.clone());
        let websocket = gateway.websocket_address().unwrap_or(config.listen.websocket);
        let endpoints = Arc::new(Endpoints {
            ready: AtomicBool::new(false),
            page: Page::new(websocket),
            demo: Demo::new(config, keys, websocket, http),
            metrics: Box::new(move || metrics::text(&snapshot.0.metrics(), &snapshot.1, snapshot.2.waiting())),
        });
        Ok(Self { gateway, queue, workers, endpoints })
    }

    /// Tells the clients to go, finishes what was taken, and returns when nothing runs any more.
    async fn stop(self) {
        self.gateway.drain(DRAIN_SPREAD_MS);
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while self.gateway.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        self.gateway.shutdown();
        let gateway = self.gateway.clone();
        // Joining threads blocks.
        let _ = tokio::task::spawn_blocking(move || gateway.join()).await;
        self.queue.close();
        for worker in self.workers {
            if worker.stop().await.is_err() {
                tracing::error!("a worker panicked; what it had not finished was not acked");
            }
        }
    }
}

/// The gateway's connections count as online for as long as this process renews.
fn keep_lease(routes: Arc<EmbeddedRoutes>, gateway: GatewayBoot) {
    let gateway = ports::Gateway { boot: gateway, endpoint: String::new() };
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(u64::from(LEASE_MS) / 3));
        loop {
            tick.tick().await;
            if let Err(error) = routes.renew_lease(&gateway, LEASE_MS).await {
                tracing::warn!(%error, "the lease was not renewed");
            }
        }
    });
}

/// Waits a little for a port: io_uring lets go of a killed server's listeners only some time after the process is gone.
async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
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

fn other(error: impl std::fmt::Display) -> Failure {
    Failure::Other(error.to_string())
}
