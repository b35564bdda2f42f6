//! What one call costs at most, whatever it is asked for, and what it still keeps then.

use super::slow::SlowWay;
use super::{Database, entries, entry, log, now_ms};
use im_proto::{LogId, Seq};
use im_storage::mongo::{MongoEntryLog, MongoError};
use im_storage::ports::{EntryLog as _, NewEntry, Shard, Stop, Tail};
use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn first_messages_of_many_logs_are_stored_at_once_and_each_of_the_logs_is_listed() {
    let database = Database::new();
    let store = database.open().await;
    let logs: BTreeSet<LogId> = (0..250).map(|n| log(&format!("new-{n:03}"))).collect();
    // Some are listed already: who listed them did not come to store an entry.
    for listed in ["new-000", "new-010", "new-249"].map(log) {
        let document = doc! { "_id": listed.as_str(), "h": i32::from(Shard::of(&listed).index()) };
        database.collection("logs").await.insert_one(document).await.unwrap();
    }
    let appended = store.append(logs.iter().map(|log| entry(log, 1)).collect()).await;
    assert!(appended.stop.is_none() && appended.stored == 250, "{appended:?}");
    let mut found = BTreeSet::new();
    for shard in Shard::all() {
        found.extend(store.logs(shard, None, 1_000).await.unwrap());
    }
    assert_eq!(found, logs, "a log that is not listed is lost to a rebuild");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_ends_within_its_time_however_many_commands_it_takes() {
    let mut database = Database::new();
    // What a new database lacks is made in the time of another call.
    drop(database.open().await);
    let direct = database.0.url.clone();
    let server = direct.split(['/', '@', '?']).rfind(|part| part.contains(':')).unwrap().to_owned();
    let way = SlowWay::to(server.clone()).await;
    database.0.url = direct.replace(&server, &way.address.to_string());
    database.0.timeout = Duration::from_secs(4);
    let store = database.open().await;
    // Each of its seven commands has an answer long before the time of the call is over; all of them together have not.
    way.delay(Duration::from_millis(900));
    let log = log("slow");
    let appended = store.append(entries(&log, 1..=600)).await;
    assert!(matches!(appended.stop, Some(Stop::Unknown(_))) && appended.stored < 600, "{appended:?}");
    way.delay(Duration::ZERO);
    database.0.url = direct;
    let rows = database.open().await.range(&log, Seq(1), 1_000, usize::MAX).await.unwrap();
    assert!(rows.iter().zip(1..).all(|(row, seq)| row.seq == Seq(seq)), "what is stored is a prefix");
    assert!(rows.len() >= appended.stored, "what was reported is stored");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_ends_at_its_bytes_though_its_page_has_more() {
    let database = Database::new();
    let store = database.open().await;
    let log = log("large");
    let large = |seq| NewEntry { stored: vec![7; 100_000].into(), ..entry(&log, seq) };
    assert!(store.append((1..=70).map(large).collect()).await.stop.is_none());
    for (from, bytes_max, seqs) in
        [(1, 0, 1), (1, 99_999, 1), (1, 250_000, 2), (63, 350_000, 3), (64, 0, 1), (69, usize::MAX, 2)]
    {
        let rows = store.range(&log, Seq(from), 1_000, bytes_max).await.unwrap();
        let found: Vec<u64> = rows.iter().map(|row| row.seq.0).collect();
        assert_eq!(found, (from..from + seqs).collect::<Vec<_>>(), "from {from}, at most {bytes_max} bytes");
    }
    assert_eq!(store.range(&log, Seq(1), 1_000, usize::MAX).await.unwrap().len(), 70);
    database.remove().await;
}

static CLOCK_MS: AtomicI64 = AtomicI64::new(0);

fn set_by_the_test() -> i64 {
    CLOCK_MS.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_over_many_windows_names_each_entry_in_the_order_of_its_log() {
    CLOCK_MS.store(now_ms(), Ordering::Relaxed);
    let mut database = Database::new();
    database.0.given_time_ms = Some(set_by_the_test);
    let store = database.open().await;
    let log = log("windows");
    // Fifty minutes: most windows between the entries have none.
    for seq in 1..=20 {
        assert!(store.append(entries(&log, seq..=seq)).await.stop.is_none());
        CLOCK_MS.fetch_add(150_000, Ordering::Relaxed);
    }
    assert!(store.append(entries(&log, 21..=25)).await.stop.is_none());
    let end = store.end().await.unwrap();
    for page in [1, 3, 100] {
        let (mut named, mut after) = (Vec::new(), None);
        loop {
            let tail = store.tail(Shard::of(&log), after.as_ref(), &end, page).await.unwrap();
            let Tail::Named { entries, next } = tail else { panic!("the store is younger than an hour") };
            if entries.is_empty() {
                break;
            }
            named.extend(entries.into_iter().map(|(_, seq)| seq.0));
            after = Some(next);
        }
        assert_eq!(named, (1..=25).collect::<Vec<_>>(), "{page} at a time");
    }
    CLOCK_MS.fetch_add(3_600_000, Ordering::Relaxed);
    let tail = store.tail(Shard::of(&log), None, &end, 10).await.unwrap();
    assert!(matches!(tail, Tail::Forgotten), "by the time that the store was given");
    // The server's clock is set back: what is stored now lies before the cursor.
    CLOCK_MS.fetch_sub(3_600_000 + 300_000, Ordering::Relaxed);
    assert!(store.append(entries(&other_log(&log), 1..=1)).await.stop.is_none());
    let tail = store.tail(Shard::of(&log), Some(&end), &store.end().await.unwrap(), 10).await.unwrap();
    assert!(matches!(tail, Tail::Forgotten), "it would name nothing: {tail:?}");
    database.remove().await;
}

/// In the same shard.
fn other_log(of: &LogId) -> LogId {
    (0..).map(|n| log(&format!("other-{n}"))).find(|log| Shard::of(log) == Shard::of(of)).unwrap()
}

fn index(name: &str, keys: Document, is_unique: bool) -> IndexModel {
    let options = IndexOptions::builder().name(name.to_owned()).unique(is_unique).build();
    IndexModel::builder().keys(keys).options(options).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_own_keys_will_do_unless_they_let_a_seq_be_taken_twice() {
    let database = Database::new();
    let made = database.collection("entries").await;
    made.create_index(index("ops_seq", doc! { "l": 1, "s": 1 }, true)).await.unwrap();
    made.create_index(index("ops_window", doc! { "w": 1, "l": 1, "s": 1 }, false)).await.unwrap();
    let store = database.open().await;
    let log = log("operated");
    assert!(store.append(entries(&log, 1..=3)).await.stop.is_none());
    let taken = store.append(entries(&log, 3..=3)).await;
    assert!(matches!(taken.stop, Some(Stop::Taken)), "{taken:?}");
    database.remove().await;

    let database = Database::new();
    let made = database.collection("entries").await;
    made.create_index(index("ops_seq", doc! { "l": 1, "s": 1 }, false)).await.unwrap();
    // FerretDB makes no second index over the same fields; MongoDB makes a unique one beside it.
    match MongoEntryLog::open(&database.0).await {
        Err(MongoError::NoUniqueKey(key)) => assert_eq!(key, "l, s"),
        Err(error) => panic!("{error}"),
        Ok(store) => {
            assert!(store.append(entries(&log, 1..=3)).await.stop.is_none());
            let taken = store.append(entries(&log, 3..=3)).await;
            assert!(matches!(taken.stop, Some(Stop::Taken)), "{taken:?}");
        }
    }
    database.remove().await;
}
