//! Whether the brokers keep what they take.
//!
//! In: a topic's settings as the brokers tell them. Out: what is weak, by name, and how to mend it. Always: looks only; an
//! adapter opens on a weak topic only if the operator allowed each weakness by its name.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions};
use crate::finding::{Finding, Severity};
use crate::ports::Shard;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::MetadataPartition;
use std::time::{Duration, Instant};

/// Copies of each record, and how many of them must have it before it counts.
const REPLICAS_WANTED: usize = 3;
const IN_SYNC_WANTED: u32 = 2;
/// A record that waits longer than this for a worker is too old to be stored anyway.
const RETENTION_MS_WANTED: i64 = 3_600_000;

/// A broker may hear of a topic a moment after it was made.
const TOPIC_KNOWN_WITHIN: Duration = Duration::from_secs(5);
const TOPIC_KNOWN_POLL: Duration = Duration::from_millis(100);

/// Dead letters wait for a person.
const DEAD_LETTER_RETENTION_MS: i64 = 30 * 24 * 3_600_000;
/// A process that has not reached Kafka for longer may miss that a relation was removed, until it is restarted.
const REMOVED_RELATION_RETENTION_MS: i64 = 30 * 24 * 3_600_000;

/// How many partitions the topic has, and what is weak about it and that of the dead letters.
pub async fn check(options: &KafkaOptions) -> Result<(u32, Vec<Finding>), KafkaError> {
    let admin: Admin = options.client()?.create()?;
    let (admin, kept) = known(admin, &options.topic).await?;
    let partitions = kept.len();
    if partitions > usize::from(Shard::COUNT) {
        let topic = options.topic.clone();
        return Err(KafkaError::TooManyPartitions { topic, partitions, most: Shard::COUNT });
    }
    let mut findings: Vec<Finding> = few_replicas(&options.topic, &kept).into_iter().collect();
    for (name, value) in settings(&admin, &options.topic).await? {
        findings.extend(weak(&options.topic, &name, &value));
    }
    // A dead letter that is lost is no message that is lost; so only that there is a place for them is insisted on.
    let (_, kept) = known(admin, &options.dead_letter_topic).await?;
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
    let (admin, kept) = known(admin, topic).await?;
    if kept.len() > 1 {
        return Err(KafkaError::TooManyPartitions { topic: topic.clone(), partitions: kept.len(), most: 1 });
    }
    let mut findings: Vec<Finding> = few_replicas(topic, &kept).into_iter().collect();
    for (name, value) in settings(&admin, topic).await? {
        match name.as_str() {
            "cleanup.policy" if value != "compact" => findings.push(Finding::new(
                "kafka.relations_cleanup",
                Severity::Unsafe,
                format!("the topic {topic} has cleanup.policy {value}, and forgets bans"),
                "set cleanup.policy to compact",
            )),
            "delete.retention.ms" if value.parse::<i64>().is_ok_and(|ms| ms < RETENTION_MS_WANTED) => {
                findings.push(Finding::new(
                    "kafka.relations_removed",
                    Severity::Risk,
                    format!(
                        "the topic {topic} forgets a removal after {value} ms, and who is away for longer misses it"
                    ),
                    "set delete.retention.ms to an hour or more",
                ))
            }
            // Of a topic that is only compacted nothing is deleted by its age.
            "cleanup.policy" | "retention.ms" | "message.timestamp.type" => {}
            name => findings.extend(weak(topic, name, &value)),
        }
    }
    Ok(findings)
}

type Admin = AdminClient<DefaultClientContext>;

/// How many brokers keep each partition of the topic. One that was made a moment ago is waited for.
async fn known(mut admin: Admin, topic: &str) -> Result<(Admin, Vec<usize>), KafkaError> {
    let deadline = Instant::now() + TOPIC_KNOWN_WITHIN;
    loop {
        let (asked, replicas) = replicas(admin, topic.to_owned()).await?;
        match replicas {
            Some(replicas) => return Ok((asked, replicas)),
            None if Instant::now() >= deadline => return Err(KafkaError::NoTopic(topic.to_owned())),
            None => tokio::time::sleep(TOPIC_KNOWN_POLL).await,
        }
        admin = asked;
    }
}

/// `None`: the broker that was asked knows no such topic, or not all of its leaders.
async fn replicas(admin: Admin, topic: String) -> Result<(Admin, Option<Vec<usize>>), KafkaError> {
    let ask = move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), CALL_TIMEOUT)?;
        let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        let partitions = known.map(|known| known.partitions()).filter(|partitions| !partitions.is_empty());
        let is_led = |partitions: &&[MetadataPartition]| partitions.iter().all(|partition| partition.leader() >= 0);
        let replicas =
            partitions.filter(is_led).map(|partitions| partitions.iter().map(|of| of.replicas().len()).collect());
        Ok((admin, replicas))
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

/// Makes the topic, that of the dead letters and that of the relations, where there is none. Returns when a broker knows all.
pub async fn create_topics(options: &KafkaOptions, partitions: u16, replicas: u8) -> Result<(), KafkaError> {
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
    let (admin, _) = known(admin, &options.topic).await?;
    let (admin, _) = known(admin, &options.dead_letter_topic).await?;
    known(admin, &options.relations_topic).await?;
    Ok(())
}
