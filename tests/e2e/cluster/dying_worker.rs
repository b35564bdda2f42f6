//! F2, F3, F4: one worker of two dies before and after every step of a batch, under load; the other goes on where it stopped.

use crate::harness::load::{Load, seed};
use crate::harness::server::{Server, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// The steps of a batch, in their order. One process shows the others, at more commands (`kill_points`).
const STEPS: [&str; 4] = ["entry_log.append", "inbox.bump", "delivery.deliver", "consumer.commit"];
/// So often a point is passed before it strikes, at most: batches of all sizes are met.
const PASSINGS_MAX: u64 = 30;
const POLL: Duration = Duration::from_millis(5);
/// Ten times the bound for a worker that died.
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_any_step_of_a_batch_loses_doubles_and_reorders_nothing() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut server = Server::start_cluster(Settings::for_tests());
    let load = Load::start(&server, rng.random()).await;
    let armed = server.folder().path().join("armed");
    block_in_place(|| server.worker(0).kill9());
    for point in STEPS.iter().flat_map(|step| [format!("{step}.before"), format!("{step}.after")]) {
        let passing = rng.random_range(1..=PASSINGS_MAX);
        let settings = Settings::for_tests()
            .with("IM_FAULT_POINT", &format!("{point}:{passing}"))
            .with("IM_FAULT_ARMED", &armed.display().to_string());
        let worker = server.worker(0);
        worker.set(settings);
        block_in_place(|| worker.restart());
        load.is_answered(DEADLINE).await;
        std::fs::write(&armed, "").unwrap();
        let died_before = Instant::now() + DEADLINE;
        let worker = server.worker(0);
        while worker.is_running() {
            assert!(Instant::now() < died_before, "{point} was not passed {passing} times within {DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
        std::fs::remove_file(&armed).unwrap();
        assert_eq!(block_in_place(|| worker.wait()).signal(), Some(libc::SIGABRT), "it did not end at {point}");
        println!("{point}: died at passing {passing}");
    }
    let worker = server.worker(0);
    worker.set(Settings::for_tests());
    block_in_place(|| worker.restart());
    load.is_answered(DEADLINE).await;
    load.finish(&server).await;
}
