//! A power cut at any moment loses nothing that was reported as stored.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    disk::{Cutter, Disk},
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

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_nothing_that_was_reported() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    let cut_points = setting("IM_CUT_POINTS", 200) as usize;
    println!("IM_SEED={seed} IM_CUT_POINTS={cut_points}");
    let (disk, history) = recorded(seed).await;
    let events = disk.events();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut moments: Vec<_> = (0..cut_points).map(|_| random.random_range(0..=events.len())).collect();
    moments.sort_unstable();
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
