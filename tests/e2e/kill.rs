//! Kill -9 at random moments under load, as often as `IM_KILLS` says, then the whole history is checked.

use crate::harness::load::{Load, seed};
use crate::harness::server::{Server, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
/// From a restart to the next kill: some kills meet clients that have not come back yet, most meet a full load.
const LIFE_MS: std::ops::Range<u64> = 20..900;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_9_under_load_loses_doubles_or_reorders_anything() {
    survives(Settings::for_tests()).await;
}

/// The same where nearly every group is large, and the common one crosses the threshold all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_9_under_load_loses_anything_of_large_conversations() {
    survives(Settings::for_tests().with("IM_LOGIC__LARGE_MEMBERS_MIN", "2")).await;
}

async fn survives(settings: Settings) {
    let kills: u32 = std::env::var("IM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut rng = StdRng::seed_from_u64(seed());
    let mut server = Server::start(settings);
    let load = Load::start(&server, rng.random()).await;
    let mut slowest_restart = Duration::ZERO;
    for kill in 1..=kills {
        // The random moment itself.
        tokio::time::sleep(Duration::from_millis(rng.random_range(LIFE_MS))).await;
        tokio::task::block_in_place(|| {
            server.kill9();
            let begun = Instant::now();
            server.restart();
            slowest_restart = slowest_restart.max(begun.elapsed());
        });
        load.reconnect().await;
        if kill % 20 == 0 {
            println!("{kill} of {kills} kills");
        }
    }
    println!("kills {kills}, the slowest restart took {slowest_restart:?}");
    let acked = load.finish(&server).await.acked;
    assert!(acked > kills as usize, "{acked} messages were acked: the kills met no load");
}
