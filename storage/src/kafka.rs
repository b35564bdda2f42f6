//! The queue on Kafka: one topic, partitioned by shard, and one for records that no worker can work off. The relations: a
//! compacted topic.
//!
//! In: brokers and topic names. Out: the [`Queue`](crate::ports::Queue) for gateways, the
//! [`Consumer`](crate::ports::Consumer) for workers, the [`Relations`](crate::ports::Relations). Always: a record goes to the partition of its log's shard and nowhere
//! else, so one consumer at a time sees a log; nothing is acked to a client because Kafka has it.
//!
//! | file | what it is |
//! |---|---|
//! | `topics` | whether the brokers keep what they take |
//! | `producer` | records into the topic, by a thread of librdkafka's |
//! | `consumer`, `inbound` | records out of it: the thread that polls, and what lies between it and the worker |
//! | `relations` | rows of the compacted topic, from its beginning and on |

mod consumer;
mod inbound;
mod producer;
mod relations;
mod topics;

pub use consumer::{KafkaConsumer, KafkaLag};
pub use producer::{KafkaQueue, ProducerCounts};
pub use relations::KafkaRelations;
pub use topics::{check, check_relations, create_topics};

use crate::finding::Finding;
use rdkafka::ClientConfig;
use std::time::Duration;

/// No call waits longer for a broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach the brokers, and what is asked of them.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port`, comma separated.
    pub brokers: String,
    pub topic: String,
    /// Where records go that no worker can work off.
    pub dead_letter_topic: String,
    /// Compacted: what it holds is kept there and nowhere else.
    pub relations_topic: String,
    /// Workers of one deployment share it.
    pub group: String,
    /// Further settings of librdkafka, as `security.protocol`; those that the contract rests on cannot be set here.
    pub settings: Vec<(String, String)>,
    /// Messages on their way to the brokers; one more is left with its caller.
    pub in_flight_max: u32,
    /// Milliseconds since 1970, by the one clock of the process.
    pub wall_clock_ms: fn() -> i64,
    /// Names of [`Finding`]s that are no reason to refuse: for a test cluster of one broker.
    pub allow: Vec<String>,
}

/// What the contract rests on; no option overrides it.
const FIXED: [&str; 8] = [
    "acks",
    "enable.idempotence",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "isolation.level",
    "group.id",
];

#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error("kafka: topic {0} does not exist; `im-server migrate up` creates it")]
    NoTopic(String),
    #[error("kafka: topic {topic} has {partitions} partitions; at most {most} make sense")]
    TooManyPartitions { topic: String, partitions: usize, most: u16 },
    #[error("kafka: {name} cannot be set, the delivery contract rests on it")]
    FixedSetting { name: String },
    #[error("kafka: {0}; mend it, or name it in the allow list")]
    Weak(Finding),
    #[error("kafka: cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl KafkaOptions {
    fn client(&self) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "im-server");
        for (name, value) in &self.settings {
            if FIXED.contains(&name.as_str()) {
                return Err(KafkaError::FixedSetting { name: name.clone() });
            }
            config.set(name, value);
        }
        Ok(config)
    }
}
