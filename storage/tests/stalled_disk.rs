//! A disk that stalls until its callers give up, and then goes on, loses nothing that is covered later.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

use im_proto::{InboxVersion, Ordinal, Seq};
use im_storage::ports::{Covered, EntryLog, Inbox, Move, Projection, ReadCursor, Shard};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};
use support::{
    disk::Disk,
    log,
    run::{entry, open},
    user,
};

/// All of one user, so of one lock; more than two jobs of a flush.
const ROWS: u64 = 5_000;

fn moves() -> Vec<Move> {
    let of_log = |number: u64| Move {
        user: user("ann"),
        log: log(&format!("log-{number}")),
        head: Seq(7),
        head_ordinal: Ordinal(7),
        read: ReadCursor::default(),
        touch: false,
    };
    (0..ROWS).map(of_log).collect()
}

/// Begins, waits, and is dropped, as by a caller's timeout.
async fn given_up(future: impl Future) {
    let mut future = pin!(future);
    let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    assert!(polled.is_pending(), "the disk did not stall");
}

#[tokio::test]
async fn a_cover_that_was_given_up_takes_no_rows_from_the_next_one() {
    let disk = Disk::new();
    let store = open(&disk).unwrap();
    let (entries, inbox) = (store.entry_log(), store.inbox());
    let shards: Vec<Shard> = Shard::all().collect();
    let claim = inbox.claim(&shards).await.unwrap();
    inbox.bump(moves()).await.unwrap();

    disk.stall(true);
    let appended = tokio::spawn(async move { entries.append(vec![entry(1, 1)]).await });
    // Its job goes before those of the flush.
    tokio::task::yield_now().await;
    let end = store.entry_log().end().await.unwrap();
    given_up(inbox.cover(&claim, &end)).await;
    disk.stall(false);
    assert_eq!(appended.await.unwrap().stored, 1);

    // The worker repeats what the inbox may lack, which memory has, and covers it.
    let claim = inbox.claim(&shards).await.unwrap();
    inbox.bump(moves()).await.unwrap();
    let end = store.entry_log().end().await.unwrap();
    assert_eq!(inbox.cover(&claim, &end).await.unwrap(), Covered::Noted);

    let killed = Disk::with_image(disk.image(), disk.witness().last().unwrap());
    let page = open(&killed).unwrap().inbox().since(&user("ann"), InboxVersion(0), usize::MAX).await.unwrap();
    assert_eq!(page.rows.len() as u64, ROWS, "rows that were covered are gone");
    assert!(page.rows.iter().all(|row| row.head == Seq(7)));
}
