//! What one test has in the real services: a database in MySQL and MongoDB, a topic in Kafka, a prefix in Redis.
//!
//! In: addresses of services (`scripts/services env`). Out: the variables of the configuration that name them. Always: the
//! names are random, so that tests run at once, and everything is removed with the value.

use im_storage::scratch;
use serde_json::json;

/// A worker that was killed is missed after this time; a restart waits for it.
const SESSION_TIMEOUT_MS: u32 = 3_000;
const HEARTBEAT_INTERVAL_MS: u32 = 500;
/// A gateway that was killed is missed after this time.
const LEASE_MS: u32 = 3_000;
pub const PARTITIONS: usize = 4;

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
    services: Services,
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

    /// The configuration of every role. What a single broker and a server without a replica set cannot have is allowed.
    pub fn environment(&self) -> Vec<(String, String)> {
        let Self { name, services } = self;
        let (mysql, _) = services.mysql.rsplit_once('/').unwrap();
        let settings = [
            format!("session.timeout.ms={SESSION_TIMEOUT_MS}"),
            format!("heartbeat.interval.ms={HEARTBEAT_INTERVAL_MS}"),
        ];
        let variables = [
            ("IM_KAFKA__BROKERS", services.kafka.clone()),
            ("IM_KAFKA__TOPIC", name.clone()),
            ("IM_KAFKA__DEAD_LETTER_TOPIC", dead_letters(name)),
            ("IM_KAFKA__GROUP", name.clone()),
            ("IM_KAFKA__PARTITIONS", PARTITIONS.to_string()),
            ("IM_KAFKA__REPLICAS", "1".to_owned()),
            ("IM_KAFKA__SETTINGS", json!(settings).to_string()),
            ("IM_KAFKA__ALLOW", json!(["kafka.replicas", "kafka.in_sync_replicas"]).to_string()),
            ("IM_REDIS__URL", services.redis.clone()),
            ("IM_REDIS__PREFIX", format!("{name}-")),
            ("IM_MYSQL__URL", format!("{mysql}/{name}")),
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
            let keys = scratch::delete_keys(&services.redis, &format!("{name}-")).await;
            let tables = scratch::drop_database(&services.mysql, name).await;
            let entries = scratch::drop_entries(&services.mongodb, name).await;
            topic.and(dead_letters).and(keys).and(tables).and(entries)
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

/// On a thread of its own: the caller may or may not be inside a runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
