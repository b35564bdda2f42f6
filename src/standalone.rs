//! Composition root: everything in one process, with the embedded store.
//!
//! In: a configuration. Out: a server that runs until SIGTERM or SIGINT, or a [`Failure`]. Always: the order of opening is
//! ports of the network, folder, keys; of closing: clients, queue, workers, store; nothing of it is on a message's path; a
//! process that can no longer store what comes ends by itself.

use crate::config::Config;
use crate::control::Control;
use crate::demo::Demo;
use crate::exit::Failure;
use crate::fault_points::Points;
use crate::http::{self, Endpoints};
use crate::join::{Ask, DeliverToGateway, ForwardToQueue};
use crate::lease::Lease;
use crate::metrics::Parts;
use crate::page::Page;
use crate::process::{self, Signals, bind, other};
use crate::{clock, logging, metrics, start_text, tokens};
use im_gateway::{Gateway, GatewayHandle};
use im_logic::accounts::AccountsHandle;
use im_logic::{Logic, Ports, WorkerHandle};
use im_storage::embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenError, OpenOptions};
use im_storage::ports::{self, GatewayBoot};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Threads for the logic: decisions are short, and the cores of the gateway need the processors too.
const LOGIC_THREADS: usize = 2;
/// What the queue holds at the end is worked off for as long; the rest was not acked, and its senders repeat it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub fn run(config: &Config) -> Result<(), Failure> {
    logging::start(&config.log)?;
    process::runtime("im-logic", LOGIC_THREADS)?.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listener = bind("http", config.listen.http).await?;
    let http_address = listener.local_addr().map_err(other)?;
    // The gateway opens its own listeners later; a port in use must be known before the data is touched.
    drop([bind("tcp", config.listen.tcp).await?, bind("websocket", config.listen.websocket).await?]);
    let is_new = !config.store.folder.join("store.redb").exists();
    let store = open_store(config)?;
    let keys = tokens::Keys::open_or_create(config)?;
    let server = tokio::select! {
        server = Server::start(config, http_address, &store, &keys) => server?,
        // Nobody was served yet, and what was repeated from the logs may be repeated again.
        () = signals.told_to_stop() => return store.close().await.map_err(other),
    };
    tokio::spawn(http::serve(listener, server.endpoints.clone()));
    start_text::print(config, is_new, &server.gateway, http_address, &keys);
    server.endpoints.ready.store(true, Ordering::Release);

    let ended = tokio::select! {
        () = signals.told_to_stop() => Ok(()),
        failure = process::a_worker_ended(&server.workers, &server.accounts) => Err(failure),
        failure = store.failed() => {
            server.endpoints.ready.store(false, Ordering::Release);
            tracing::error!(%failure, "the store has failed; nothing more is acked");
            server.gateway.shutdown();
            return Err(Failure::Other(format!("the store has failed: {failure}; everything acked is safe")));
        }
    };
    server.endpoints.ready.store(false, Ordering::Release);
    tracing::info!("stopping");
    server.stop().await;
    ended.and(store.close().await.map_err(other))
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
    lease: Lease,
    accounts: AccountsHandle,
    /// `None`: the folder's file system has no sockets.
    control: Option<Control>,
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
        let points = Points::from_env()?;
        let ports = points.ports(Ports {
            queue: queue.clone(),
            log: store.entry_log(),
            directory: store.directory(),
            inbox: store.inbox(),
            routes: Arc::new(EmbeddedRoutes::new()),
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
        let mut accounts = logic.follow_accounts(&*store.relations()).await.map_err(other)?;
        accounts.ready().await;
        let requests = Arc::new(logic.requests(keys.ring(config)?));
        let ask = Arc::new(Ask::new(requests, tokio::runtime::Handle::current()));
        let forward = Arc::new(ForwardToQueue::new(ports.queue));
        let gateway = Gateway::start(config.gateway_config(http), forward, ask.clone())
            .map_err(|error| Failure::Listen(format!("cannot start the gateway: {error}")))?;
        ask.name_gateway(GatewayBoot(gateway.boot()));
        delivery.connect(gateway.clone());
        // A delivery is a call here: nobody needs the endpoint.
        let lives = ports::Gateway { boot: GatewayBoot(gateway.boot()), endpoint: String::new() };
        let lease = Lease::take(ports.routes, lives, config.gateway.lease_ms).await.map_err(other)?;
        let snapshot = (gateway.clone(), logic.metrics(), queue.clone());
        let websocket = gateway.websocket_address().unwrap_or(config.listen.websocket);
        let endpoints = Arc::new(Endpoints {
            ready: AtomicBool::new(false),
            page: Some(Page::new(websocket)),
            demo: Some(Demo::new(config, keys, websocket, http)),
            metrics: Box::new(move || {
                let (gateway, waiting) = (snapshot.0.metrics(), snapshot.2.waiting());
                #[cfg_attr(
                    not(feature = "distributed"),
                    expect(clippy::needless_update, reason = "other builds have more")
                )]
                metrics::text(&Parts {
                    gateway: Some(&gateway),
                    logic: Some(&snapshot.1),
                    lag: snapshot.2.lag(),
                    waiting: Some(waiting),
                    ..Parts::default()
                })
            }),
        });
        let control = control(config, store);
        Ok(Self { gateway, queue, workers, lease, accounts, control, endpoints })
    }

    /// Tells the clients to go, finishes what was taken, and returns when nothing runs any more.
    async fn stop(self) {
        drop(self.control);
        process::drain(&self.gateway).await;
        process::shut_down(self.gateway).await;
        self.lease.end().await;
        self.queue.close();
        tracing::info!(records = self.queue.waiting(), "finishing what was taken");
        let deadline = Instant::now() + FINISH_TIMEOUT;
        for mut worker in self.workers {
            let ended = match timeout_at(deadline, worker.ended()).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!("a worker is not done in time; what is left was not acked");
                    worker.stop().await
                }
            };
            if ended.is_err() {
                tracing::error!("a worker panicked; what it had not finished was not acked");
            }
        }
    }
}

/// The server is worth more than its control socket.
fn control(config: &Config, store: &EmbeddedStore) -> Option<Control> {
    let control = Control::serve(&config.store.folder, store.relations());
    let warn = |error: &std::io::Error| {
        tracing::warn!(%error, "no control socket in store.folder: `im-server account` needs the server stopped");
    };
    control.inspect_err(warn).ok()
}
