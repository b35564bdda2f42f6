//! What Redis loses does no harm: versions, fences and generations rise, and no cover counts over rows that are gone.

use super::{OwnServer, fresh, server::command};
use im_proto::{ConnectionId, DeviceId, InboxVersion, LogId, Ordinal, Seq, UserId};
use im_storage::{
    finding::Severity,
    ports::{
        Covered, Cursor, GatewayBoot, Inbox, Login, Move, Moved, Projection, ReadCursor, Routes, Shard, StoreError,
    },
    redis::{OpenError, RedisInbox, RedisOptions, RedisStore},
};
use redis::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The ports' own bound: every call ends by then.
const CALL_MAX: Duration = Duration::from_secs(10);

fn user() -> UserId {
    UserId::parse("ann").unwrap()
}

/// A move that always counts.
fn touch(log: &str, head: u64) -> Move {
    Move {
        user: user(),
        log: LogId::parse(log).unwrap(),
        head: Seq(head),
        head_ordinal: Ordinal(head),
        read: ReadCursor::default(),
        touch: true,
    }
}

async fn bump(inbox: &RedisInbox, log: &str, head: u64) -> Moved {
    inbox.bump(vec![touch(log, head)]).await.unwrap()[0]
}

fn shards() -> Vec<Shard> {
    Shard::all().collect()
}

fn cursor(byte: u8) -> Cursor {
    Cursor(vec![0, byte].into())
}

#[tokio::test]
async fn after_a_flush_versions_rise_and_no_cover_counts() {
    let server = OwnServer::start();
    let inbox = fresh(&server.url()).await.inbox();
    let claim = inbox.claim(&shards()).await.unwrap();
    let mut last = bump(&inbox, "a", 1).await.version;
    assert_eq!(inbox.cover(&claim, &cursor(1)).await.unwrap(), Covered::Noted);
    for _ in 0..20 {
        server.command::<Value>("FLUSHALL").await;
        assert_eq!(inbox.versions(&[user()]).await.unwrap(), [InboxVersion(0)]);
        let moved = bump(&inbox, "a", 1).await;
        assert_eq!(moved.previous, InboxVersion(0));
        assert!(moved.version > last, "a version was given twice");
        last = moved.version;
    }
    assert_eq!(inbox.cover(&claim, &cursor(2)).await.unwrap(), Covered::Lost);
    let again = inbox.claim(&shards()).await.unwrap();
    assert!(again.fence > claim.fence);
    assert!(again.covered.iter().all(|(_, covered)| covered.is_none()), "everything is to be repeated");
    assert_eq!(inbox.cover(&again, &cursor(2)).await.unwrap(), Covered::Noted);
    assert_eq!(inbox.cover(&claim, &cursor(3)).await.unwrap(), Covered::Replaced);
}

#[tokio::test]
async fn an_old_snapshot_brings_no_version_back_and_no_cover_counts_over_it() {
    let mut server = OwnServer::start();
    let inbox = fresh(&server.url()).await.inbox();
    let claim = inbox.claim(&shards()).await.unwrap();
    let saved = bump(&inbox, "a", 1).await;
    assert_eq!(inbox.cover(&claim, &cursor(1)).await.unwrap(), Covered::Noted);
    server.command::<Value>("SAVE").await;
    let mut given = saved.version;
    for head in 2..100 {
        given = bump(&inbox, "b", head).await.version;
    }
    server.kill();
    server.restart();

    assert_eq!(settled(&inbox).await, saved.version, "the claim and its rows came back with the snapshot");
    assert_eq!(inbox.cover(&claim, &cursor(2)).await.unwrap(), Covered::Lost);
    let moved = bump(&inbox, "b", 99).await;
    assert!(moved.version > given, "a version was given twice");
    let again = inbox.claim(&shards()).await.unwrap();
    assert!(again.covered.iter().all(|(_, covered)| *covered == Some(cursor(1))), "the cover that survived");
}

/// The user's version, once the adapter has found the server again.
async fn settled(inbox: &RedisInbox) -> InboxVersion {
    let found = async {
        loop {
            match inbox.versions(&[user()]).await {
                Ok(versions) => return versions[0],
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(CALL_MAX, found).await.expect("the adapter comes back by itself")
}

/// Same process, same claim, other rows: only the line of replication tells.
#[tokio::test]
async fn a_server_that_took_over_an_older_copy_lets_no_cover_count() {
    let (server, copy) = (OwnServer::start(), OwnServer::start());
    let inbox = fresh(&server.url()).await.inbox();
    let claim = inbox.claim(&shards()).await.unwrap();
    let kept = bump(&inbox, "a", 1).await;
    copy.command::<Value>(&format!("REPLICAOF 127.0.0.1 {}", server.port())).await;
    copy.says("master_link_status:up").await;
    copy.command::<Value>("REPLICAOF NO ONE").await;
    let lost = bump(&inbox, "b", 1).await;
    server.command::<Value>(&format!("REPLICAOF 127.0.0.1 {}", copy.port())).await;
    server.says("master_link_status:up").await;
    let refused = inbox.bump(vec![touch("b", 1)]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "a replica is not written to: {refused:?}");
    server.command::<Value>("REPLICAOF NO ONE").await;

    assert_eq!(settled(&inbox).await, kept.version);
    assert_eq!(inbox.cover(&claim, &cursor(1)).await.unwrap(), Covered::Lost);
    assert!(bump(&inbox, "b", 1).await.version > lost.version);
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_is_found_again() {
    let mut server = OwnServer::start();
    let store = fresh(&server.url()).await;
    let inbox = store.inbox();
    let before = bump(&inbox, "a", 1).await;
    server.signal("STOP");
    let hung = timeout(CALL_MAX, inbox.bump(vec![touch("a", 2)])).await.expect("every call ends");
    assert!(matches!(hung, Err(StoreError::Unavailable(_))), "{hung:?}");
    let routes = store.routes();
    let looked_up = timeout(CALL_MAX, routes.look_up(&[user()])).await.expect("every call ends");
    assert!(matches!(looked_up, Err(StoreError::Unavailable(_))));
    server.signal("CONT");
    settled(&inbox).await;
    assert!(bump(&inbox, "a", 3).await.version > before.version);

    server.kill();
    let gone = timeout(CALL_MAX, inbox.bump(vec![touch("a", 4)])).await.expect("every call ends");
    assert!(matches!(gone, Err(StoreError::Unavailable(_))));
    server.restart();
    assert_eq!(settled(&inbox).await, InboxVersion(0), "nothing was saved");
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again_within_the_call() {
    let server = OwnServer::start();
    let inbox = fresh(&server.url()).await.inbox();
    let moves: Vec<_> = (1..=300).map(|head| touch("a", head)).collect();
    for _ in 0..3 {
        server.command::<Value>("SCRIPT FLUSH").await;
        let answers = inbox.bump(moves.clone()).await.unwrap();
        assert!(answers.windows(2).all(|two| two[1].previous == two[0].version), "in their order");
    }
}

#[tokio::test]
async fn a_flushed_table_lets_no_old_login_win() {
    let server = OwnServer::start();
    let routes = fresh(&server.url()).await.routes();
    let (phone, gateway) = (DeviceId::parse("phone").unwrap(), GatewayBoot(7));
    let now_ms = 1_700_000_000_000;
    let mut last = None;
    for round in 0..5 {
        let connection = ConnectionId::new(0, round);
        let login =
            routes.register(&user(), &phone, gateway, connection, None, now_ms + round as i64).await.unwrap().unwrap();
        assert!(Some(login.generation) > last);
        last = Some(login.generation);
        server.command::<Value>("FLUSHALL").await;
    }
}

/// F27: the clocks of two workers are ten minutes apart, and the table is lost between two logins of a device.
#[tokio::test]
async fn a_flushed_table_lets_no_login_win_by_the_clock_of_its_worker() {
    let server = OwnServer::start();
    let routes = fresh(&server.url()).await.routes();
    let (phone, gateway) = (DeviceId::parse("phone").unwrap(), GatewayBoot(7));
    let (now_ms, ahead_ms) = (1_900_000_000_000, 600_000);
    let connections = [1, 2].map(|number| ConnectionId::new(0, number));
    let old =
        routes.register(&user(), &phone, gateway, connections[0], None, now_ms + ahead_ms).await.unwrap().unwrap();
    server.command::<Value>("FLUSHALL").await;
    let new = routes.register(&user(), &phone, gateway, connections[1], None, now_ms).await.unwrap().unwrap();
    assert!(new.generation > old.generation);
    // The old one's heartbeat, which puts back what the table has lost.
    let generation = old.generation;
    let old = Login { user: user(), device: phone, generation, gateway, connection: connections[0] };
    assert_eq!(routes.confirm(&[old]).await.unwrap(), [false]);
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused_unless_allowed() {
    let server = OwnServer::start();
    command::<Value>(&server.url(), "CONFIG SET maxmemory-policy allkeys-lru").await;
    let mut options = RedisOptions { url: server.url(), prefix: String::new(), allow: Vec::new() };
    let refused = RedisStore::open(&options).await;
    assert!(matches!(refused, Err(OpenError::Unsafe(found)) if found.name == "redis.eviction"));
    let findings = RedisStore::check(&options).await.unwrap();
    assert_eq!((findings[0].name, findings[0].severity), ("redis.eviction", Severity::Unsafe));
    assert!(findings.iter().any(|found| found.name == "redis.persistence"), "{findings:?}");
    options.allow.push("redis.eviction".to_owned());
    let allowed: Arc<RedisInbox> = RedisStore::open(&options).await.map_err(|error| error.to_string()).unwrap().inbox();
    bump(&allowed, "a", 1).await;
}

#[tokio::test]
async fn a_wrong_url_is_refused_and_not_repeated() {
    let options = |url: &str| RedisOptions { url: url.to_owned(), prefix: String::new(), allow: Vec::new() };
    for url in ["http://user:secret@127.0.0.1/", "secret", "redis://:secret@127.0.0.1:1/"] {
        let options = options(url);
        assert!(!format!("{options:?}").contains("secret"));
        let error = RedisStore::open(&options).await.map(drop).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_into_an_inbox_stops_no_move_and_is_written_over() {
    let server = OwnServer::start();
    let options = RedisOptions { url: server.url(), prefix: String::new(), allow: Vec::new() };
    let inbox = RedisStore::open(&options).await.map_err(|error| error.to_string()).unwrap().inbox();
    let ben = UserId::parse("ben").unwrap();
    let heads = async |of: &UserId| {
        let rows = inbox.since(of, InboxVersion(0), 10).await.unwrap().rows;
        rows.into_iter().map(|row| (row.log.to_string(), row.head.0)).collect::<Vec<_>>()
    };
    let of_both =
        |head| vec![Move { touch: false, ..touch("a", head) }, Move { user: ben.clone(), ..touch("a", head) }];
    let mut last = inbox.bump(vec![touch("a", 1), touch("b", 1)]).await.unwrap()[1];

    server.command::<Value>("HSET i:{ann}:r a garbage").await;
    let read = inbox.since(&user(), InboxVersion(0), 10).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "nobody is told what is not so: {read:?}");
    let moved = inbox.bump(of_both(2)).await.unwrap()[0];
    assert!(moved.previous == last.version && moved.version > last.version, "{moved:?} behind {last:?}");
    assert_eq!(heads(&user()).await, [("b".to_owned(), 1), ("a".to_owned(), 2)]);
    assert_eq!(heads(&ben).await, [("a".to_owned(), 2)]);

    // A key of another type takes the user's whole inbox with it, as a flush would.
    for (key, head) in [("i:{ann}:r", 3), ("i:{ann}:v", 4)] {
        last = inbox.bump(vec![touch("b", head)]).await.unwrap()[0];
        server.command::<Value>(&format!("SET {key} garbage")).await;
        let moved = inbox.bump(of_both(head)).await.unwrap()[0];
        assert!(moved.version > last.version, "{key}: a version was given twice");
        assert_eq!(heads(&user()).await, [("a".to_owned(), head)], "{key}");
        assert_eq!(heads(&ben).await, [("a".to_owned(), head)], "{key}");
    }
}
