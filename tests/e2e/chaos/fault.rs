//! What can happen to a deployment, and how long it lasts.
//!
//! In: a kind of fault, a scene, a random generator. Out: the fault has struck and is over; what it was, in words. Always:
//! everything that was stopped runs again, and who waits for a leader or a lease to end has only time to wait for.

use super::own_services::{OwnServices, Service};
use super::proxy::{Direction, Trouble};
use super::scene::Scene;
use crate::harness::process::Process;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use std::ops::Range;
use std::time::Duration;
use tokio::task::block_in_place;

/// A process or a link is gone for so long.
const GONE_MS: Range<u64> = 50..2_500;
/// Longer than the sessions and leases of a test deployment: what was frozen wakes as a zombie.
const FROZEN_MS: Range<u64> = 3_500..5_500;
/// Between an old snapshot and the moment it comes back.
const SNAPSHOT_AGE_MS: Range<u64> = 300..1_500;
const DELAY_MS: Range<u64> = 20..400;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillGateway,
    KillWorker,
    /// All roles at once.
    KillAll,
    /// SIGTERM and a new process: a rolling restart.
    RollGateway,
    RollWorker,
    /// SIGSTOP, and SIGCONT when others have taken over.
    FreezeGateway,
    FreezeWorker,
    FlushRedis,
    /// Redis dies and comes back with an old snapshot.
    OldRedis,
    /// All records of Kafka come again.
    LostOffsets,
    /// Stopped, killed or frozen, and back.
    Kafka,
    Redis,
    Mysql,
    Mongo,
    Postgresql,
    /// Of one link.
    Delay,
    Hold,
    HalfClose,
    Cut,
}

pub const KINDS: [Kind; 19] = [
    Kind::KillGateway,
    Kind::KillWorker,
    Kind::KillAll,
    Kind::RollGateway,
    Kind::RollWorker,
    Kind::FreezeGateway,
    Kind::FreezeWorker,
    Kind::FlushRedis,
    Kind::OldRedis,
    Kind::LostOffsets,
    Kind::Kafka,
    Kind::Redis,
    Kind::Mysql,
    Kind::Mongo,
    Kind::Postgresql,
    Kind::Delay,
    Kind::Hold,
    Kind::HalfClose,
    Kind::Cut,
];

impl Kind {
    pub async fn strike(self, scene: &mut Scene, rng: &mut StdRng) -> String {
        let number = rng.random_range(0..2);
        match self {
            Self::KillGateway => killed(scene.server.gateway(number), rng).await,
            Self::KillWorker => killed(scene.server.worker(number), rng).await,
            Self::KillAll => {
                block_in_place(|| scene.server.kill9());
                pass(GONE_MS, rng).await;
                block_in_place(|| scene.server.restart());
                "all roles".to_owned()
            }
            Self::RollGateway => rolled(scene.server.gateway(number)),
            Self::RollWorker => rolled(scene.server.worker(number)),
            Self::FreezeGateway => frozen(scene.server.gateway(number), rng).await,
            Self::FreezeWorker => frozen(scene.server.worker(number), rng).await,
            Self::FlushRedis => {
                block_in_place(|| scene.services.flush_redis());
                String::new()
            }
            Self::OldRedis => old_redis(&scene.services, rng).await,
            Self::LostOffsets => {
                for worker in 0..2 {
                    block_in_place(|| scene.server.worker(worker).kill9());
                }
                block_in_place(|| scene.server.deployment().forget_offsets());
                for worker in 0..2 {
                    block_in_place(|| scene.server.worker(worker).restart());
                }
                String::new()
            }
            Self::Kafka => away(&scene.services, Service::Kafka, rng).await,
            Self::Redis => away(&scene.services, Service::Redis, rng).await,
            Self::Mysql => away(&scene.services, Service::Mysql, rng).await,
            Self::Mongo => away(&scene.services, Service::Mongo, rng).await,
            Self::Postgresql => away(&scene.services, Service::Postgresql, rng).await,
            Self::Delay => {
                let delay = Duration::from_millis(rng.random_range(DELAY_MS));
                link(scene, Trouble::Delay(delay), rng).await
            }
            Self::Hold => link(scene, Trouble::Hold(direction(rng)), rng).await,
            Self::HalfClose => link(scene, Trouble::HalfClose(direction(rng)), rng).await,
            Self::Cut => link(scene, Trouble::Cut, rng).await,
        }
    }
}

/// The length of a fault: load goes on, nothing is waited for.
async fn pass(range: Range<u64>, rng: &mut StdRng) -> String {
    let ms = rng.random_range(range);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("{ms} ms")
}

async fn killed(process: &mut Process, rng: &mut StdRng) -> String {
    block_in_place(|| process.kill9());
    let lasted = pass(GONE_MS, rng).await;
    block_in_place(|| process.restart());
    lasted
}

fn rolled(process: &mut Process) -> String {
    block_in_place(|| {
        process.terminate();
        let status = process.wait();
        assert!(status.success(), "{:?} ended with {status}\n{}", process.role(), process.tail());
        process.restart();
    });
    String::new()
}

async fn frozen(process: &mut Process, rng: &mut StdRng) -> String {
    process.pause();
    let lasted = pass(FROZEN_MS, rng).await;
    process.resume();
    lasted
}

async fn old_redis(services: &OwnServices, rng: &mut StdRng) -> String {
    block_in_place(|| services.save_redis());
    let age = pass(SNAPSHOT_AGE_MS, rng).await;
    block_in_place(|| {
        services.kill9(Service::Redis);
        services.start_again(Service::Redis);
        services.forget_redis_snapshot();
    });
    format!("{age} old")
}

async fn away(services: &OwnServices, service: Service, rng: &mut StdRng) -> String {
    match rng.random_range(0..3) {
        0 => {
            block_in_place(|| services.pause(service));
            let lasted = pass(GONE_MS, rng).await;
            block_in_place(|| services.resume(service));
            format!("frozen for {lasted}")
        }
        how => {
            block_in_place(|| if how == 1 { services.stop(service) } else { services.kill9(service) });
            let lasted = pass(GONE_MS, rng).await;
            block_in_place(|| services.start_again(service));
            format!("{} for {lasted} and its start", if how == 1 { "stopped" } else { "killed" })
        }
    }
}

async fn link(scene: &Scene, trouble: Trouble, rng: &mut StdRng) -> String {
    let link = scene.links.choose(rng).unwrap();
    link.proxy.make(trouble);
    let lasted = pass(GONE_MS, rng).await;
    link.proxy.make(Trouble::None);
    format!("{}, {trouble:?} for {lasted}", link.name)
}

fn direction(rng: &mut StdRng) -> Direction {
    if rng.random() { Direction::Forth } else { Direction::Back }
}
