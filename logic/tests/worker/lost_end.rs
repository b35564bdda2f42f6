//! What lies at the end of a log is gone from the store (F43).

use crate::harness::*;
use im_proto::client::entry::Content;
use im_proto::{LogId, Ordinal, Seq};
use im_storage::ports::{ReadCursor, ReadMark};

#[tokio::test]
async fn seqs_that_somebody_has_read_are_not_given_again_when_their_entries_are_gone() {
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    world.start().await;
    // A client may have used whatever id it likes.
    for id in ["lost-3", "lost-4"] {
        acked(&world.ask(&a, to_user("b", id)).await);
    }
    let mut world = world.crash().await;
    // Of three more messages only what their sender had read is left.
    let log = LogId::direct(&a.user, &b.user);
    let read = ReadCursor { seq: Seq(5), ordinal: Ordinal(4) };
    world.ports.directory.record_reads(vec![ReadMark { log: log.clone(), user: a.user.clone(), read }]).await.unwrap();
    world.start().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    assert_eq!(acked(&world.ask(&b, to_user("a", "3")).await), 6);
    let entries = world.entries(&log).await;
    let is_tombstone: Vec<bool> =
        entries.iter().map(|entry| matches!(entry.content, Some(Content::Tombstone(_)))).collect();
    assert_eq!(is_tombstone, [false, false, true, true, true, false]);
    assert_eq!(entries.iter().map(|entry| entry.ordinal).collect::<Vec<_>>(), [1, 2, 3, 4, 4, 5]);
    assert_eq!(world.metrics.lost_entries.load(std::sync::atomic::Ordering::Relaxed), 3);
    // The members are still the members.
    assert_eq!(entries_of(&world.pushes(&a, 1).await), [(log.as_str().to_owned(), 6)]);
}

/// Another owner stores an entry, and covers it, between our reading of the head and of the furthest cursor.
#[tokio::test]
async fn an_entry_that_was_stored_while_its_log_was_loaded_is_not_taken_for_a_lost_one() {
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    world.start().await;
    let log = LogId::direct(&a.user, &b.user);
    for id in ["1", "2"] {
        acked(&world.ask(&a, to_user("b", id)).await);
    }
    let first = world.log.inner.range(&log, Seq(1), 1, 0).await.unwrap().remove(0);
    world.worker.take().unwrap().stop().await.unwrap();
    let mut world = world.crash().await;
    world.log.stale_heads.lock().unwrap().push_back(first);
    world.start().await;
    let b = world.phone("b", "1").await;
    assert_eq!(acked(&world.ask(&b, to_user("a", "3")).await), 3);
    assert_eq!(world.metrics.lost_entries.load(std::sync::atomic::Ordering::Relaxed), 0, "nothing is lost");
    assert_eq!(world.texts(&log).await, ["1", "2", "3"]);
}
