//! Whether the brokers keep what they take.
//!
//! In: a topic's settings as the brokers tell them. Out: what is weak, by name, and how to mend it. Always: looks only; a
//! queue opens on a weak topic only if the operator allowed each weakness by its name.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions};
use crate::finding::{Finding, Severity};
use crate::ports::Shard;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// Copies of each record, and how many of them must have it before it counts.
const REPLICAS_WANTED: usize = 3;
const IN_SYNC_WANTED: u32 = 2;
/// A record that waits longer than this for a worker is too old to be stored anyway.
const RETENTION_MS_WANTED: i64 = 3_600_000;

/// How many partitions the topic has, and what is weak about it.
pub async fn check(options: &KafkaOptions) -> Result<(u32, Vec<Finding>), KafkaError> {
    let admin: AdminClient<DefaultClientContext> = options.client()?.create()?;
    let mut findings = Vec::new();
    let topic = options.topic.clone();
    let (admin, partitions, replicas) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), CALL_TIMEOUT)?;
        let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        let partitions = known.map(|known| known.partitions()).filter(|partitions| !partitions.is_empty());
        let partitions = partitions.ok_or(KafkaError::NoTopic(topic.clone()))?;
        let replicas = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        let count = partitions.len();
        if count > usize::from(Shard::COUNT) {
            return Err(KafkaError::TooManyPartitions { topic, partitions: count, most: Shard::COUNT });
        }
        Ok((admin, count, replicas))
    })
    .await
    .map_err(std::io::Error::other)??;
    if replicas < REPLICAS_WANTED {
        findings.push(Finding::new(
            "kafka.replicas",
            Severity::Unsafe,
            format!("the topic keeps {replicas} of each record"),
            format!("give it a replication factor of {REPLICAS_WANTED}"),
        ));
    }
    for entry in settings(&admin, &options.topic).await? {
        findings.extend(weak(&entry.0, &entry.1));
    }
    Ok((partitions as u32, findings))
}

async fn settings(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<Vec<(String, String)>, KafkaError> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let answered = admin.describe_configs(&asked, &AdminOptions::new().request_timeout(Some(CALL_TIMEOUT))).await?;
    let entries = answered.into_iter().flatten().flat_map(|resource| resource.entries);
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

fn weak(name: &str, value: &str) -> Option<Finding> {
    let finding = |name, mend: &str| Some(Finding::new(name, Severity::Unsafe, format!("the topic has {value}"), mend));
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
        _ => None,
    }
}

/// Makes the topic, if there is none.
pub async fn create_topic(options: &KafkaOptions, partitions: u16, replicas: u8) -> Result<(), KafkaError> {
    let admin: AdminClient<DefaultClientContext> = options.client()?.create()?;
    let in_sync = replicas.saturating_sub(1).clamp(1, IN_SYNC_WANTED as u8).to_string();
    let topic = NewTopic::new(&options.topic, i32::from(partitions), TopicReplication::Fixed(i32::from(replicas)))
        .set("min.insync.replicas", &in_sync)
        .set("cleanup.policy", "delete");
    let timeout = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
    for outcome in admin.create_topics(&[topic], &timeout).await? {
        match outcome {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(rdkafka::error::KafkaError::AdminOp(code).into()),
        }
    }
    Ok(())
}
