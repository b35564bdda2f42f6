//! What can happen to a deployment, and how long it lasts.
//!
//! In: a kind of fault, a scene, a random generator. Out: the fault has struck and is over; what it was, in words. Always:
//! everything that was stopped runs again, and who waits for a leader or a lease to end has only time to wait for.

use super::own_services::{OwnServices, Service};
use super::proxy::{Direction, Trouble};
use super::scene::{Link, Scene};
use crate::harness::process::Process;
use im_storage::ports::Partition;
use rand::RngExt as _;
use rand::rngs::StdRng;
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
const POISON: usize = 6;
/// Tokens are good for an hour from the beginning of a history.
#[cfg(feature = "fault-points")]
const CLOCK_MINUTES: std::ops::RangeInclusive<i64> = -50..=20;
const MORE_PARTITIONS_MAX: usize = 3;
/// A topic that grew so far stays as it is.
const PARTITIONS_MAX: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillGateway,
    KillWorker,
    /// All roles at once.
    KillAll,
    /// SIGTERM and a new process: a rolling restart; in a run that has two versions, by turns of the one and the other.
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
    /// The topic is deleted under everybody and made anew, empty, and all roles are restarted one after another.
    NewTopic,
    /// The topic gets more partitions, and all roles are restarted one after another.
    MorePartitions,
    /// Stopped, killed or frozen, and back.
    Kafka,
    Redis,
    Mysql,
    Mongo,
    Postgresql,
    /// Of one way, or of all that lead to the same place.
    Delay,
    Hold,
    HalfClose,
    Cut,
    /// One role and one service, for longer than leases and sessions last; everybody else reaches it.
    CutOff,
    /// Records that no gateway wrote, in any partition.
    Poison,
    /// The wall clock of one role is set, by up to fifty minutes back or twenty ahead; it stays so.
    #[cfg(feature = "fault-points")]
    Clock,
    /// A link is in trouble, and a role or Redis is struck too.
    Together,
}

pub const KINDS: &[Kind] = &[
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
    Kind::NewTopic,
    Kind::MorePartitions,
    Kind::Kafka,
    Kind::Redis,
    Kind::Mysql,
    Kind::Mongo,
    Kind::Postgresql,
    Kind::Delay,
    Kind::Hold,
    Kind::HalfClose,
    Kind::Cut,
    Kind::CutOff,
    Kind::Poison,
    #[cfg(feature = "fault-points")]
    Kind::Clock,
    Kind::Together,
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
            Self::NewTopic => new_topic(scene, rng).await,
            Self::MorePartitions => more_partitions(scene, rng),
            Self::Kafka => away(&scene.services, Service::Kafka, rng).await,
            Self::Redis => away(&scene.services, Service::Redis, rng).await,
            Self::Mysql => away(&scene.services, Service::Mysql, rng).await,
            Self::Mongo => away(&scene.services, Service::Mongo, rng).await,
            Self::Postgresql => away(&scene.services, Service::Postgresql, rng).await,
            Self::Delay => link(scene, delay(rng), rng).await,
            Self::Hold => link(scene, Trouble::Hold(direction(rng)), rng).await,
            Self::HalfClose => link(scene, Trouble::HalfClose(direction(rng)), rng).await,
            Self::Cut => link(scene, Trouble::Cut, rng).await,
            Self::CutOff => cut_off(scene, rng).await,
            Self::Poison => poison(scene, rng),
            #[cfg(feature = "fault-points")]
            Self::Clock => clock(scene, rng),
            Self::Together => together(scene, rng).await,
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
        process.set(process.settings().of_other_version());
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

async fn new_topic(scene: &mut Scene, rng: &mut StdRng) -> String {
    let partitions = block_in_place(|| {
        let partitions = scene.server.deployment().partitions();
        scene.server.deployment().delete_topic();
        partitions
    });
    let lasted = pass(GONE_MS, rng).await;
    block_in_place(|| scene.server.migrate(partitions));
    rolled_all(scene);
    format!("gone for {lasted}")
}

/// Workers first: what a gateway writes into a partition that no worker knows of would wait.
fn more_partitions(scene: &mut Scene, rng: &mut StdRng) -> String {
    let deployment = scene.server.deployment();
    let partitions = block_in_place(|| {
        let room = PARTITIONS_MAX.saturating_sub(deployment.partitions());
        deployment.add_partitions(rng.random_range(1..=MORE_PARTITIONS_MAX).min(room))
    });
    rolled_all(scene);
    format!("{partitions} partitions")
}

/// As the manual says.
fn rolled_all(scene: &mut Scene) {
    for number in 0..2 {
        rolled(scene.server.worker(number));
    }
    for number in 0..2 {
        rolled(scene.server.gateway(number));
    }
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
    let links = scene.links.choose(rng);
    links.iter().for_each(|link| link.make(trouble));
    let lasted = pass(GONE_MS, rng).await;
    links.iter().for_each(|link| link.make(Trouble::None));
    format!("{}, {trouble:?} for {lasted}", named(&links))
}

fn named(links: &[&Link]) -> String {
    links.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn cut_off(scene: &Scene, rng: &mut StdRng) -> String {
    let link = scene.links.choose_of_a_role(rng);
    let trouble = if rng.random() { Trouble::Cut } else { Trouble::Hold(direction(rng)) };
    link.make(trouble);
    let lasted = pass(FROZEN_MS, rng).await;
    link.make(Trouble::None);
    format!("{link}, {trouble:?} for {lasted}")
}

/// Load goes on around them; the workers put every one where an operator finds it.
fn poison(scene: &Scene, rng: &mut StdRng) -> String {
    let deployment = scene.server.deployment();
    block_in_place(|| {
        let partitions = deployment.partitions();
        let values = [(); POISON].map(|()| {
            let value = rng.random::<[u8; 24]>().to_vec();
            let key = if rng.random() { b"no \x00 id \xff".as_slice() } else { b"ann" };
            deployment.write_record(Partition(rng.random_range(0..partitions) as u32), key, &value);
            value
        });
        deployment.set_aside(&values);
    });
    format!("{POISON} records")
}

#[cfg(feature = "fault-points")]
fn clock(scene: &mut Scene, rng: &mut StdRng) -> String {
    let number = rng.random_range(0..2);
    let role = if rng.random() { scene.server.worker(number) } else { scene.server.gateway(number) };
    let minutes = rng.random_range(CLOCK_MINUTES);
    role.set_clock(minutes * 60_000);
    format!("{:?} {number} {minutes:+} minutes", role.role())
}

async fn together(scene: &mut Scene, rng: &mut StdRng) -> String {
    let trouble = match rng.random_range(0..4) {
        0 => delay(rng),
        1 => Trouble::Hold(direction(rng)),
        2 => Trouble::HalfClose(direction(rng)),
        _ => Trouble::Cut,
    };
    let Scene { server, links, services, .. } = scene;
    let links = links.choose(rng);
    links.iter().for_each(|link| link.make(trouble));
    let number = rng.random_range(0..2);
    let role = if rng.random() { server.worker(number) } else { server.gateway(number) };
    let what = ["killed", "frozen", "untouched, and Redis flushed"];
    let struck = rng.random_range(0..what.len());
    match struck {
        0 => block_in_place(|| role.kill9()),
        1 => role.pause(),
        _ => block_in_place(|| services.flush_redis()),
    }
    let lasted = pass(if struck == 1 { FROZEN_MS } else { GONE_MS }, rng).await;
    // A role that starts wants every service.
    links.iter().for_each(|link| link.make(Trouble::None));
    match struck {
        0 => block_in_place(|| role.restart()),
        1 => role.resume(),
        _ => {}
    }
    format!("{}, {trouble:?}, and {:?} {number} {} for {lasted}", named(&links), role.role(), what[struck])
}

fn delay(rng: &mut StdRng) -> Trouble {
    Trouble::Delay(Duration::from_millis(rng.random_range(DELAY_MS)))
}

fn direction(rng: &mut StdRng) -> Direction {
    if rng.random() { Direction::Forth } else { Direction::Back }
}
