//! Composition root: a logic role of a deployment with many.
//!
//! In: a configuration. Out: workers and request handlers that run until SIGTERM or SIGINT, or a [`Failure`]. Always: keeps
//! nothing that the services do not have; may be killed at any moment.

use crate::config::Config;
use crate::exit::Failure;
use crate::fault_points::Points;
use crate::http::{self, Endpoints};
use crate::join::{DeliverOverStreams, Handler};
use crate::metrics::Parts;
use crate::process::{self, Signals, bind, other, service, usage};
use crate::{logging, metrics, tokens};
use im_logic::accounts::AccountsHandle;
use im_logic::{Logic, Ports, WorkerHandle};
use im_rpc::{DeliveryStreams, Served, Stop, logic_service};
use im_storage::kafka::{KafkaConsumer, KafkaLag, KafkaOptions, KafkaQueue, KafkaRelations};
use im_storage::mongo::MongoEntryLog;
use im_storage::mysql::MysqlDirectory;
use im_storage::redis::RedisStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// What was decided goes to the gateways, or their clients ask again.
const HAND_ON_TIMEOUT: Duration = Duration::from_secs(2);
/// Whoever asks is told by then that there is no answer: no client waits longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// To read the relations' topic from its beginning, before anybody is answered.
const RELATIONS_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until it is told to stop.
pub fn run(config: &Config) -> Result<(), Failure> {
    config.check_services()?;
    logging::start(&config.log)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    process::run("im-logic", threads, serve(config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let http = bind("logic_http", config.listen.logic_http).await?;
    let rpc = bind("logic_rpc", config.listen.logic_rpc).await?;
    let role = tokio::select! {
        role = Role::start(config, &http, rpc) => role?,
        // Nobody was served yet.
        () = signals.told_to_stop() => return Ok(()),
    };
    tokio::spawn(http::serve(http, role.endpoints.clone()));
    let ended = tokio::select! {
        () = signals.told_to_stop() => Ok(()),
        failure = process::a_worker_ended(&role.workers, &role.accounts) => Err(failure),
    };
    tracing::info!("stopping");
    role.stop().await;
    ended
}

/// What runs.
struct Role {
    workers: Vec<WorkerHandle>,
    streams: Arc<DeliveryStreams>,
    questions: Served,
    accounts: AccountsHandle,
    endpoints: Arc<Endpoints>,
}

impl Role {
    async fn start(config: &Config, http: &TcpListener, rpc: TcpListener) -> Result<Self, Failure> {
        let kafka = config.kafka.options()?;
        let redis = RedisStore::open(&config.redis.options()).await.map_err(service)?;
        let streams = DeliveryStreams::new(rand::random(), &config.deliveries()).map_err(usage)?;
        let delivery = DeliverOverStreams(streams.clone());
        delivery.follow_leases(redis.routes());
        let points = Points::from_env()?;
        let queue = KafkaQueue::open(&kafka).await.map_err(service)?;
        let logic = Logic::new(
            points.ports(Ports {
                queue: queue.clone(),
                log: MongoEntryLog::open(&config.mongodb.options()).await.map_err(service)?,
                directory: MysqlDirectory::open(&config.mysql.options()).await.map_err(service)?,
                inbox: redis.inbox(),
                routes: redis.routes(),
                delivery: Arc::new(delivery),
            }),
            config.logic_config(),
        );
        let accounts = known_accounts(&logic, &kafka).await?;
        let requests = Arc::new(logic.requests(tokens::shared_ring(config)?));
        let tls = config.tls();
        let services = logic_service(Arc::new(Handler(requests)), tls.as_ref(), REQUEST_TIMEOUT).map_err(usage)?;
        let rpc_address = rpc.local_addr().map_err(other)?;
        let questions = im_rpc::serve(rpc, tls.as_ref(), services, Stop::default()).await.map_err(usage)?;
        let (mut workers, mut lags) = (Vec::new(), Vec::new());
        for _ in 0..config.logic.workers {
            let consumer = KafkaConsumer::open(&kafka).map_err(service)?;
            lags.push(consumer.lag());
            workers.push(logic.spawn_worker(points.consumer(consumer)));
        }
        let told = (logic.metrics(), queue.counts(), streams.clone());
        let endpoints = Arc::new(Endpoints {
            ready: AtomicBool::new(true),
            page: None,
            demo: None,
            metrics: Box::new(move || {
                let lag = lags.iter().flat_map(KafkaLag::by_partition).collect();
                let (logic, produced, streams) = (Some(&*told.0), Some(&*told.1), Some(&*told.2));
                metrics::text(&Parts { logic, produced, streams, lag, ..Parts::default() })
            }),
        });
        questions.ready(true).await;
        println!("im-server {} logic", env!("CARGO_PKG_VERSION"));
        println!("  rpc   {rpc_address}");
        println!("  http  {}  (/healthz /readyz /metrics)", http.local_addr().map_err(other)?);
        Ok(Self { workers, streams, questions, accounts, endpoints })
    }

    /// Takes no more questions, finishes what was taken, and returns when nothing runs any more.
    async fn stop(self) {
        self.endpoints.ready.store(false, Ordering::Release);
        self.questions.ready(false).await;
        self.questions.stop().await;
        let stops = self.workers.into_iter().map(|worker| tokio::spawn(worker.stop()));
        for stopped in stops.collect::<Vec<_>>() {
            if !matches!(stopped.await, Ok(Ok(()))) {
                tracing::error!("a worker panicked; what it had not finished was not acked");
            }
        }
        if tokio::time::timeout(HAND_ON_TIMEOUT, self.streams.handed_on()).await.is_err() {
            tracing::warn!("some deliveries did not reach their gateways; their clients ask again");
        }
    }
}

/// Returns when it is known who is banned: before that nobody could be signed in.
async fn known_accounts(logic: &Logic, kafka: &KafkaOptions) -> Result<AccountsHandle, Failure> {
    let relations = KafkaRelations::open(kafka).await.map_err(service)?;
    let mut accounts = logic.follow_accounts(&*relations).await.map_err(service)?;
    let topic = &kafka.relations_topic;
    let late = |_| service(format!("kafka: the topic {topic} was not read to its end within {RELATIONS_TIMEOUT:?}"));
    tokio::time::timeout(RELATIONS_TIMEOUT, accounts.ready()).await.map_err(late)?;
    Ok(accounts)
}
