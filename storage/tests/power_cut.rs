//! A power cut at any moment loses nothing that was reported as stored.
//!
//! In: a recorded run. Out: a store opened after each cut. Always: every sync of the run is cut right before and right
//! behind; other moments are drawn until there are `IM_CUT_POINTS` in all.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    disk::{Cutter, Disk, Event, Op},
    run::{History, Run, open},
    setting,
};

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
