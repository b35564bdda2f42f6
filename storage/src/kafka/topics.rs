//! Whether the brokers keep what they take.
//!
//! In: a topic's settings as the brokers tell them. Out: what is weak, by name, and how to mend it. Always: looks only; an
//! adapter opens on a weak topic only if the operator allowed each weakness by its name.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions};
use crate::finding::{Finding, Severity};
use crate::planted::planted;
use crate::ports::{ENTRY_BYTES_MAX, Shard};
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
/// The largest command that can be stored, with what is said about it. A longer record is refused to its sender; one that Kafka
/// does not take would be sent again and again.
const RECORD_BYTES_WANTED: usize = ENTRY_BYTES_MAX + 16 * 1024;
/// Until somebody has looked at them.
const DEAD_LETTER_RETENTION_MS_WANTED: i64 = 24 * 3_600_000;
/// What librdkafka takes where `kafka.settings` says nothing.
const SESSION_MS_USUAL: i64 = 45_000;

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
    let (asker, kept) = known(asker, &options.dead_letter_topic).await?;
    findings.extend(few_replicas(&options.dead_letter_topic, &kept).map(|finding| Finding {
        name: "kafka.dead_letter_replicas",
        severity: Severity::Note,
        ..finding
    }));
    findings.extend(of_dead_letters(&options.dead_letter_topic, &settings(&admin, &options.dead_letter_topic).await?));
    findings.extend(of_sessions(&options.settings, &session_range(&admin, asker).await));
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

type Told = Vec<(String, String)>;

async fn settings(admin: &Admin, topic: &str) -> Result<Told, KafkaError> {
    told(admin, ResourceSpecifier::Topic(topic)).await
}

async fn told(admin: &Admin, of: ResourceSpecifier<'_>) -> Result<Told, KafkaError> {
    let answered = admin.describe_configs(&[of], &AdminOptions::new().request_timeout(Some(CALL_TIMEOUT))).await?;
    let entries = answered.into_iter().flatten().flat_map(|resource| resource.entries);
    Ok(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

/// The settings of a broker, if it tells them: a user who may not ask can still be a member of a group.
async fn session_range(admin: &Admin, asker: BaseProducer) -> Told {
    let ask =
        move || asker.client().fetch_metadata(None, CALL_TIMEOUT).ok()?.brokers().first().map(|broker| broker.id());
    match tokio::task::spawn_blocking(ask).await {
        Ok(Some(broker)) => told(admin, ResourceSpecifier::Broker(broker)).await.unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// A member with another session is refused by the brokers, however often it asks.
fn of_sessions(options: &[(String, String)], broker: &[(String, String)]) -> Option<Finding> {
    let number =
        |of: &[(String, String)], wanted: &str| of.iter().find(|(name, _)| name == wanted)?.1.parse::<i64>().ok();
    let session_ms = number(options, "session.timeout.ms").unwrap_or(SESSION_MS_USUAL);
    let least = number(broker, "group.min.session.timeout.ms").unwrap_or(session_ms);
    let most = number(broker, "group.max.session.timeout.ms").unwrap_or(session_ms);
    (!(least..=most).contains(&session_ms)).then(|| {
        Finding::new(
            "kafka.session_range",
            Severity::Unsafe,
            format!("the brokers take sessions of {least} to {most} ms, and session.timeout.ms is {session_ms}"),
            "name one within in kafka.settings: with another no worker gets a partition",
        )
    })
}

fn of_dead_letters(topic: &str, settings: &[(String, String)]) -> Vec<Finding> {
    let is_short = |ms: i64| (0..DEAD_LETTER_RETENTION_MS_WANTED).contains(&ms);
    let found = settings.iter().filter_map(|(name, value)| match name.as_str() {
        "retention.ms" if value.parse().is_ok_and(is_short) => Some(Finding::new(
            "kafka.dead_letter_retention",
            Severity::Note,
            format!("the topic {topic} forgets dead letters after {value} ms"),
            "set retention.ms to the time in which somebody looks at them",
        )),
        "max.message.bytes" => weak(topic, name, value),
        _ => None,
    });
    found.collect()
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
        "cleanup.policy" | "retention.ms" | "message.timestamp.type" | "max.message.bytes" => None,
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
        "max.message.bytes" if value.parse::<usize>().ok()? < RECORD_BYTES_WANTED => {
            finding("kafka.record_bytes", &format!("set max.message.bytes to {RECORD_BYTES_WANTED} or more"))
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
        let names = |findings: Vec<Finding>| findings.iter().map(|of| of.name).collect::<Vec<_>>();
        assert_eq!(names(of_queue("t", &[])), ["kafka.settings_untold"]);
        assert_eq!(names(of_relations("t", &[])), ["kafka.settings_untold"]);
        let safe = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false")];
        let told = |cleanup| settings(&[safe[0], safe[1], ("cleanup.policy", cleanup)]);
        assert!(of_queue("t", &told("delete")).is_empty() && of_relations("t", &told("compact")).is_empty());
        assert_eq!(names(of_queue("t", &told("compact"))), ["kafka.cleanup"]);
        assert_eq!(names(of_relations("t", &told("delete"))), ["kafka.relations_cleanup"]);
    }

    fn settings(of: &[(&str, &str)]) -> Told {
        of.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_topic_takes_every_record_that_can_be_stored() {
        let named = |bytes: usize| weak("t", "max.message.bytes", &bytes.to_string()).map(|of| of.name);
        assert_eq!(named(RECORD_BYTES_WANTED), None);
        assert_eq!(named(RECORD_BYTES_WANTED - 1), Some("kafka.record_bytes"));
        let few = settings(&[("max.message.bytes", "1000"), ("retention.ms", "60000")]);
        let names: Vec<_> = of_dead_letters("t", &few).iter().map(|of| of.name).collect();
        assert_eq!(names, ["kafka.record_bytes", "kafka.dead_letter_retention"]);
        assert!(of_dead_letters("t", &settings(&[("retention.ms", "-1")])).is_empty(), "-1 is for ever");
    }

    #[test]
    fn a_session_lies_in_the_brokers_range() {
        let broker = settings(&[("group.min.session.timeout.ms", "6000"), ("group.max.session.timeout.ms", "60000")]);
        let is_named = |of: &[(&str, &str)]| of_sessions(&settings(of), &broker).is_some();
        assert!(!is_named(&[]) && !is_named(&[("session.timeout.ms", "6000")]));
        assert!(is_named(&[("session.timeout.ms", "5999")]) && is_named(&[("session.timeout.ms", "60001")]));
        assert!(of_sessions(&settings(&[("session.timeout.ms", "1")]), &[]).is_none(), "a broker that tells nothing");
    }
}
