//! A power cut at any moment loses nothing that was reported as stored.
//!
//! In: a recorded run, or a few steps. Out: a store opened after each cut. Always: of a run, every sync is cut right before and
//! right behind; other moments are drawn until there are `IM_CUT_POINTS` in all.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

use im_proto::{InboxVersion, Ordinal, Seq};
use im_storage::ports::{
    Claim, Covered, Created, Cursor, Directory, EntryLog, Inbox, MembershipChange, Move, Projection, ReadCursor, Shard,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    disk::{Cutter, Disk, Event, Op},
    log,
    run::{History, Run, open},
    setting, user,
};

/// More than enough for one that keeps nothing of what was not synced.
const CUTS_OF_ONE_MOMENT: usize = 64;

/// A run of two sessions on a recording disk.
async fn recorded(seed: u64) -> (Disk, History) {
    let disk = Disk::new().recording();
    let mut run = Run::new(disk.clone(), seed);
    run.go(60).await;
    run.reopen().await;
    run.go(60).await;
    (disk, run.close().await)
}

/// Before and behind every sync, then any.
fn moments(events: &[Event], count: usize, random: &mut SmallRng) -> Vec<usize> {
    let syncs = events.iter().enumerate().filter(|(_, event)| matches!(event.op, Op::Sync));
    let mut moments: Vec<usize> = syncs.flat_map(|(at, _)| [at, at + 1]).collect();
    moments.dedup();
    println!("cut points at syncs {}, others {}", moments.len(), count.saturating_sub(moments.len()));
    while moments.len() < count {
        moments.push(random.random_range(0..=events.len()));
    }
    moments.sort_unstable();
    moments
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_reported() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    let cut_points = setting("IM_CUT_POINTS", 200) as usize;
    println!("IM_SEED={seed} IM_CUT_POINTS={cut_points}");
    let (disk, history) = recorded(seed).await;
    let events = disk.events();
    let mut random = SmallRng::seed_from_u64(seed);
    let moments = moments(&events, cut_points, &mut random);
    let mut cutter = Cutter::new(events);
    let mut most = 0;
    for moment in moments {
        let disk = cutter.cut(moment, &mut random);
        println!("cut at {moment}");
        let store = open(&disk).unwrap();
        most = most.max(history.check(&store, moment).await);
        store.close().await.unwrap();
    }
    assert!(most > 100, "the run stored only {most} entries");
}

async fn cover(projection: &dyn Projection, claim: &Claim, cursor: &Cursor) {
    assert_eq!(projection.cover(claim, cursor).await.unwrap(), Covered::Noted);
}

/// What is repeated, or made anew, comes behind a cursor that covers it already.
#[tokio::test]
async fn a_cover_that_moves_no_cursor_makes_rows_durable_too() {
    let moved = |name: &str| Move {
        user: user("ann"),
        log: log(name),
        head: Seq(7),
        head_ordinal: Ordinal(7),
        read: ReadCursor::default(),
        touch: false,
    };
    let created = |name: &str| MembershipChange {
        log: log(name),
        seq: Seq(1),
        after: Seq(0),
        created: Some(Created { name: name.to_owned(), creator: user("ann"), peer: None }),
        joined: vec![user("ann")],
        joined_ordinal: Ordinal(0),
        left: Vec::new(),
    };
    let disk = Disk::new().recording();
    let store = open(&disk).unwrap();
    let (inbox, directory) = (store.inbox(), store.directory());
    let shards: Vec<Shard> = Shard::all().collect();
    let by_inbox = inbox.claim(&shards).await.unwrap();
    let by_directory = directory.claim(&shards).await.unwrap();
    let end = store.entry_log().end().await.unwrap();
    let mut cuts = Vec::new();
    for (before, name) in ["first", "second"].into_iter().enumerate() {
        directory.apply(vec![created(name)]).await.unwrap();
        cover(&*directory, &by_directory, &end).await;
        cuts.push((disk.moment(), before, before + 1));
        inbox.bump(vec![moved(name)]).await.unwrap();
        cover(&*inbox, &by_inbox, &end).await;
        cuts.push((disk.moment(), before + 1, before + 1));
    }

    let mut cutter = Cutter::new(disk.events());
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for (moment, rows, groups) in cuts {
        for _ in 0..CUTS_OF_ONE_MOMENT {
            let store = open(&cutter.cut(moment, &mut random)).unwrap();
            let page = store.inbox().since(&user("ann"), InboxVersion(0), 10).await.unwrap();
            assert!(page.rows.len() >= rows, "the inbox has {} of {rows} rows that were covered", page.rows.len());
            for name in &["first", "second"][..groups] {
                let group = store.directory().conversation(&log(name)).await.unwrap();
                assert!(group.is_some(), "{name} was covered and is gone");
            }
            store.close().await.unwrap();
        }
    }
}
