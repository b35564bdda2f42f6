//! What one test has in the real services: a database in MySQL and MongoDB, a topic in Kafka, a prefix in Redis.
//!
//! In: addresses of services (`scripts/services env`). Out: the variables of the configuration that name them, as a role
//! finds them. Always: the names are random, so that tests run at once, and everything is removed with the value.

use super::raw::within;
use im_proto::{LogId, Seq};
use im_storage::ports::{Partition, Shard};
use im_storage::scratch::{self, SetAside};
use serde_json::json;
use std::time::{Duration, Instant};

/// A worker that was killed is missed after this time; a restart waits for it.
const SESSION_TIMEOUT_MS: u32 = 3_000;
/// A worker hears by it that another one has come.
const HEARTBEAT_INTERVAL_MS: u32 = 200;
/// A gateway that was killed is missed after this time.
const LEASE_MS: u32 = 3_000;
pub const PARTITIONS: usize = 4;
const POLL: Duration = Duration::from_millis(20);
/// Ten times what a worker takes that has to find its partition's owner first.
const SET_ASIDE_DEADLINE: Duration = Duration::from_secs(120);
const SET_ASIDE_POLL: Duration = Duration::from_millis(200);

/// Where the services are.
#[derive(Debug, Clone)]
pub struct Services {
    pub kafka: String,
    pub redis: String,
    pub mysql: String,
    pub mongodb: String,
}

impl Services {
    /// `IM_TEST_KAFKA` and so on; one that is missing fails the test.
    pub fn of_environment() -> Self {
        let of =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; see scripts/services env"));
        Self {
            kafka: of("IM_TEST_KAFKA"),
            redis: of("IM_TEST_REDIS"),
            mysql: of("IM_TEST_MYSQL"),
            mongodb: of("IM_TEST_MONGODB"),
        }
    }
}

pub struct Deployment {
    name: String,
    pub services: Services,
}

impl Deployment {
    pub fn new(services: Services) -> Self {
        let name = format!("im_test_{:016x}", rand::random::<u64>());
        let created = block_on(scratch::create_database(&services.mysql, &name));
        created.unwrap_or_else(|error| panic!("no database in {}: {error}", services.mysql));
        Self { name, services }
    }

    /// Kafka no longer knows how far the workers came, which must be gone: all records come again.
    pub fn forget_offsets(&self) {
        let forgotten = block_on(scratch::delete_group(&self.services.kafka, &self.name));
        forgotten.unwrap_or_else(|error| panic!("the group of {} was not deleted: {error}", self.name));
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> usize {
        self.add_partitions(0)
    }

    /// Where the commands for a log are.
    pub fn partition_of(&self, log: &LogId) -> Partition {
        Partition::of(Shard::of(log), self.partitions() as u32)
    }

    /// How many it has then.
    pub fn add_partitions(&self, more: usize) -> usize {
        let added = block_on(scratch::add_partitions(&self.services.kafka, &self.name, more));
        added.unwrap_or_else(|error| panic!("the topic {} got no partitions: {error}", self.name))
    }

    /// With everything in it, and how far the workers came.
    pub fn delete_topic(&self) {
        let deleted = block_on(scratch::delete_topic(&self.services.kafka, &self.name));
        deleted.unwrap_or_else(|error| panic!("the topic {} was not deleted: {error}", self.name));
    }

    /// A record that no gateway wrote.
    pub fn write_record(&self, partition: Partition, key: &[u8], value: &[u8]) {
        let written = block_on(scratch::write_record(&self.services.kafka, &self.name, partition, key, value));
        written.unwrap_or_else(|error| panic!("{} took no record: {error}", self.name));
    }

    /// Waits until the workers have set these values aside; what they have set aside by then.
    pub fn set_aside(&self, values: &[Vec<u8>]) -> Vec<SetAside> {
        let deadline = Instant::now() + SET_ASIDE_DEADLINE;
        loop {
            let letters = block_on(scratch::dead_letters(&self.services.kafka, &dead_letters(&self.name))).unwrap();
            let missing = values.iter().filter(|value| letters.iter().all(|letter| letter.value != **value)).count();
            if missing == 0 {
                return letters;
            }
            assert!(Instant::now() < deadline, "{missing} of {} records are not set aside", values.len());
            std::thread::sleep(SET_ASIDE_POLL);
        }
    }

    /// MySQL knows that somebody has read the log as far as `seq`.
    pub async fn is_read_to(&self, log: &LogId, seq: u64) {
        let database = self.mysql_url(&self.services);
        let read = async {
            while scratch::furthest_read(&database, log).await.unwrap() < seq {
                tokio::time::sleep(POLL).await;
            }
        };
        within("MySQL has the cursor", read).await;
    }

    pub async fn delete_entry(&self, log: &LogId, seq: u64) {
        scratch::delete_entry(&self.services.mongodb, &self.name, log, Seq(seq)).await.unwrap();
    }

    /// Before any role ran.
    pub fn create_bare_entries(&self) {
        let created = block_on(scratch::create_bare_entries(&self.services.mongodb, &self.name));
        created.unwrap_or_else(|error| panic!("no collection in {}: {error}", self.name));
    }

    fn mysql_url(&self, services: &Services) -> String {
        let (server, _) = services.mysql.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    /// The configuration of a role that finds the services at these addresses. What a single broker and a server without a
    /// replica set cannot have is allowed.
    pub fn environment(&self, services: &Services) -> Vec<(String, String)> {
        let name = &self.name;
        let settings = [
            format!("session.timeout.ms={SESSION_TIMEOUT_MS}"),
            format!("heartbeat.interval.ms={HEARTBEAT_INTERVAL_MS}"),
        ];
        let variables = [
            ("IM_KAFKA__BROKERS", services.kafka.clone()),
            ("IM_KAFKA__TOPIC", name.clone()),
            ("IM_KAFKA__DEAD_LETTER_TOPIC", dead_letters(name)),
            ("IM_KAFKA__RELATIONS_TOPIC", relations(name)),
            ("IM_KAFKA__GROUP", name.clone()),
            ("IM_KAFKA__PARTITIONS", PARTITIONS.to_string()),
            ("IM_KAFKA__REPLICAS", "1".to_owned()),
            ("IM_KAFKA__SETTINGS", json!(settings).to_string()),
            ("IM_KAFKA__ALLOW", json!(["kafka.replicas", "kafka.in_sync_replicas"]).to_string()),
            ("IM_REDIS__URL", services.redis.clone()),
            ("IM_REDIS__PREFIX", format!("{name}-")),
            ("IM_MYSQL__URL", self.mysql_url(services)),
            ("IM_MONGODB__URL", services.mongodb.clone()),
            ("IM_MONGODB__DATABASE", name.clone()),
            ("IM_MONGODB__ALLOW", json!(["mongodb.standalone"]).to_string()),
            ("IM_GATEWAY__LEASE_MS", LEASE_MS.to_string()),
        ];
        variables.into_iter().map(|(variable, value)| (variable.to_owned(), value)).collect()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let Self { name, services } = &*self;
        let removed = block_on(async {
            let topic = scratch::delete_topic(&services.kafka, name).await;
            let dead_letters = scratch::delete_topic(&services.kafka, &dead_letters(name)).await;
            let relations = scratch::delete_topic(&services.kafka, &relations(name)).await;
            let keys = scratch::delete_keys(&services.redis, &format!("{name}-")).await;
            let tables = scratch::drop_database(&services.mysql, name).await;
            let entries = scratch::drop_entries(&services.mongodb, name).await;
            topic.and(dead_letters).and(relations).and(keys).and(tables).and(entries)
        });
        match removed {
            Err(error) if !std::thread::panicking() => panic!("{name} was not removed: {error}"),
            Err(error) => eprintln!("{name} was not removed: {error}"),
            Ok(()) => {}
        }
    }
}

fn dead_letters(name: &str) -> String {
    format!("{name}-dead")
}

fn relations(name: &str) -> String {
    format!("{name}-relations")
}

/// On a thread of its own: the caller may or may not be inside a runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
