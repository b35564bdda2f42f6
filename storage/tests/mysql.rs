//! The directory on a real server of MySQL's protocol keeps the promises of its ports. `IM_TEST_MYSQL` names the server.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "mysql/database.rs"]
mod database;
#[path = "mysql/gate.rs"]
mod gate;
#[path = "mysql/losses.rs"]
mod losses;
#[path = "mysql/migrators.rs"]
mod migrators;
#[path = "mysql/server.rs"]
mod server;

use async_trait::async_trait;
use database::{Database, url};
use gate::Gate;
use im_proto::{DeviceId, LogId, Ordinal, Seq, UserId};
use im_storage::conformance::{self, Ports, Stores};
use im_storage::embedded::{EmbeddedStore, OpenOptions};
use im_storage::mysql::{MysqlDirectory, MysqlError, MysqlOptions, check, migrate};
use im_storage::ports::{
    Covered, Created, Cursor, Device, Directory, MembershipChange, Projection as _, ReadCursor, ReadMark, Shard,
    StoreError,
};
use sqlx::{Connection as _, MySqlConnection, Row as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A call ends within 9 s; a machine that is slow has some more.
const LATE: Duration = Duration::from_secs(13);

/// The directory in a database, the other ports embedded.
struct Mixed {
    database: Database,
    kept: Mutex<Vec<(TempDir, EmbeddedStore)>>,
}

#[async_trait]
impl Stores for Mixed {
    async fn empty(&self) -> Ports {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { folder: folder.path().to_owned(), cache_bytes: 1 << 20, now_ms: 1_000 };
        let store = EmbeddedStore::open(&options).unwrap();
        let ports = Ports { entry_log: store.entry_log(), directory: self.database.open().await, inbox: store.inbox() };
        self.kept.lock().unwrap().push((folder, store));
        ports
    }

    async fn crash(&self, ports: Ports) -> Ports {
        Ports { directory: self.database.open().await, ..ports }
    }
}

fn log(text: &str) -> LogId {
    LogId::parse(text).unwrap()
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number:05}")).unwrap()
}

fn users(numbers: std::ops::Range<usize>) -> Vec<UserId> {
    numbers.map(user).collect()
}

fn change(of: &LogId, seq: u64, joined: Vec<UserId>, left: Vec<UserId>) -> MembershipChange {
    let created = (seq == 1).then(|| Created { name: "a naïve name 🙂".to_owned(), creator: user(0), peer: None });
    let (log, after) = (of.clone(), Seq(seq.saturating_sub(1)));
    MembershipChange { log, seq: Seq(seq), after, created, joined, joined_ordinal: Ordinal(seq - 1), left }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_keeps_its_promises() {
    let mixed = Mixed { database: Database::new().await, kept: Mutex::default() };
    conformance::directory(&mixed).await;
    mixed.database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_keeps_its_promises_after_a_crash() {
    let mixed = Mixed { database: Database::new().await, kept: Mutex::default() };
    conformance::directory_after_a_crash(&mixed).await;
    mixed.database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_ten_thousand_is_applied_paged_and_counted() {
    let database = Database::new().await;
    let directory = database.open().await;
    let group = log("large");
    let begun = Instant::now();
    directory.apply(vec![change(&group, 1, users(0..10_000), Vec::new())]).await.unwrap();
    let created = begun.elapsed();
    directory.apply(vec![change(&group, 2, users(9_990..10_010), users(0..600))]).await.unwrap();
    let changed = begun.elapsed() - created;
    let mut after = None;
    let mut listed = Vec::new();
    while let Some(page) = directory.members(&group, after.as_ref(), 999).await.unwrap() {
        let Some(last) = page.members.last() else { break };
        after = Some(last.user.clone());
        listed.extend(page.members.into_iter().map(|row| row.user));
    }
    let paged = begun.elapsed() - created - changed;
    assert_eq!(listed, users(600..10_010));
    let whole = directory.conversation(&group).await.unwrap().unwrap();
    let read = begun.elapsed() - created - changed - paged;
    assert_eq!(whole.members.len(), 10_010, "those who left have a row too");
    assert_eq!(whole.header.created.name, "a naïve name 🙂");
    assert_eq!(database.number("SELECT CAST(members_count AS SIGNED) FROM conversations").await, 9_410);
    println!("10,000 members: created {created:?}, 620 changed {changed:?}, paged by 999 {paged:?}, read {read:?}");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_conversations_is_applied_and_its_repetition_changes_nothing() {
    let database = Database::new().await;
    let directory = database.open().await;
    let logs: Vec<LogId> = (0..700).map(|n| log(&format!("group-{n}"))).collect();
    let mut changes: Vec<_> = logs.iter().map(|of| change(of, 1, users(0..3), Vec::new())).collect();
    changes.extend(logs.iter().map(|of| change(of, 2, users(3..5), users(0..1))));
    let begun = Instant::now();
    directory.apply(changes.clone()).await.unwrap();
    let applied = begun.elapsed();
    let before = directory.memberships(&user(0), &logs[..500]).await.unwrap();
    assert!(before.iter().all(|of| of.as_ref().is_some_and(|of| of.row.left_seq == Some(Seq(2)))));
    let begun = Instant::now();
    directory.apply(changes).await.unwrap();
    println!("1,400 changes of 700 conversations: applied {applied:?}, repeated {:?}", begun.elapsed());
    assert_eq!(directory.memberships(&user(0), &logs[..500]).await.unwrap(), before);
    assert_eq!(database.number("SELECT COUNT(*) FROM conversations WHERE members_count <> 4").await, 0);
    let begun = Instant::now();
    for _ in 0..20 {
        directory.memberships(&user(1), &logs[..100]).await.unwrap();
    }
    println!("memberships of 100: {:?}", begun.elapsed() / 20);
    let begun = Instant::now();
    for _ in 0..100 {
        directory.memberships(&user(1), &logs[..1]).await.unwrap();
    }
    println!("memberships of 1: {:?}", begun.elapsed() / 100);
    let begun = Instant::now();
    let marks = logs.iter().map(|of| ReadMark { log: of.clone(), user: user(1), read: read(7) }).collect();
    directory.record_reads(marks).await.unwrap();
    println!("700 read cursors: {:?}", begun.elapsed());
    let asked: Vec<_> = logs.iter().map(|of| (of.clone(), user(1))).collect();
    assert_eq!(directory.reads(&asked).await.unwrap(), vec![read(7); 700]);
    database.remove().await;
}

fn read(seq: u64) -> ReadCursor {
    ReadCursor { seq: Seq(seq), ordinal: Ordinal(seq) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_adapters_that_apply_the_same_changes_leave_what_one_leaves() {
    let database = Database::new().await;
    let logs: Vec<LogId> = (0..20).map(|n| log(&format!("group-{n}"))).collect();
    // Each change adds one member: whoever sees a header sees as many rows.
    let of_seq = |seq: u64| {
        let joined = users(seq as usize..seq as usize + 1);
        logs.iter().map(|of| change(of, seq, joined.clone(), Vec::new())).collect::<Vec<_>>()
    };
    let batches: Vec<Vec<_>> = (1..=30).map(of_seq).collect();
    let mut appliers = Vec::new();
    for is_reversed in [false, true] {
        let (directory, batches) = (database.open().await, batches.clone());
        appliers.push(tokio::spawn(async move {
            for mut batch in batches {
                if is_reversed {
                    batch.reverse();
                }
                directory.apply(batch).await.unwrap();
            }
        }));
    }
    let reader = database.open().await;
    while !appliers.iter().all(|applier| applier.is_finished()) {
        for of in &logs {
            let Some(page) = reader.members(of, None, 100).await.unwrap() else { continue };
            assert_eq!(page.members.len() as u64, page.header.applied_seq.0, "header and rows are of one moment");
            let whole = reader.conversation(of).await.unwrap().unwrap();
            assert_eq!(whole.members.len() as u64, whole.header.applied_seq.0, "header and rows are of one moment");
        }
    }
    for applier in appliers {
        applier.await.unwrap();
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM members").await, 600);
    assert_eq!(
        database.number("SELECT COUNT(*) FROM conversations WHERE members_count = 30 AND applied_seq = 30").await,
        20
    );
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_cursors_of_two_adapters_end_at_the_highest() {
    let database = Database::new().await;
    let mark = |n: usize, seq| ReadMark { log: log(&format!("log-{n}")), user: user(n % 7), read: read(seq) };
    let mut writers = Vec::new();
    for writer in 0..2u64 {
        let directory = database.open().await;
        writers.push(tokio::spawn(async move {
            for round in 1..=40 {
                let marks = (0..100).map(|n| mark(n, if writer == 0 { round } else { 41 - round })).collect();
                directory.record_reads(marks).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let asked: Vec<_> = (0..100).map(|n| (log(&format!("log-{n}")), user(n % 7))).collect();
    assert_eq!(database.open().await.reads(&asked).await.unwrap(), vec![read(40); 100]);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_replaced_by_another_process_covers_nothing() {
    let database = Database::new().await;
    let (old, new) = (database.open().await, database.open().await);
    let cursor = |byte: u8| Cursor(vec![byte, 0, 255].into());
    let shards: Vec<Shard> = Shard::all().collect();
    let of_old = old.claim(&shards).await.unwrap();
    assert_eq!(old.cover(&of_old, &cursor(1)).await.unwrap(), Covered::Noted);
    let of_new = new.claim(&shards[7..9]).await.unwrap();
    assert!(of_new.fence > of_old.fence);
    assert_eq!(of_new.covered, [(shards[7], Some(cursor(1))), (shards[8], Some(cursor(1)))]);
    assert_eq!(old.cover(&of_old, &cursor(2)).await.unwrap(), Covered::Replaced);
    assert_eq!(new.cover(&of_new, &cursor(2)).await.unwrap(), Covered::Noted);
    assert_eq!(new.cover(&of_new, &cursor(1)).await.unwrap(), Covered::Noted, "an earlier one changes nothing");
    let claim = old.claim(&shards[6..9]).await.unwrap();
    let covered: Vec<_> = claim.covered.into_iter().map(|(_, covered)| covered).collect();
    assert_eq!(covered, [Some(cursor(1)), Some(cursor(2)), Some(cursor(2))], "and a refused one noted nothing");
    // Fences are lower than ours: a backup was restored under us.
    database.run("UPDATE shards SET fence = 0").await;
    assert_eq!(new.cover(&of_new, &cursor(3)).await.unwrap(), Covered::Lost);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_and_down_and_up_and_say_so() {
    let database = Database::empty().await;
    let options = &database.options;
    let applied = |status: &[migrate::MigrationStatus]| status.iter().filter(|of| of.applied_at_ms.is_some()).count();
    let status = migrate::status(options).await.unwrap();
    assert!(!status.is_empty() && applied(&status) == 0);
    assert!(status.windows(2).all(|two| two[0].version < two[1].version));
    let last = status.last().unwrap().version;
    let refused = MysqlDirectory::open(options).await.err().unwrap();
    assert!(matches!(refused, MysqlError::OldSchema { applied: 0, wanted } if wanted == last), "{refused}");
    let names: Vec<_> = check(options).await.unwrap().into_iter().map(|finding| finding.name).collect();
    assert_eq!(names, ["mysql.schema"]);
    for _ in 0..2 {
        let up = migrate::up(options).await.unwrap();
        assert_eq!(applied(&up), status.len());
        assert!(up.iter().all(|of| of.applied_at_ms.unwrap() > 1_500_000_000_000 && !of.description.is_empty()));
        assert_eq!(migrate::up(options).await.unwrap(), up, "again: nothing");
        let directory = database.open().await;
        directory.apply(vec![change(&log("group"), 1, users(0..3), Vec::new())]).await.unwrap();
        let device = Device { id: DeviceId::parse("phone").unwrap(), platform: "ios".to_owned() };
        directory.record_device(&user(0), device).await.unwrap();
        // With data in the tables, step by step.
        for left in (0..status.len()).rev() {
            assert_eq!(applied(&migrate::down(options).await.unwrap()), left);
        }
        assert_eq!(applied(&migrate::down(options).await.unwrap()), 0, "nothing is left to take back");
    }
    let tables = format!("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{}'", database.name);
    assert_eq!(database.number(&tables).await, 1, "the list of migrations alone");
    database.remove().await;
}

/// As `furthest_read` asks: of ten thousand readers one row is read.
#[tokio::test(flavor = "multi_thread")]
async fn the_furthest_cursor_is_read_by_a_key() {
    let database = Database::new().await;
    let directory = database.open().await;
    let [many, few] = ["many", "few"].map(log);
    let mark = |of: &LogId, n| ReadMark { log: of.clone(), user: user(n), read: read(n as u64 + 1) };
    let begun = Instant::now();
    directory.record_reads((0..10_000).map(|n| mark(&many, n)).collect()).await.unwrap();
    let recorded = begun.elapsed();
    directory.record_reads((0..3).map(|n| mark(&few, n)).collect()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(directory.furthest_read(&many).await.unwrap(), Some(mark(&many, 9_999)));
    }
    println!("10,000 read cursors: {recorded:?}; the furthest of them: {:?}", begun.elapsed() / 100);
    let mut connection = MySqlConnection::connect(&database.options.url).await.unwrap();
    let asked = "EXPLAIN SELECT user, seq, ordinal FROM read_marks WHERE log = 'many' ORDER BY seq DESC LIMIT 1";
    let plan = sqlx::query(asked).fetch_one(&mut connection).await.unwrap();
    let (key, extra): (Option<String>, Option<String>) = (plan.get("key"), plan.get("Extra"));
    assert_eq!(key.as_deref(), Some("furthest"));
    assert!(!extra.unwrap_or_default().contains("filesort"));
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_this_programs_is_refused() {
    let database = Database::new().await;
    let options = &database.options;
    let refused = async || {
        let (opened, status) = (MysqlDirectory::open(options).await.err(), migrate::status(options).await.err());
        let (up, down) = (migrate::up(options).await.err(), migrate::down(options).await.err());
        [opened, status, up, down].map(|error| error.unwrap())
    };
    database.run("UPDATE _sqlx_migrations SET checksum = CONCAT(checksum, 'x') WHERE version = 1").await;
    for error in refused().await {
        assert!(matches!(error, MysqlError::ChangedMigration { version: 1 }), "{error}");
    }
    database.run("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 1").await;
    for error in refused().await {
        assert!(matches!(error, MysqlError::UnfinishedMigration { version: 1 }), "{error}");
    }
    let database_of_newer = Database::new().await;
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'newer', CURRENT_TIMESTAMP, TRUE, 'x', 0)";
    database_of_newer.run(newer).await;
    let error = MysqlDirectory::open(&database_of_newer.options).await.err().unwrap();
    assert!(matches!(error, MysqlError::NewSchema { version: 9999 }), "{error}");
    database.remove().await;
    database_of_newer.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_settings_are_refused_unless_allowed_by_name() {
    let mut database = Database::new().await;
    assert_eq!(check(&database.options).await.unwrap(), [], "the test server is sound");
    database.run("ALTER TABLE devices MODIFY device VARCHAR(64) CHARACTER SET utf8mb4 NOT NULL").await;
    let error = MysqlDirectory::open(&database.options).await.err().unwrap();
    assert!(matches!(&error, MysqlError::Weak(finding) if finding.name == "mysql.collation"), "{error}");
    assert!(error.to_string().contains("devices.device"), "{error}");
    database.options.allow = vec!["mysql.engine".to_owned()];
    assert!(MysqlDirectory::open(&database.options).await.is_err(), "another name allows nothing");
    database.options.allow = vec!["mysql.collation".to_owned()];
    database.open().await;
    database.run("ALTER TABLE read_marks ENGINE = MyISAM").await;
    let names: Vec<_> = check(&database.options).await.unwrap().into_iter().map(|finding| finding.name).collect();
    assert_eq!(names, ["mysql.engine", "mysql.collation"], "what is refused comes first");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_server_is_told_in_time_and_without_its_password() {
    let nobody = |url: &str| MysqlOptions { url: url.to_owned(), connections_max: 2, allow: Vec::new() };
    for url in ["mysql://secret:hunter2@127.0.0.1:1/im", "mysql://secret:hunter2@127.0.0.1:99999/im", "hunter2"] {
        let options = nobody(url);
        let error = MysqlDirectory::open(&options).await.err().unwrap();
        assert!(!format!("{error} {error:?} {options:?}").contains("hunter2"), "{error}");
        assert!(migrate::status(&options).await.is_err() && check(&options).await.is_err());
    }
    let error = MysqlDirectory::open(&nobody("mysql://127.0.0.1:1")).await.err().unwrap();
    assert!(matches!(error, MysqlError::Options(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_unavailable_in_time_and_is_used_again_when_it_is_back() {
    let database = Database::new().await;
    let server = url().rsplit_once('@').unwrap().1.rsplit_once('/').unwrap().0.to_owned();
    let gate = Gate::new(server.clone()).await;
    let url = database.options.url.replace(&server, &gate.address.to_string());
    let directory = MysqlDirectory::open(&MysqlOptions { url, ..database.options.clone() }).await.unwrap();
    let group = log("group");
    directory.apply(vec![change(&group, 1, users(0..3), Vec::new())]).await.unwrap();
    let claim = directory.claim(&[Shard::of(&group)]).await.unwrap();

    gate.is_open.send_replace(false);
    let begun = Instant::now();
    let unavailable = async || {
        // More than there are connections.
        let calls = (0..8).map(|_| async { directory.devices(&user(0)).await });
        for answer in futures_util::future::join_all(calls).await {
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
    };
    unavailable().await;
    assert!(begun.elapsed() < LATE, "every call ends within 9 s: {:?}", begun.elapsed());
    gate.is_open.send_replace(true);
    let back = async { while directory.apply(vec![change(&group, 2, users(3..4), Vec::new())]).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("used again when it is back");
    assert_eq!(directory.members(&group, None, 10).await.unwrap().unwrap().members.len(), 4);
    assert_eq!(directory.cover(&claim, &Cursor(vec![1].into())).await.unwrap(), Covered::Noted, "the same server");

    gate.remove().await;
    let begun = Instant::now();
    unavailable().await;
    assert!(begun.elapsed() < LATE, "every call ends within 9 s: {:?}", begun.elapsed());
    database.remove().await;
}
