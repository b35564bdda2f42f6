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
//! | `producer`, `replaceable` | records into the topic, by a thread of librdkafka's; and what follows when it fails for good |
//! | `consumer`, `inbound`, `fetched_end` | records out of it: the thread that polls, and what lies between it and the worker |
//! | `joining`, `standstill` | one consumer after another; when one is given up |
//! | `relations` | rows of the compacted topic, from its beginning and on |

mod consumer;
mod fetched_end;
mod inbound;
mod joining;
mod producer;
mod relations;
mod replaceable;
mod standstill;
mod topics;

pub use consumer::{KafkaConsumer, KafkaLag};
pub use producer::{KafkaQueue, ProducerCounts};
pub use relations::KafkaRelations;
pub use topics::{check, check_relations, create_topics};

use crate::finding::Finding;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
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

/// What the server sets itself, under each of librdkafka's names: what the contract rests on, the bounds of what is under way,
/// and what has a key of its own in the configuration.
const FIXED: [&str; 26] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "linger.ms",
    "queue.buffering.max.ms",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "isolation.level",
    "check.crcs", // it would stop a partition: see `producer::CHECKSUM`
    "queued.max.messages.kbytes",
    "enable.partition.eof",
    "statistics.interval.ms",
    "allow.auto.create.topics",
    "bootstrap.servers",
    "group.protocol",
    "group.id",
    "group.instance.id",
];

#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("kafka: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    #[error("kafka: topic {0} does not exist; `im-server migrate up` creates it")]
    NoTopic(String),
    #[error("kafka: topic {topic} has {partitions} partitions; at most {most} make sense")]
    TooManyPartitions { topic: String, partitions: usize, most: u16 },
    #[error("kafka.settings: {name} is the server's own to set")]
    FixedSetting { name: String },
    #[error("kafka.settings: {0}")]
    Setting(String),
    #[error("kafka: {0}; mend it, or name it in the allow list")]
    Weak(Finding),
    #[error("kafka: cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl KafkaOptions {
    /// Whether librdkafka takes them. Asks no broker.
    pub fn check(&self) -> Result<(), KafkaError> {
        self.client()?.create_native_config().map(drop).map_err(|error| KafkaError::Setting(error.to_string()))
    }

    fn client(&self) -> Result<ClientConfig, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "im-server")
            // Where brokers make topics that somebody names, to look at one would make it, with settings that lose messages.
            .set("allow.auto.create.topics", "false")
            // A broker that falls silent without a word is left for its heir; a minute, the default, is the whole outage.
            .set("socket.timeout.ms", "10000")
            // The default, 10 s, is as long as a sender waits at all.
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.settings {
            if FIXED.contains(&name.as_str()) {
                return Err(KafkaError::FixedSetting { name: name.clone() });
            }
            config.set(name, value);
        }
        Ok(config)
    }
}

/// What a client says beside its calls. Each end of a partition is told so too, and is no error.
fn tell(error: &rdkafka::error::KafkaError, reason: &str) {
    if !matches!(error, rdkafka::error::KafkaError::Global(code) if *code == RDKafkaErrorCode::PartitionEOF) {
        tracing::warn!(%error, reason, "kafka");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(settings: &[(&str, &str)]) -> KafkaOptions {
        let name = || "name".to_owned();
        KafkaOptions {
            brokers: name(),
            topic: name(),
            dead_letter_topic: name(),
            relations_topic: name(),
            group: name(),
            settings: settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            in_flight_max: 1,
            wall_clock_ms: || 0,
            allow: Vec::new(),
        }
    }

    #[test]
    fn what_the_server_sets_itself_is_refused_under_all_its_names() {
        for name in FIXED {
            assert!(matches!(options(&[(name, "1")]).check(), Err(KafkaError::FixedSetting { .. })), "{name}");
            // Somebody who mistypes one here protects nothing.
            let known = ClientConfig::new().set(name, "x").create_native_config();
            let unknown = matches!(&known, Err(error) if error.to_string().contains("No such configuration property"));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn settings_are_judged_without_a_broker() {
        options(&[("client.rack", "a"), ("session.timeout.ms", "10000")]).check().unwrap();
        for wrong in [("no.such.setting", "1"), ("session.timeout.ms", "soon")] {
            let error = options(&[wrong]).check().unwrap_err();
            assert!(matches!(&error, KafkaError::Setting(text) if text.contains(wrong.0)), "{error}");
        }
    }

    #[test]
    fn no_client_has_topics_made_by_naming_them() {
        assert_eq!(options(&[]).client().unwrap().get("allow.auto.create.topics"), Some("false"));
    }
}
