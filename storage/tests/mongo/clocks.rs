//! F27: the wall clocks of two workers are ten minutes apart, and the heir of a shard finds what the other has stored.

use super::{Database, entries, log, now_ms};
use im_proto::LogId;
use im_storage::ports::{Cursor, EntryLog, Shard, Tail};
use mongodb::bson::{Document, doc};

fn ten_minutes_ahead() -> i64 {
    now_ms() + 600_000
}

/// What is named behind a cursor, up to the end of now.
async fn named(store: &dyn EntryLog, shard: Shard, after: &Cursor) -> Vec<LogId> {
    let end = store.end().await.unwrap();
    let (mut named, mut after) = (Vec::new(), after.clone());
    loop {
        let Tail::Named { entries, next } = store.tail(shard, Some(&after), &end, 100).await.unwrap() else {
            panic!("the cursor is of this moment")
        };
        if entries.is_empty() {
            return named;
        }
        named.extend(entries.into_iter().map(|(log, _)| log));
        after = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_whose_clocks_are_apart_find_each_others_entries() {
    let database = Database::new();
    let mut options = database.0.clone();
    options.wall_clock_ms = ten_minutes_ahead;
    let (right, ahead) = (database.open().await, Database(options).open().await);
    let by_ahead = log("by-ahead");
    let shard = Shard::of(&by_ahead);
    let by_right = (0..).map(|n| log(&format!("by-right-{n}"))).find(|log| Shard::of(log) == shard).unwrap();

    // Each covers the shard; then the other one stores something, dies, and is not covered.
    let covered_by_ahead = ahead.end().await.unwrap();
    assert!(right.append(entries(&by_right, 1..=1)).await.stop.is_none());
    assert!(named(&*ahead, shard, &covered_by_ahead).await.contains(&by_right));
    let covered_by_right = right.end().await.unwrap();
    assert!(ahead.append(entries(&by_ahead, 1..=1)).await.stop.is_none());
    assert!(named(&*right, shard, &covered_by_right).await.contains(&by_ahead));
    database.remove().await;
}

/// A token's time and a record's age are still judged by ours: an operator hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_apart_is_told() {
    let mut database = Database::new();
    database.0.wall_clock_ms = ten_minutes_ahead;
    let found = im_storage::mongo::check(&database.0).await.unwrap();
    assert!(found.iter().any(|finding| finding.name == "mongodb.clock"), "{found:?}");
    let (store, hello) = (database.open().await, doc! { "hello": 1 });
    let client = mongodb::Client::with_uri_str(&database.0.url).await.unwrap();
    let said: Document = client.database(&database.0.database).run_command(hello).await.unwrap();
    assert!(said.contains_key("localTime"), "else our own clock stands for it");
    drop(store);
    database.remove().await;
}
