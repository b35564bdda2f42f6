//! Faults of every kind at random moments under load, as many as `IM_CHAOS_FAULTS` says; then the whole history is checked.
//!
//! The seed chooses faults, their order and how long they last. Each kind comes up once before any comes up again.

mod away;
mod fault;
mod own_services;
mod proxy;
mod scene;

use crate::harness::load::{Load, seed};
use fault::{KINDS, Kind};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use scene::Scene;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FAULTS: u32 = 20;
/// So many faults make one history, which is checked before the next begins: it has to fit into memory.
const FAULTS_OF_A_HISTORY: u32 = 40;
/// Between the end of a fault and the next: some faults meet clients that have not come back yet.
const PAUSE_MS: std::ops::Range<u64> = 0..1_000;
/// Everybody's commands are answered again this long after a fault: ten times the bound for a worker that died.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(120);

/// How often a kind struck, and the longest that somebody waited for an answer behind it.
#[derive(Default)]
struct Record {
    struck: u32,
    slowest: Duration,
}

/// `IM_CHAOS_ONLY` names kinds, for a closer look at them.
fn is_wanted(kind: Kind) -> bool {
    std::env::var("IM_CHAOS_ONLY").map_or(true, |only| only.split(',').any(|name| name == format!("{kind:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_fault_of_roles_services_or_links_loses_doubles_or_reorders_anything() {
    let faults: u32 = std::env::var("IM_CHAOS_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(FAULTS);
    let mut rng = StdRng::seed_from_u64(seed());
    let mut records: BTreeMap<Kind, Record> = BTreeMap::new();
    let (mut deck, mut acked, mut number) = (Vec::new(), 0, 0);
    let mut scene = Scene::start().await;
    while number < faults {
        let load = Load::start(&scene.server, rng.random()).await;
        for _ in 0..FAULTS_OF_A_HISTORY.min(faults - number) {
            number += 1;
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
            if deck.is_empty() {
                deck.extend(KINDS.into_iter().filter(|kind| is_wanted(*kind)));
                deck.shuffle(&mut rng);
            }
            let kind = deck.pop().unwrap();
            println!("fault {number} of {faults}: {kind:?}");
            let what = kind.strike(&mut scene, &mut rng).await;
            let over = Instant::now();
            load.is_answered(RECOVERY_DEADLINE).await;
            let recovered = over.elapsed();
            println!("  {what}; everybody was answered {} ms later", recovered.as_millis());
            let record = records.entry(kind).or_default();
            record.struck += 1;
            record.slowest = record.slowest.max(recovered);
        }
        acked += load.finish(&scene.server).await;
        if number < faults {
            scene.renew();
        }
    }
    println!("faults {faults}, acked messages {acked}");
    for (kind, Record { struck, slowest }) in records {
        println!("  {struck} {kind:?}, answered again at most {} ms later", slowest.as_millis());
    }
}
