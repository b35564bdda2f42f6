//! Whether the brokers keep what they take.
//!
//! In: a topic's settings as the brokers tell them. Out: what is weak, by name, and how to mend it. Always: looks only; an
//! adapter opens on a weak topic only if the operator allowed each weakness by its name.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions};
use crate::finding::{Finding, Severity};
use crate::planted::planted;
use crate::ports::Shard;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, Producer as _};
use std::time::{Duration, Instant};

/// Copies of each record, and how many of them must have it before it counts.
const REPLICAS_WANTED: usize = 3;
const IN_SYNC_WANTED: u32 = 2;
/// A record that waits longer than this for a worker is too old to be stored anyway.
const RETENTION_MS_WANTED: i64 = 3_600_000;

/// A broker may hear of a topic a moment after it was made.
const TOPIC_KNOWN_WITHIN: Duration = Duration::from_secs(5);
const TOPIC_KNOWN_POLL: Duration = Duration::from_millis(100);
const LOG_POLL: Duration = Duration::from_millis(10);

/// Dead letters wait for a person.
const DEAD_LETTER_RETENTION_MS: i64 = 30 * 24 * 3_600_000;
/// A process that has not reached Kafka for longer may miss that a relation was removed, until it is restarted.
const REMOVED_RELATION_RETENTION_MS: i64 = 30 * 24 * 3_600_000;

/// How many partitions the topic has, and what is weak about it and that of the dead letters.
pub async fn check(options: &KafkaOptions) -> Result<(u32, Vec<Finding>), KafkaError> {
    let admin: Admin = options.client()?.create()?;
    let (asker, kept) = known(options.client()?.create()?, &options.topic).await?;
    let partitions = kept.len();
    if partitions > usize::from(Shard::COUNT) {
        let topic = options.topic.clone();
        return Err(KafkaError::TooManyPartitions { topic, partitions, most: Shard::COUNT });
    }
    let mut findings: Vec<Finding> = few_replicas(&options.topic, &kept).into_iter().collect();
    findings.extend(of_queue(&options.topic, &settings(&admin, &options.topic).await?));
    // A dead letter that is lost is no message that is lost; so only that there is a place for them is insisted on.
    let (_, kept) = known(asker, &options.dead_letter_topic).await?;
    findings.extend(few_replicas(&options.dead_letter_topic, &kept).map(|finding| Finding {
        name: "kafka.dead_letter_replicas",
        severity: Severity::Note,
        ..finding
    }));
    Ok((partitions as u32, findings))
}

/// What is weak about the relations' topic. It is no queue: what it loses was kept nowhere else.
pub async fn check_relations(options: &KafkaOptions) -> Result<Vec<Finding>, KafkaError> {
    let admin: Admin = options.client()?.create()?;
    let topic = &options.relations_topic;
    let (_, kept) = known(options.client()?.create()?, topic).await?;
    if kept.len() > 1 {
        return Err(KafkaError::TooManyPartitions { topic: topic.clone(), partitions: kept.len(), most: 1 });
    }
    let mut findings: Vec<Finding> = few_replicas(topic, &kept).into_iter().collect();
    findings.extend(of_relations(topic, &settings(&admin, topic).await?));
    Ok(findings)
}

type Admin = AdminClient<DefaultClientContext>;

/// How many brokers keep each partition of the topic. One that was made a moment ago is waited for.
async fn known(mut asker: BaseProducer, topic: &str) -> Result<(BaseProducer, Vec<usize>), KafkaError> {
    let deadline = Instant::now() + TOPIC_KNOWN_WITHIN;
    loop {
        let (asked, replicas) = replicas(asker, topic.to_owned()).await?;
        match replicas {
            Some(replicas) => return Ok((asked, replicas)),
            None if Instant::now() >= deadline => return Err(KafkaError::NoTopic(topic.to_owned())),
            None => tokio::time::sleep(TOPIC_KNOWN_POLL).await,
        }
        asker = asked;
    }
}

/// `None`: the broker that was asked knows no such topic, or not all of its leaders.
async fn replicas(asker: BaseProducer, topic: String) -> Result<(BaseProducer, Option<Vec<usize>>), KafkaError> {
    let ask = move || {
        let metadata = asker.client().fetch_metadata(Some(&topic), CALL_TIMEOUT);
        // Why there is none, as a refused login, is in what librdkafka logs, which a client that is not polled keeps to itself.
        asker.poll(LOG_POLL);
        let metadata = metadata?;
        let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        let partitions = known.map(|known| known.partitions()).filter(|partitions| !partitions.is_empty());
        let is_led = |partitions: &&[MetadataPartition]| partitions.iter().all(|partition| partition.leader() >= 0);
        let replicas =
            partitions.filter(is_led).map(|partitions| partitions.iter().map(|of| of.replicas().len()).collect());
        Ok((asker, replicas))
    };
    tokio::task::spawn_blocking(ask).await.map_err(std::io::Error::other)?
}

fn few_replicas(topic: &str, replicas: &[usize]) -> Option<Finding> {
    let least = replicas.iter().min().copied().unwrap_or(0);
    (least < REPLICAS_WANTED).then(|| {
        Finding::new(
            "kafka.replicas",
            Severity::Unsafe,
            format!("the topic {topic} keeps {least} of each record"),
            format!("give it a replication factor of {REPLICAS_WANTED}"),
        )
    })
}

async fn settings(admin: &Admin, topic: &str) -> Result<Vec<(String, String)>, KafkaError> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answered = admin.describe_configs(&asked, &AdminOptions::new().request_timeout(Some(CALL_TIMEOUT))).await?;
    let entries = answered.into_iter().flatten().flat_map(|resource| resource.entries);
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

fn of_queue(topic: &str, settings: &[(String, String)]) -> Vec<Finding> {
    let weak = settings.iter().filter_map(|(name, value)| weak(topic, name, value));
    untold(topic, settings).into_iter().chain(weak).collect()
}

fn of_relations(topic: &str, settings: &[(String, String)]) -> Vec<Finding> {
    let weak = settings.iter().filter_map(|(name, value)| match name.as_str() {
        "cleanup.policy" if value != "compact" => Some(Finding::new(
            "kafka.relations_cleanup",
            Severity::Unsafe,
            format!("the topic {topic} has cleanup.policy {value}, and forgets bans"),
            "set cleanup.policy to compact",
        )),
        "delete.retention.ms" if value.parse::<i64>().is_ok_and(|ms| ms < RETENTION_MS_WANTED) => Some(Finding::new(
            "kafka.relations_removed",
            Severity::Risk,
            format!("the topic {topic} forgets a removal after {value} ms, and who is away for longer misses it"),
            "set delete.retention.ms to an hour or more",
        )),
        // Of a topic that is only compacted nothing is deleted by its age.
        "cleanup.policy" | "retention.ms" | "message.timestamp.type" => None,
        name => weak(topic, name, value),
    });
    untold(topic, settings).into_iter().chain(weak).collect()
}

/// Kafka tells no settings, and no error, to a user who may not ask for them: nothing is safe because it is unknown.
fn untold(topic: &str, settings: &[(String, String)]) -> Option<Finding> {
    let is_told = |wanted: &&str| settings.iter().any(|(name, _)| name == wanted);
    let missing = ["min.insync.replicas", "unclean.leader.election.enable", "cleanup.policy"];
    let missing = missing.into_iter().find(|name| !is_told(name) && !planted("untold_settings_pass"))?;
    Some(Finding::new(
        "kafka.settings_untold",
        Severity::Unsafe,
        format!("the brokers do not tell {missing} of the topic {topic}"),
        "allow this user DescribeConfigs on it",
    ))
}

fn weak(topic: &str, name: &str, value: &str) -> Option<Finding> {
    let found =
        |name, severity, mend: &str| Some(Finding::new(name, severity, format!("the topic {topic} has {value}"), mend));
    let finding = |name, mend: &str| found(name, Severity::Unsafe, mend);
    match name {
        "min.insync.replicas" if value.parse::<u32>().ok()? < IN_SYNC_WANTED => {
            finding("kafka.in_sync_replicas", "set min.insync.replicas to 2")
        }
        "unclean.leader.election.enable" if value == "true" => {
            finding("kafka.unclean_election", "set unclean.leader.election.enable to false")
        }
        "cleanup.policy" if value != "delete" => finding("kafka.cleanup", "set cleanup.policy to delete"),
        "retention.ms" if (0..RETENTION_MS_WANTED).contains(&value.parse::<i64>().ok()?) => {
            finding("kafka.retention", "set retention.ms to an hour or more")
        }
        "message.timestamp.type" if value != "LogAppendTime" => found(
            "kafka.timestamps",
            Severity::Risk,
            "set message.timestamp.type to LogAppendTime, so that gateways' clocks do not matter",
        ),
        _ => None,
    }
}

/// Makes the topic, that of the dead letters and that of the relations, where there is none. Returns when a broker knows all:
/// how many partitions the topic has, which are not `partitions` if it was there.
pub async fn create_topics(options: &KafkaOptions, partitions: u16, replicas: u8) -> Result<usize, KafkaError> {
    if partitions > Shard::COUNT {
        let (topic, partitions) = (options.topic.clone(), partitions.into());
        return Err(KafkaError::TooManyPartitions { topic, partitions, most: Shard::COUNT });
    }
    let admin: Admin = options.client()?.create()?;
    let in_sync = replicas.saturating_sub(1).clamp(1, IN_SYNC_WANTED as u8).to_string();
    let (retention, removed) = (DEAD_LETTER_RETENTION_MS.to_string(), REMOVED_RELATION_RETENTION_MS.to_string());
    let topic = |name, partitions, cleanup| {
        NewTopic::new(name, partitions, TopicReplication::Fixed(i32::from(replicas)))
            .set("min.insync.replicas", &in_sync)
            .set("cleanup.policy", cleanup)
    };
    let topics = [
        topic(&options.topic, i32::from(partitions), "delete").set("message.timestamp.type", "LogAppendTime"),
        topic(&options.dead_letter_topic, 1, "delete").set("retention.ms", &retention),
        topic(&options.relations_topic, 1, "compact").set("delete.retention.ms", &removed),
    ];
    let timeout = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
    for outcome in admin.create_topics(&topics, &timeout).await? {
        match outcome {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(rdkafka::error::KafkaError::AdminOp(code).into()),
        }
    }
    let (asker, kept) = known(options.client()?.create()?, &options.topic).await?;
    let (asker, _) = known(asker, &options.dead_letter_topic).await?;
    known(asker, &options.relations_topic).await?;
    Ok(kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_told_are_no_safe_ones() {
        let settings = |of: &[(&str, &str)]| -> Vec<(String, String)> {
            of.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let names = |findings: Vec<Finding>| findings.iter().map(|of| of.name).collect::<Vec<_>>();
        assert_eq!(names(of_queue("t", &[])), ["kafka.settings_untold"]);
        assert_eq!(names(of_relations("t", &[])), ["kafka.settings_untold"]);
        let safe = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false")];
        let told = |cleanup| settings(&[safe[0], safe[1], ("cleanup.policy", cleanup)]);
        assert!(of_queue("t", &told("delete")).is_empty() && of_relations("t", &told("compact")).is_empty());
        assert_eq!(names(of_queue("t", &told("compact"))), ["kafka.cleanup"]);
        assert_eq!(names(of_relations("t", &told("delete"))), ["kafka.relations_cleanup"]);
    }
}
