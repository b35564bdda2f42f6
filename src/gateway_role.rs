//! Composition root: a gateway of a deployment with many.
//!
//! In: a configuration. Out: a gateway that runs until SIGTERM or SIGINT, or a [`Failure`]. Always: knows Kafka to put
//! commands in, logic roles to ask, and Redis for its lease alone; holds nothing that a client cannot get again elsewhere; is
//! ready while its lease stands, for without it new workers do not know where to deliver.

use crate::config::Config;
use crate::demo::Demo;
use crate::exit::Failure;
use crate::http::{self, Endpoints};
use crate::join::{Ask, ForwardToQueue, Remote, TakeFromStreams};
use crate::lease::Lease;
use crate::metrics::Parts;
use crate::page::Page;
use crate::process::{self, Signals, bind, other, service, usage};
use crate::{logging, metrics};
use im_gateway::{Gateway, GatewayHandle};
use im_rpc::{LogicClient, Readiness, Served, Stop, check_advertised, delivery_service};
use im_storage::kafka::KafkaQueue;
use im_storage::ports::{self, GatewayBoot};
use im_storage::redis::RedisStore;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// For questions, deliveries and HTTP; the cores have their own.
const THREADS: usize = 2;
/// What was taken goes to Kafka, or its senders ask again.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until it is told to stop.
pub fn run(config: &Config) -> Result<(), Failure> {
    config.check_services()?;
    config.check_calls()?;
    logging::start(&config.log)?;
    process::run("im-gateway", THREADS, serve(config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let http = bind("http", config.listen.http).await?;
    let rpc = bind("gateway_rpc", config.listen.gateway_rpc).await?;
    let services = tokio::select! {
        services = Services::open(config) => services?,
        // Nobody was served yet.
        () = signals.told_to_stop() => return Ok(()),
    };
    // From here on clients connect, and are taken leave of.
    let role = Role::start(config, services, &http, rpc).await?;
    tokio::spawn(http::serve(http, role.endpoints.clone()));
    signals.told_to_stop().await;
    tracing::info!("stopping");
    role.stop().await;
    Ok(())
}

struct Services {
    queue: Arc<KafkaQueue>,
    redis: RedisStore,
}

impl Services {
    async fn open(config: &Config) -> Result<Self, Failure> {
        let queue = KafkaQueue::open(&config.kafka.options()?).await.map_err(service)?;
        let redis = RedisStore::open(&config.redis.options()).await.map_err(service)?;
        Ok(Self { queue, redis })
    }
}

/// What runs.
struct Role {
    gateway: GatewayHandle,
    queue: Arc<KafkaQueue>,
    lease: Lease,
    readiness: JoinHandle<()>,
    deliveries: Served,
    endpoints: Arc<Endpoints>,
}

impl Role {
    async fn start(config: &Config, services: Services, http: &TcpListener, rpc: TcpListener) -> Result<Self, Failure> {
        let Services { queue, redis } = services;
        let rpc_address = rpc.local_addr().map_err(other)?;
        let advertised = advertised(config, rpc_address)?;
        let client = LogicClient::of_services(&config.calls()).map_err(usage)?;
        let remote = Remote::new(client);
        let unanswered = remote.unanswered();
        let ask = Arc::new(Ask::new(Arc::new(remote), Handle::current()));
        let http_address = http.local_addr().map_err(other)?;
        let forward = Arc::new(ForwardToQueue::new(queue.clone()));
        let gateway = Gateway::start(config.gateway_config(http_address), forward, ask.clone())
            .map_err(|error| Failure::Listen(format!("cannot start the gateway: {error}")))?;
        ask.name_gateway(GatewayBoot(gateway.boot()));

        let (tls, stop) = (config.tls(), Stop::default());
        let services =
            delivery_service(Arc::new(TakeFromStreams(gateway.clone())), tls.as_ref(), stop.clone()).map_err(usage)?;
        let deliveries = im_rpc::serve(rpc, tls.as_ref(), services, stop).await.map_err(usage)?;
        let lives = ports::Gateway { boot: GatewayBoot(gateway.boot()), endpoint: advertised.clone() };
        let lease = Lease::take(redis.routes(), lives, config.gateway.lease_ms).await.map_err(service)?;
        let (snapshot, produced) = (gateway.clone(), queue.counts());
        let endpoints = Arc::new(Endpoints {
            ready: AtomicBool::new(true),
            page: gateway.websocket_address().map(Page::new),
            demo: gateway.websocket_address().map(Demo::without_users),
            metrics: Box::new(move || {
                let gateway = snapshot.metrics();
                let (produced, unanswered) = (Some(&*produced), Some(&*unanswered));
                metrics::text(&Parts { gateway: Some(&gateway), produced, unanswered, ..Parts::default() })
            }),
        });
        deliveries.ready(true).await;
        let readiness = tokio::spawn(follow(lease.stands(), endpoints.clone(), deliveries.readiness()));
        println!("im-server {} gateway", env!("CARGO_PKG_VERSION"));
        println!("  tcp   {}", gateway.tcp_address());
        if let Some(address) = gateway.websocket_address() {
            println!("  ws    ws://{address}/ws");
        }
        println!("  http  {http_address}  (/ /healthz /readyz /metrics)");
        println!("  rpc   {rpc_address}  (told to workers as {advertised})");
        Ok(Self { gateway, queue, lease, readiness, deliveries, endpoints })
    }

    /// Tells the clients to go, finishes what was taken, and returns when nothing runs any more.
    async fn stop(self) {
        self.readiness.abort();
        let _ = self.readiness.await;
        self.endpoints.ready.store(false, Ordering::Release);
        self.deliveries.ready(false).await;
        process::drain(&self.gateway).await;
        process::shut_down(self.gateway).await;
        self.lease.end().await;
        self.deliveries.stop().await;
        let queue = self.queue;
        // Flushing blocks.
        let flushed = tokio::task::spawn_blocking(move || queue.flush(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("some commands did not reach Kafka; their senders ask again");
        }
    }
}

/// Ready while the lease stands. Clients who are connected stay: workers that know this gateway answer them.
async fn follow(mut lease: watch::Receiver<bool>, endpoints: Arc<Endpoints>, readiness: Readiness) {
    while lease.changed().await.is_ok() {
        let stands = *lease.borrow_and_update();
        endpoints.ready.store(stands, Ordering::Release);
        readiness.set(stands).await;
    }
}

/// Where workers reach this gateway.
pub(crate) fn advertised(config: &Config, bound: SocketAddr) -> Result<String, Failure> {
    let is_tls = config.tls().is_some();
    let advertised = match (config.rpc.advertise.as_str(), is_tls) {
        ("", false) => format!("http://{bound}"),
        ("", true) => format!("https://{bound}"),
        (advertised, _) => advertised.to_owned(),
    };
    let checked = check_advertised(&advertised, is_tls);
    checked.map_err(|error| Failure::Usage(format!("rpc.advertise, where workers reach this gateway: {error}")))?;
    Ok(advertised)
}
