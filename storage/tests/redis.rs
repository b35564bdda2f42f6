//! The Redis adapters keep the promises of their ports, on a real Redis.
//!
//! In: the address of a server in `IM_TEST_REDIS`, and the program `redis-server` for the tests that flush, kill or stop
//! one. Out: a failure that names the broken promise. Always: each test uses a key prefix of its own and removes its keys.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "redis/losses.rs"]
mod losses;
#[path = "redis/server.rs"]
mod server;

use async_trait::async_trait;
use im_proto::{ConnectionId, DeviceId, LogId, Ordinal, Seq, UserId};
use im_storage::{
    conformance::{self, Ports, Stores},
    embedded::{EmbeddedStore, OpenOptions},
    ports::{Gateway, GatewayBoot, Inbox, InboxRow, Login, Move, ReadCursor, Routes},
    redis::{RedisOptions, RedisStore},
};
use server::{OwnServer, remove};
use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

/// Long enough for all the suite's checks but the last, which waits for it to end.
const LEASE: Duration = Duration::from_secs(5);

fn address() -> String {
    let address = std::env::var("IM_TEST_REDIS").expect("IM_TEST_REDIS holds the address of a Redis server");
    if address.contains("://") { address } else { format!("redis://{address}/") }
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    let options = RedisOptions { url: url.to_owned(), prefix: prefix.to_owned(), allow: Vec::new() };
    RedisStore::open(&options).await.unwrap_or_else(|error| panic!("{error}"))
}

fn prefix() -> String {
    format!("im-test-{:016x}:", rand::random::<u64>())
}

/// A store with a prefix of its own.
async fn fresh(url: &str) -> RedisStore {
    open(url, &prefix()).await
}

/// The inbox on Redis; log and directory embedded.
#[derive(Default)]
struct Mixed {
    prefix: String,
    kept: Mutex<Vec<(TempDir, EmbeddedStore)>>,
}

impl Mixed {
    fn new() -> Self {
        Self { prefix: prefix(), kept: Mutex::default() }
    }
}

#[async_trait]
impl Stores for Mixed {
    async fn empty(&self) -> Ports {
        remove(&address(), &self.prefix).await;
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { folder: folder.path().to_owned(), cache_bytes: 1 << 20, now_ms: 1_000 };
        let store = EmbeddedStore::open(&options).unwrap();
        let inbox = open(&address(), &self.prefix).await.inbox();
        let ports = Ports { entry_log: store.entry_log(), directory: store.directory(), inbox };
        self.kept.lock().unwrap().push((folder, store));
        ports
    }

    async fn crash(&self, ports: Ports) -> Ports {
        Ports { inbox: open(&address(), &self.prefix).await.inbox(), ..ports }
    }
}

#[tokio::test]
async fn the_inbox_keeps_its_promises() {
    let stores = Mixed::new();
    conformance::inbox(&stores).await;
    conformance::inbox_after_a_crash(&stores).await;
    remove(&address(), &stores.prefix).await;
}

#[tokio::test]
async fn the_routes_keep_their_promises() {
    let prefix = prefix();
    let routes = open(&address(), &prefix).await.routes();
    conformance::routes_with_leases(&*routes, LEASE, tokio::time::sleep).await;
    remove(&address(), &prefix).await;
}

/// A worker's link hangs with the sign-in in it; the gateway asked another worker, and the device has signed in elsewhere since.
#[tokio::test]
async fn a_sign_in_that_arrives_late_replaces_nobody() {
    let server = OwnServer::start();
    server.command::<String>("CONFIG SET slowlog-log-slower-than 0").await;
    let routes = fresh(&server.url()).await.routes();
    let gateway = Gateway { boot: GatewayBoot(1), endpoint: String::new() };
    routes.renew_lease(&gateway, 60_000).await.unwrap();
    let device = DeviceId::parse("phone").unwrap();
    let register = async |connection: u64, now_ms| {
        let connection = ConnectionId::new(0, connection);
        let generation = routes
            .register(&user(0), &device, gateway.boot, connection, None, now_ms)
            .await
            .unwrap()
            .unwrap()
            .generation;
        Login { user: user(0), device: device.clone(), generation, gateway: gateway.boot, connection }
    };
    for first_is_known in [false, true] {
        let old = register(1 + u64::from(first_is_known) * 2, 2_000).await;
        let called: Vec<(i64, i64, i64, Vec<String>, String, String)> = server.command("SLOWLOG GET 10").await;
        let place = format!("{:x} {:x}", gateway.boot.0, old.connection.0);
        let is_it = |words: &Vec<String>| words[0] == "EVALSHA" && words.contains(&place);
        let words = called.into_iter().map(|call| call.3).find(is_it).expect("the sign-in was seen on its way");
        let new = register(2 + u64::from(first_is_known) * 2, 1_000).await;
        let mut late = redis::cmd(&words[0]);
        late.arg(&words[1..]);
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        late.query_async::<redis::Value>(&mut connection).await.unwrap();
        assert_eq!(routes.look_up(&[user(0)]).await.unwrap(), [[new.clone()]]);
        assert_eq!(routes.confirm(&[new, old]).await.unwrap(), [true, false]);
    }
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn head(user: UserId, log: &str, head: u64) -> Move {
    let (head, read) = (Seq(head), ReadCursor::default());
    Move { user, log: LogId::parse(log).unwrap(), head, head_ordinal: Ordinal(head.0), read, touch: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_two_adapters_are_unique_and_joined() {
    let prefix = prefix();
    let mut movers = Vec::new();
    for mover in 0..2u64 {
        let inbox = open(&address(), &prefix).await.inbox();
        movers.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for round in 1..=50 {
                let moves = (0..7).map(|n| head(user(n % 3), "both", mover * 1_000 + round)).collect();
                answers.push(inbox.bump(moves).await.unwrap());
            }
            answers
        }));
    }
    let mut answers = Vec::new();
    for mover in movers {
        answers.extend(mover.await.unwrap());
    }
    for of in 0..3 {
        let mut moved: Vec<_> = answers.iter().flat_map(|moves| moves.iter().skip(of).step_by(3)).collect();
        moved.sort_unstable_by_key(|moved| moved.version);
        assert_eq!(moved[0].previous.0, 0);
        assert!(moved.windows(2).all(|two| two[1].previous == two[0].version && two[1].version > two[0].version));
    }
    remove(&address(), &prefix).await;
}

#[tokio::test]
async fn many_moves_of_many_users_are_answered_one_by_one() {
    let prefix = prefix();
    let inbox = open(&address(), &prefix).await.inbox();
    let moves: Vec<_> = (0..2_000).map(|n| head(user(n % 700), &format!("log-{}", n % 3), n as u64 + 1)).collect();
    let answers = inbox.bump(moves.clone()).await.unwrap();
    assert_eq!(answers.len(), 2_000);
    let users: Vec<_> = (0..700).map(user).collect();
    let versions = inbox.versions(&users).await.unwrap();
    for (of, version) in users.iter().zip(versions) {
        let theirs: Vec<_> = moves.iter().zip(&answers).filter(|(moved, _)| moved.user == *of).collect();
        assert!(theirs.windows(2).all(|two| two[1].1.previous == two[0].1.version), "in their order");
        assert_eq!(theirs.last().unwrap().1.version, version);
        let page = inbox.since(of, Default::default(), 10).await.unwrap();
        let rows: HashSet<_> = page.rows.iter().map(|row: &InboxRow| (row.log.clone(), row.head)).collect();
        let moved: HashSet<_> = theirs.iter().map(|(moved, _)| (moved.log.clone(), moved.head)).collect();
        assert_eq!(rows, moved);
    }
    remove(&address(), &prefix).await;
}

#[tokio::test]
async fn devices_of_a_user_are_bounded_and_the_departed_go_first() {
    let prefix = prefix();
    let routes: Arc<dyn Routes> = open(&address(), &prefix).await.routes();
    let gateway = Gateway { boot: GatewayBoot(u64::MAX), endpoint: "http://[::1]:1".to_owned() };
    routes.renew_lease(&gateway, 60_000).await.unwrap();
    let register = async |number: u64| {
        let device = DeviceId::parse(&format!("device-{number}")).unwrap();
        let connection = ConnectionId::new(u16::MAX, number);
        let registered =
            routes.register(&user(0), &device, gateway.boot, connection, None, 1_000 + number as i64).await;
        let generation = registered.unwrap().unwrap().generation;
        Login { user: user(0), device, generation, gateway: gateway.boot, connection }
    };
    let online = async || {
        let logins = routes.look_up(&[user(0)]).await.unwrap().remove(0);
        logins.iter().map(|login| login.connection.0 & 0xff).collect::<BTreeSet<_>>()
    };
    let mut logins = Vec::new();
    for number in 0..32 {
        logins.push(register(number).await);
    }
    routes.unregister(&logins[20]).await.unwrap();
    logins.push(register(32).await);
    let but = |left: &[u64], last: u64| (0..=last).filter(|number| !left.contains(number)).collect::<BTreeSet<_>>();
    assert_eq!(online().await, but(&[20], 32), "the departed one made room");
    logins.push(register(33).await);
    assert_eq!(online().await, but(&[0, 20], 33), "then the oldest one");
    let confirmed = routes.confirm(&[logins[0].clone(), logins[33].clone()]).await.unwrap();
    assert_eq!(confirmed, [true, true], "no newer login replaced it");
    assert_eq!(online().await, but(&[0, 20], 33), "and it pushes no newer one out");
    remove(&address(), &prefix).await;
}
