//! A worker on the embedded store, with a log that can be made to fail, and a gateway that only listens.
//!
//! In: commands of users. Out: what their connections were told, and what lies in the store. Always: the store's own
//! semantics; a fault only adds what another owner or a bad network would do.

pub use crate::commands::*;
pub use crate::dead_letters::Letters;
pub use crate::faulty_log::{Fault, FaultyLog};
pub use crate::flushed_inbox::FlushedInbox;
pub use crate::silent_directory::SilentDirectory;
use bytes::Bytes;
use im_logic::accounts::AccountsHandle;
use im_logic::token::{Key, KeyRing, NewToken, issue};
use im_logic::{Logic, LogicConfig, LogicMetrics, Ports, Requests, WorkerHandle};
use im_proto::client::{self, client_frame::Command, kicked::Reason, server_frame::Body};
use im_proto::internal::{self, InboxMove, delivery::Kind};
use im_proto::{ConnectionId, DeviceId, LogId, Seq, UserId};
use im_storage::embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenOptions};
use im_storage::ports::*;
use prost::Message as _;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// No test waits longer; it fails then.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const GATEWAY: GatewayBoot = GatewayBoot(7);
pub const SECRET: [u8; 32] = [9; 32];

pub fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Those that the tokens of [`World::token`] are verified with.
pub fn keys() -> KeyRing {
    let mut keys = KeyRing::default();
    keys.add("default", Key::hs256(&SECRET).unwrap());
    keys
}

/// Until so many are known to be banned.
pub async fn knows_banned(metrics: &LogicMetrics, users: u64) {
    let known = async {
        while metrics.users_banned.load(Ordering::Relaxed) != users {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("not known in time");
}

/// One thing that a connection was told.
#[derive(Debug, Clone)]
pub struct Told {
    pub body: Body,
    pub inbox: Option<InboxMove>,
}

#[derive(Default)]
pub struct Listening {
    state: Mutex<Heard>,
    changed: Notify,
}

#[derive(Default)]
struct Heard {
    answers: HashMap<(u64, u64), Vec<Told>>,
    pushes: HashMap<u64, Vec<Told>>,
    kicks: Vec<internal::Kick>,
    large: Vec<internal::LargePush>,
    /// Of pushes without a frame.
    moves: HashMap<u64, Vec<InboxMove>>,
}

fn body(frame: &Bytes) -> Body {
    client::ServerFrame::decode_length_delimited(frame.clone()).unwrap().body.unwrap()
}

impl Delivery for Listening {
    fn deliver(&self, gateway: GatewayBoot, deliveries: Vec<internal::Delivery>) {
        assert_eq!(gateway, GATEWAY);
        let mut heard = self.state.lock().unwrap();
        for delivery in deliveries {
            match delivery.kind.unwrap() {
                Kind::Answer(answer) => {
                    let told = Told { body: body(&answer.frame), inbox: answer.inbox };
                    heard.answers.entry((answer.connection_id, answer.request_id)).or_default().push(told);
                }
                Kind::Push(push) => {
                    for target in push.targets {
                        if push.frame.is_empty() {
                            heard.moves.entry(target.connection_id).or_default().extend(target.inbox);
                            continue;
                        }
                        let told = Told { body: body(&push.frame), inbox: target.inbox };
                        heard.pushes.entry(target.connection_id).or_default().push(told);
                    }
                }
                Kind::Kick(kick) => heard.kicks.push(kick),
                Kind::LargePush(push) => heard.large.push(push),
            }
        }
        self.changed.notify_waiters();
    }
}

pub struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// Open for as long as the world.
    _store: EmbeddedStore,
    pub log: Arc<FaultyLog>,
    pub inbox: Arc<FlushedInbox>,
    pub directory: Arc<SilentDirectory>,
    pub ports: Ports,
    pub logic: Logic,
    pub metrics: Arc<LogicMetrics>,
    pub requests: Requests,
    pub heard: Arc<Listening>,
    pub worker: Option<WorkerHandle>,
    queue: Arc<EmbeddedQueue>,
    pub letters: Arc<Letters>,
    consumer: Option<Box<dyn Consumer>>,
    routes: Arc<EmbeddedRoutes>,
    pub relations: Arc<dyn Relations>,
    _accounts: AccountsHandle,
    next_request: AtomicU64,
    config: LogicConfig,
}

/// One device of a user.
#[derive(Debug, Clone)]
pub struct Phone {
    pub user: UserId,
    pub device: DeviceId,
    pub connection: ConnectionId,
}

/// No user is too fast, and nothing is made durable by the clock: a copy of the folder is then never taken in the middle of
/// a write.
pub fn generous() -> LogicConfig {
    LogicConfig {
        send_rate_per_user_per_s: 1_000_000,
        send_burst_per_user: 1_000_000,
        cover_interval_ms: 3_600_000,
        claim_check_interval_ms: 3_600_000,
        ..LogicConfig::default()
    }
}

impl World {
    /// A running worker on an empty store.
    pub async fn new() -> Self {
        Self::with(generous()).await
    }

    pub async fn with(config: LogicConfig) -> Self {
        let mut world = Self::idle(config).await;
        world.start().await;
        world
    }

    /// Nothing runs yet: what is sent before `start` comes as one batch.
    pub async fn idle(config: LogicConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        Self::open(folder, path, config).await
    }

    async fn open(folder: tempfile::TempDir, path: PathBuf, config: LogicConfig) -> Self {
        let options = OpenOptions { folder: path.clone(), cache_bytes: 1 << 20, now_ms: 1_000 };
        let store = EmbeddedStore::open(&options).unwrap();
        let log = Arc::new(FaultyLog::over(store.entry_log()));
        let heard = Arc::new(Listening::default());
        let routes = Arc::new(EmbeddedRoutes::new());
        let gateway = Gateway { boot: GATEWAY, endpoint: String::new() };
        routes.renew_lease(&gateway, 3_600_000).await.unwrap();
        let inbox = FlushedInbox::over(store.inbox());
        let directory = SilentDirectory::over(store.directory());
        let (queue, mut consumers) = EmbeddedQueue::new(1, 100_000);
        let letters = Letters::over(queue.clone());
        let ports = Ports {
            queue: letters.clone(),
            log: log.clone(),
            directory: directory.clone(),
            inbox: inbox.clone(),
            routes: routes.clone(),
            delivery: heard.clone(),
        };
        let logic = Logic::new(ports.clone(), config.clone());
        let relations = store.relations();
        let mut accounts = logic.follow_accounts(&*relations).await.unwrap();
        accounts.ready().await;
        Self {
            _folder: folder,
            path,
            _store: store,
            log,
            inbox,
            directory,
            ports,
            metrics: logic.metrics(),
            requests: logic.requests(keys()),
            logic,
            heard,
            worker: None,
            queue,
            letters,
            consumer: consumers.pop().map(|consumer| Box::new(consumer) as Box<dyn Consumer>),
            routes,
            relations,
            _accounts: accounts,
            next_request: AtomicU64::new(1),
            config,
        }
    }

    pub async fn start(&mut self) {
        self.start_behind();
        self.ready().await;
    }

    /// A worker whose projections may lack what is in the log.
    pub fn start_behind(&mut self) {
        self.worker = Some(self.logic.spawn_worker(self.consumer.take().unwrap()));
    }

    pub async fn ready(&mut self) {
        let ready = self.worker.as_mut().unwrap().ready();
        assert!(tokio::time::timeout(PATIENCE, ready).await.expect("not ready in time"));
    }

    /// Like `start`, but on a queue of a test's own.
    pub async fn start_on(&mut self, consumer: Box<dyn Consumer>) {
        self.consumer = Some(consumer);
        self.start().await;
    }

    /// The process dies and comes back on what was durable: rows that were not covered are gone.
    pub async fn crash_and_restart(self) -> Self {
        let mut next = self.crash().await;
        next.start().await;
        next
    }

    /// What is left of it; nothing runs yet.
    pub async fn crash(mut self) -> Self {
        drop(self.worker.take());
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&self.path).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let path = copy.path().to_owned();
        Self::open(copy, path, self.config.clone()).await
    }

    pub async fn phone(&self, name: &str, device: &str) -> Phone {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let connection = ConnectionId::new(1, NEXT.fetch_add(1, Ordering::Relaxed));
        let phone = Phone { user: user(name), device: DeviceId::parse(device).unwrap(), connection };
        self.routes.register(&phone.user, &phone.device, GATEWAY, connection, None, now_ms()).await.unwrap();
        phone
    }

    /// The present inbox versions of the users.
    pub async fn versions(&self, phones: &[&Phone]) -> Vec<im_proto::InboxVersion> {
        let users: Vec<UserId> = phones.iter().map(|phone| phone.user.clone()).collect();
        self.ports.inbox.versions(&users).await.unwrap()
    }

    /// Puts commands into the queue, all at once. Answers their request ids.
    pub fn produce(&self, commands: Vec<(&Phone, Command)>) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut records = Vec::new();
        for (phone, command) in commands {
            let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
            ids.push(request_id);
            records.push(record(phone, request_id, command));
        }
        self.queue.produce(&mut records);
        assert!(records.is_empty());
        ids
    }

    pub async fn ask(&self, phone: &Phone, command: Command) -> Body {
        self.ask_told(phone, command).await.body
    }

    pub async fn ask_told(&self, phone: &Phone, command: Command) -> Told {
        let id = self.produce(vec![(phone, command)])[0];
        self.answer(phone, id).await
    }

    pub async fn ask_all(&self, commands: Vec<(&Phone, Command)>) -> Vec<Body> {
        let phones: Vec<Phone> = commands.iter().map(|(phone, _)| (*phone).clone()).collect();
        let mut bodies = Vec::new();
        for (phone, id) in phones.iter().zip(self.produce(commands)) {
            bodies.push(self.answer(phone, id).await.body);
        }
        bodies
    }

    /// The one answer to a request. Fails the test if there are two.
    pub async fn answer(&self, phone: &Phone, request_id: u64) -> Told {
        let key = (phone.connection.0, request_id);
        let heard = self.wait(|heard| heard.answers.get(&key).cloned(), &format!("answer {key:?}")).await;
        assert_eq!(heard.len(), 1, "one request, one answer");
        heard[0].clone()
    }

    pub async fn pushes(&self, phone: &Phone, count: usize) -> Vec<Told> {
        let told = |heard: &Heard| heard.pushes.get(&phone.connection.0).filter(|told| told.len() >= count).cloned();
        self.wait(told, &format!("{count} pushes to {}", phone.user)).await
    }

    pub fn pushed_so_far(&self, phone: &Phone) -> Vec<Told> {
        self.heard.state.lock().unwrap().pushes.get(&phone.connection.0).cloned().unwrap_or_default()
    }

    /// Entries of large conversations, for the gateway.
    pub async fn large(&self, count: usize) -> Vec<internal::LargePush> {
        let large = |heard: &Heard| (heard.large.len() >= count).then(|| heard.large.clone());
        self.wait(large, &format!("{count} entries of large conversations")).await
    }

    /// Moves that came without a frame.
    pub async fn moves_alone(&self, phone: &Phone, count: usize) -> Vec<InboxMove> {
        let moves = |heard: &Heard| heard.moves.get(&phone.connection.0).filter(|moves| moves.len() >= count).cloned();
        self.wait(moves, &format!("{count} moves of {}", phone.user)).await
    }

    pub fn kicks(&self) -> Vec<internal::Kick> {
        self.heard.state.lock().unwrap().kicks.clone()
    }

    /// Until each of these logins was told that its user is banned.
    pub async fn kicked(&self, phones: &[&Phone]) {
        let told = |heard: &Heard, phone: &&Phone| {
            let is_it = |kick: &internal::Kick| kick.connection_id == phone.connection.0;
            heard.kicks.iter().any(|kick| is_it(kick) && kick.reason == Reason::Banned as u32)
        };
        self.wait(|heard| phones.iter().all(|phone| told(heard, phone)).then_some(()), "kicks of banned users").await;
    }

    /// Until so many are known to be banned.
    pub async fn knows_banned(&self, users: u64) {
        knows_banned(&self.metrics, users).await;
    }

    async fn wait<T>(&self, look: impl Fn(&Heard) -> Option<T>, what: &str) -> T {
        let looking = async {
            loop {
                let changed = self.heard.changed.notified();
                if let Some(found) = look(&self.heard.state.lock().unwrap()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// What the store holds of a log.
    pub async fn entries(&self, log: &LogId) -> Vec<client::Entry> {
        let rows = self.log.inner.range(log, Seq(1), usize::MAX, usize::MAX).await.unwrap();
        let entries: Vec<client::Entry> = rows
            .iter()
            .map(|row| {
                let stored = internal::StoredEntry::decode(row.stored.clone()).unwrap();
                client::Entry::decode(stored.entry).unwrap()
            })
            .collect();
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.seq, at as u64 + 1, "a hole or a doubled seq in {log}");
        }
        entries
    }

    pub async fn texts(&self, log: &LogId) -> Vec<String> {
        self.entries(log).await.iter().filter_map(text_of).collect()
    }

    pub async fn read(&self, phone: &Phone, command: Command) -> (Body, Option<im_proto::InboxVersion>) {
        let frame = client::ClientFrame { request_id: 5, command: Some(command), ..Default::default() }.encode_to_vec();
        let answer = self.requests.read(&phone.user, frame.into()).await;
        let frame = client::ServerFrame::decode_length_delimited(answer.frame).unwrap();
        assert_eq!(frame.request_id, 5);
        (frame.body.unwrap(), answer.inbox_version)
    }

    pub async fn sync(&self, phone: &Phone, token: &Bytes, limit: u32) -> Result<client::Synced, client::Error> {
        match self.read(phone, Command::Sync(client::Sync { token: token.clone(), limit })).await.0 {
            Body::Synced(synced) => Ok(synced),
            Body::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub async fn pull(&self, phone: &Phone, log: &LogId, from_seq: u64) -> Result<client::Pulled, client::Error> {
        let pull = client::Pull { conversation_id: log.as_str().into(), epoch: self.log.epoch().0, from_seq, limit: 0 };
        match self.read(phone, Command::Pull(pull)).await.0 {
            Body::Pulled(pulled) => Ok(pulled),
            Body::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub fn token(&self, name: &str, expires_in_ms: i64) -> String {
        let user = user(name);
        let new = NewToken {
            user: &user,
            device: None,
            issuer: None,
            audience: None,
            expires_at_ms: now_ms() + expires_in_ms,
        };
        issue("default", &SECRET, &new).unwrap()
    }
}
