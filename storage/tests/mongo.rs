//! The entry log on a real server of MongoDB's protocol keeps the promises of its port. `IM_TEST_MONGODB` names the server.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "mongo/bounds.rs"]
mod bounds;
#[path = "mongo/clocks.rs"]
mod clocks;
#[path = "mongo/slow.rs"]
mod slow;

use async_trait::async_trait;
use im_proto::{ClientId, LogId, Seq, UserId};
use im_storage::conformance::{self, Ports, Stores};
use im_storage::embedded::{EmbeddedStore, OpenOptions};
use im_storage::mongo::{MongoEntryLog, MongoError, MongoOptions, check};
use im_storage::ports::{EntryLog, NewEntry, Shard, Stop, StoreError, Tail};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

fn url() -> String {
    std::env::var("IM_TEST_MONGODB").expect("IM_TEST_MONGODB names the server; see scripts/services env")
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A database of its own; dropped at the end.
struct Database(MongoOptions);

impl Database {
    fn new() -> Self {
        let allow = vec!["mongodb.standalone".to_owned()];
        let database = format!("im_test_{:016x}", rand::random::<u64>());
        let timeout = Duration::from_secs(10);
        Self(MongoOptions { url: url(), database, timeout, wall_clock_ms: now_ms, given_time_ms: None, allow })
    }

    async fn open(&self) -> Arc<MongoEntryLog> {
        MongoEntryLog::open(&self.0).await.unwrap()
    }

    async fn collection(&self, name: &str) -> mongodb::Collection<mongodb::bson::Document> {
        let client = mongodb::Client::with_uri_str(&self.0.url).await.unwrap();
        client.database(&self.0.database).collection(name)
    }

    async fn remove(&self) {
        let client = mongodb::Client::with_uri_str(&self.0.url).await.unwrap();
        client.database(&self.0.database).drop().await.unwrap();
    }
}

/// The entry log in a database, the other ports embedded.
struct Mixed {
    database: Database,
    kept: Mutex<Vec<(TempDir, EmbeddedStore)>>,
}

impl Mixed {
    async fn ports(&self) -> Ports {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { folder: folder.path().to_owned(), cache_bytes: 1 << 20, now_ms: 1_000 };
        let store = EmbeddedStore::open(&options).unwrap();
        let (directory, inbox) = (store.directory(), store.inbox());
        self.kept.lock().unwrap().push((folder, store));
        Ports { entry_log: self.database.open().await, directory, inbox }
    }
}

#[async_trait]
impl Stores for Mixed {
    async fn empty(&self) -> Ports {
        self.ports().await
    }

    async fn crash(&self, ports: Ports) -> Ports {
        drop(ports);
        self.ports().await
    }
}

fn entry(log: &LogId, seq: u64) -> NewEntry {
    NewEntry {
        log: log.clone(),
        seq: Seq(seq),
        sender: UserId::parse("sender").unwrap(),
        client_id: ClientId::parse(&format!("id-{seq}")).unwrap(),
        stored: format!("entry {seq} of {log}").into(),
    }
}

fn entries(log: &LogId, seqs: std::ops::RangeInclusive<u64>) -> Vec<NewEntry> {
    seqs.map(|seq| entry(log, seq)).collect()
}

fn log(text: &str) -> LogId {
    LogId::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entry_log_keeps_its_promises() {
    let mixed = Mixed { database: Database::new(), kept: Mutex::default() };
    conformance::entry_log(&mixed).await;
    conformance::entry_log_after_a_crash(&mixed).await;
    mixed.database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_ranges_are_right_at_every_edge_of_a_page() {
    let database = Database::new();
    let store = database.open().await;
    let log = log("paged");
    let mut head = 0;
    for grown in [1, 63, 64, 65, 127, 128, 129, 300] {
        let appended = store.append(entries(&log, head + 1..=grown)).await;
        assert!(appended.stop.is_none(), "{appended:?}");
        head = grown;
        assert_eq!(store.head(&log).await.unwrap().unwrap().seq, Seq(head));
        for from in [1, 2, 63, 64, 65, 128, head, head + 1] {
            let rows = store.range(&log, Seq(from), 1_000, 1_000_000).await.unwrap();
            let seqs: Vec<u64> = rows.iter().map(|row| row.seq.0).collect();
            assert_eq!(seqs, (from..=head).collect::<Vec<_>>(), "from {from} of {head}");
        }
    }
    assert_eq!(store.range(&log, Seq(60), 10, 1_000_000).await.unwrap().len(), 10, "over the edge of a page");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_key_stops_a_large_batch_at_its_place_and_nothing_behind_it_is_stored() {
    let database = Database::new();
    let store = database.open().await;
    // Over several commands, at every kind of place.
    for taken in [1, 2, 100, 101, 150, 200, 250] {
        let log = log(&format!("taken-{taken}"));
        let before = store.append(entries(&log, 1..=taken - 1)).await;
        assert!(before.stop.is_none());
        // Another owner writes the place first, under another client id.
        let zombie = NewEntry { client_id: ClientId::parse("zombie").unwrap(), ..entry(&log, taken) };
        assert!(store.append(vec![zombie]).await.stop.is_none());
        let batch: Vec<NewEntry> = (taken..=taken + 250).map(|seq| entry(&log, seq)).collect();
        let appended = store.append(batch).await;
        assert!(matches!(appended.stop, Some(Stop::Taken)) && appended.stored == 0, "{taken}: {appended:?}");
        assert_eq!(store.head(&log).await.unwrap().unwrap().seq, Seq(taken), "stored behind a taken key");
    }
    let log = log("id-taken");
    assert!(store.append(entries(&log, 1..=1)).await.stop.is_none());
    let mut batch = entries(&log, 2..=260);
    batch[150].client_id = ClientId::parse("id-1").unwrap();
    let appended = store.append(batch).await;
    assert!(matches!(appended.stop, Some(Stop::Taken)) && appended.stored == 150, "{appended:?}");
    assert_eq!(store.head(&log).await.unwrap().unwrap().seq, Seq(151));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_on_one_database_cannot_fork_a_log() {
    let database = Database::new();
    let (one, two) = (database.open().await, database.open().await);
    assert_eq!(one.epoch(), two.epoch());
    let log = log("race");
    let of = |name: &str, seq: u64| NewEntry {
        client_id: ClientId::parse(&format!("{name}-{seq}")).unwrap(),
        ..entry(&log, seq)
    };
    let write = async |store: &MongoEntryLog, name: &str| {
        let mut stored = 0;
        while stored < 40 {
            let next = store.head(&log).await.unwrap().map_or(1, |head| head.seq.0 + 1);
            let appended = store.append((next..next + 5).map(|seq| of(name, seq)).collect()).await;
            stored += appended.stored;
        }
    };
    tokio::join!(write(&one, "one"), write(&two, "two"));
    let rows = one.range(&log, Seq(1), 1_000, 1_000_000).await.unwrap();
    assert!(rows.len() >= 80 && rows.iter().zip(1..).all(|(row, seq)| row.seq == Seq(seq)), "a hole or a fork");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_entry_is_refused_with_its_place() {
    use mongodb::bson::{Binary, doc, spec::BinarySubtype};
    let database = Database::new();
    let store = database.open().await;
    let log = log("changed");
    assert!(store.append(entries(&log, 1..=3)).await.stop.is_none());
    let other = Binary { subtype: BinarySubtype::Generic, bytes: b"entry 9 of changed".to_vec() };
    let change = database.collection("entries").await;
    change.update_one(doc! { "l": "changed", "s": 2_i64 }, doc! { "$set": { "b": other } }).await.unwrap();
    let Err(StoreError::Damaged(place)) = store.range(&log, Seq(1), 10, 10_000).await else { panic!("handed out") };
    assert!(place.contains("log changed, entry 2"), "{place}");
    assert_eq!(store.head(&log).await.unwrap().unwrap().seq, Seq(3), "the others are still answered");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_too_old_is_forgotten_and_the_logs_are_listed() {
    use mongodb::bson::doc;
    let database = Database::new();
    let store = database.open().await;
    let log = log("old");
    assert!(store.append(entries(&log, 1..=1)).await.stop.is_none());
    let shard = Shard::of(&log);
    let end = store.end().await.unwrap();
    assert!(
        matches!(store.tail(shard, None, &end, 10).await.unwrap(), Tail::Named { .. }),
        "the store itself is young"
    );
    let made = database.collection("store").await;
    made.update_one(doc! { "_id": "store" }, doc! { "$inc": { "created_ms": -7_200_000_i64 } }).await.unwrap();
    let store = database.open().await;
    assert!(matches!(store.tail(shard, None, &end, 10).await.unwrap(), Tail::Forgotten));
    assert_eq!(store.logs(shard, None, 10).await.unwrap(), [log]);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_settings_are_refused_by_name_and_an_absent_server_in_time() {
    let mut database = Database::new();
    let found = async |database: &Database| {
        let found = check(&database.0).await.unwrap();
        found.iter().map(|finding| finding.name).collect::<Vec<_>>()
    };
    assert_eq!(found(&database).await, ["mongodb.standalone", "mongodb.entries"]);
    database.open().await;
    assert_eq!(found(&database).await, ["mongodb.standalone"], "what is lacking was made");
    database.remove().await;
    database.0.allow.clear();
    assert!(matches!(MongoEntryLog::open(&database.0).await, Err(MongoError::Weak(_))));
    database.0.url = "mongodb://secret:hunter2@127.0.0.1:1/?directConnection=true".to_owned();
    database.0.timeout = Duration::from_millis(300);
    let Err(error) = MongoEntryLog::open(&database.0).await else { panic!("nobody is there") };
    assert!(matches!(error, MongoError::Driver(_)));
    assert!(!format!("{error} {error:?} {:?}", database.0).contains("hunter2"), "{error}");
}
