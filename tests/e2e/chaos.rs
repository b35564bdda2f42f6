//! Faults of every kind at random moments under load, as many as `IM_CHAOS_FAULTS` says; then the whole history is checked.
//!
//! The seed chooses faults, their order and how long they last. Each kind comes up once before any comes up again. A long run
//! has a heavier load (`IM_CHAOS_CIRCLES`, `IM_CHAOS_UNANSWERED`) and lets faults wait until its share of the messages is
//! acked (`IM_CHAOS_ACKED`).

mod away;
mod fault;
mod own_services;
pub mod proxy;
mod scene;

use crate::harness::load::{Finished, Load, UNANSWERED_MAX, seed};
use crate::harness::server::Settings;
use fault::{KINDS, Kind};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use scene::Scene;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Each kind once.
const FAULTS: u32 = KINDS.len() as u32;
/// So many faults, or the first fault behind so many events, make one history, which is checked before the next begins: it
/// has to fit into memory.
const FAULTS_OF_A_HISTORY: u32 = 40;
const EVENTS_OF_A_HISTORY: usize = 1_000_000;
/// Between two looks at how many messages are acked.
const LOOK: Duration = Duration::from_millis(100);
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

/// What a run came to, whether it held or not: told when it ends.
struct Run {
    seed: u64,
    begun: Instant,
    under_load: Duration,
    struck: u32,
    faults: u32,
    /// Of the histories that were checked.
    checked: Finished,
    records: BTreeMap<Kind, Record>,
}

impl Run {
    fn begin(seed: u64, faults: u32) -> Self {
        let (begun, under_load, struck) = (Instant::now(), Duration::ZERO, 0);
        Self { seed, begun, under_load, struck, faults, checked: Finished::default(), records: BTreeMap::new() }
    }

    fn note(&mut self, kind: Kind, recovered: Duration) {
        self.struck += 1;
        let record = self.records.entry(kind).or_default();
        record.struck += 1;
        record.slowest = record.slowest.max(recovered);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for (kind, Record { struck, slowest }) in &self.records {
            println!("  {struck} {kind:?}, answered again at most {} ms later", slowest.as_millis());
        }
        let Self { seed, struck, faults, checked: Finished { acked, breaches, sent_away }, .. } = self;
        let (seconds, per_s) = (self.begun.elapsed().as_secs(), *acked as f64 / self.under_load.as_secs_f64().max(1.0));
        let how = if std::thread::panicking() { "FAILED; the last history is not counted" } else { "held" };
        println!(
            "faults {struck} of {faults}, {acked} acked, {breaches}, {sent_away} clients sent away; seed {seed}, {seconds} s, {per_s:.0} acked/s; {how}"
        );
    }
}

/// `IM_CHAOS_ONLY` names kinds, for a closer look at them.
fn is_wanted(kind: Kind) -> bool {
    std::env::var("IM_CHAOS_ONLY").map_or(true, |only| only.split(',').any(|name| name == format!("{kind:?}")))
}

/// A number of the environment, which `scripts/chaos` sets.
fn wanted(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_fault_of_roles_services_or_links_loses_doubles_or_reorders_anything() {
    let (faults, circles) = (wanted("IM_CHAOS_FAULTS", FAULTS), wanted("IM_CHAOS_CIRCLES", 1));
    let unanswered_max = wanted("IM_CHAOS_UNANSWERED", UNANSWERED_MAX as u32) as usize;
    let acked_of_a_fault = u64::from(wanted("IM_CHAOS_ACKED", 0).div_ceil(faults));
    let mut run = Run::begin(seed(), faults);
    let mut rng = StdRng::seed_from_u64(run.seed);
    let mut deck = Vec::new();
    let mut scene = Scene::start(Settings::for_tests()).await;
    while run.struck < faults {
        let load = Load::start_circles(&scene.server, rng.random(), circles as usize, unanswered_max).await;
        let (begun, first) = (Instant::now(), run.struck);
        while run.struck < faults && run.struck - first < FAULTS_OF_A_HISTORY && load.events() < EVENTS_OF_A_HISTORY {
            let number = run.struck + 1;
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
            while load.acked() < acked_of_a_fault * u64::from(number - first) {
                tokio::time::sleep(LOOK).await;
            }
            if deck.is_empty() {
                deck.extend(KINDS.iter().copied().filter(|kind| is_wanted(*kind)));
                deck.shuffle(&mut rng);
            }
            let kind = deck.pop().unwrap();
            println!("fault {number} of {faults}: {kind:?}, {} messages of this history are acked", load.acked());
            let what = kind.strike(&mut scene, &mut rng).await;
            let over = Instant::now();
            load.is_answered(RECOVERY_DEADLINE).await;
            let recovered = over.elapsed();
            println!("  {what}; everybody was answered {} ms later", recovered.as_millis());
            run.note(kind, recovered);
        }
        run.under_load += begun.elapsed();
        let finished = Instant::now();
        run.checked += load.finish(&scene.server).await;
        let (struck, acked) = (run.struck, run.checked.acked);
        println!("after {struck} faults and {acked} acked messages: the contract held ({:?})", finished.elapsed());
        if run.struck < faults {
            scene.renew();
        }
    }
}
