//! What one test deployment has in the four services: made, and removed without a trace.
//!
//! In: addresses of services, the name of a deployment. Out: nothing of that name is left. Always: for tests, in builds with
//! the feature `services` alone; what is absent is removed already; every call ends within [`CALL_TIMEOUT`].

use crate::ports::Partition;
use im_proto::{LogId, Seq};
use mongodb::bson::{Document, doc};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use std::time::{Duration, Instant};

const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at what ends by itself.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    #[error("mysql: {0}")]
    Mysql(#[from] sqlx::Error),
    #[error("mongodb: {0}")]
    Mongodb(#[from] mongodb::error::Error),
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("no answer within {CALL_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
}

async fn timely<T, E: Into<ScratchError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, ScratchError> {
    tokio::time::timeout(CALL_TIMEOUT, work).await?.map_err(Into::into)
}

async fn mysql(url: &str, statement: String) -> Result<(), ScratchError> {
    let work = async {
        let mut connection = MySqlConnection::connect(url).await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.close().await
    };
    timely(work).await
}

/// `name` is a plain word.
pub async fn create_database(url: &str, name: &str) -> Result<(), ScratchError> {
    mysql(url, format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await
}

pub async fn drop_database(url: &str, name: &str) -> Result<(), ScratchError> {
    mysql(url, format!("DROP DATABASE IF EXISTS {name}")).await
}

/// Drops a database of MongoDB's.
pub async fn drop_entries(url: &str, name: &str) -> Result<(), ScratchError> {
    timely(async { mongodb::Client::with_uri_str(url).await?.database(name).drop().await }).await
}

/// Makes the collection of entries as somebody might by hand: without its keys.
pub async fn create_bare_entries(url: &str, name: &str) -> Result<(), ScratchError> {
    timely(async { mongodb::Client::with_uri_str(url).await?.database(name).create_collection("entries").await }).await
}

/// Takes one entry of a log away, as an administrator might.
pub async fn delete_entry(url: &str, name: &str, log: &LogId, seq: Seq) -> Result<(), ScratchError> {
    let entry = doc! { "l": log.as_str(), "s": seq.0 as i64 };
    timely(async {
        let entries = mongodb::Client::with_uri_str(url).await?.database(name).collection::<Document>("entries");
        entries.delete_one(entry).await.map(|_| ())
    })
    .await
}

/// The furthest read cursor that MySQL has of a log; 0 if there is none.
pub async fn furthest_read(url: &str, log: &LogId) -> Result<u64, ScratchError> {
    let work = async {
        let mut connection = MySqlConnection::connect(url).await?;
        let read: Option<u64> = sqlx::query_scalar("SELECT MAX(seq) FROM read_marks WHERE log = ?")
            .bind(log.as_str())
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(read.unwrap_or_default())
    };
    timely(work).await
}

fn admin(brokers: &str) -> Result<(AdminClient<DefaultClientContext>, AdminOptions), ScratchError> {
    let options = AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT));
    Ok((ClientConfig::new().set("bootstrap.servers", brokers).create()?, options))
}

pub async fn delete_topic(brokers: &str, name: &str) -> Result<(), ScratchError> {
    let (admin, options) = admin(brokers)?;
    match admin.delete_topics(&[name], &options).await?.into_iter().find_map(Result::err) {
        None | Some((_, Code::UnknownTopicOrPartition)) => Ok(()),
        Some((_, code)) => Err(rdkafka::error::KafkaError::AdminOp(code).into()),
    }
}

/// Gives the topic `more` partitions; how many it has then. Its own number is asked for first.
pub async fn add_partitions(brokers: &str, name: &str, more: usize) -> Result<usize, ScratchError> {
    let (admin, options) = admin(brokers)?;
    let metadata = admin.inner().fetch_metadata(Some(name), CALL_TIMEOUT)?;
    let count = metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>() + more;
    if more > 0 {
        let outcome = admin.create_partitions(&[NewPartitions::new(name, count)], &options).await?;
        if let Some((_, code)) = outcome.into_iter().find_map(Result::err) {
            return Err(rdkafka::error::KafkaError::AdminOp(code).into());
        }
    }
    Ok(count)
}

/// Writes one record into the topic, as anybody can who reaches the brokers.
pub async fn write_record(
    brokers: &str,
    topic: &str,
    partition: Partition,
    key: &[u8],
    value: &[u8],
) -> Result<(), ScratchError> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let record = FutureRecord::to(topic).partition(partition.0 as i32).key(key).payload(value);
    producer.send(record, CALL_TIMEOUT).await.map_err(|(error, _)| error)?;
    Ok(())
}

/// A record that a worker set aside, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub reason: String,
    pub partition: String,
}

/// All that the topic of the dead letters holds now, in its order.
pub async fn dead_letters(brokers: &str, topic: &str) -> Result<Vec<SetAside>, ScratchError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "im-scratch").set("enable.auto.commit", "false");
    let topic = topic.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let (first, end) = consumer.fetch_watermarks(&topic, 0, CALL_TIMEOUT)?;
        let mut from_start = TopicPartitionList::new();
        from_start.add_partition_offset(&topic, 0, Offset::Beginning)?;
        consumer.assign(&from_start)?;
        let (mut letters, deadline) = (Vec::new(), Instant::now() + CALL_TIMEOUT);
        while letters.len() < (end - first) as usize && Instant::now() < deadline {
            if let Some(message) = consumer.poll(POLL) {
                letters.push(set_aside(&message?));
            }
        }
        Ok::<_, rdkafka::error::KafkaError>(letters)
    });
    timely(async { read.await.map_err(std::io::Error::other) }).await?.map_err(Into::into)
}

fn set_aside(message: &BorrowedMessage<'_>) -> SetAside {
    let header = |name: &str| {
        let found = message.headers().into_iter().flat_map(|headers| headers.iter()).find(|header| header.key == name);
        found.and_then(|header| header.value).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
    let [reason, partition] = ["im-reason", "im-partition"].map(|name| header(name).unwrap_or_default());
    SetAside { key: bytes(message.key()), value: bytes(message.payload()), reason, partition }
}

/// With its offsets. Members that were killed are members until their session ends: it waits for that.
pub async fn delete_group(brokers: &str, name: &str) -> Result<(), ScratchError> {
    let (admin, options) = admin(brokers)?;
    let work = async {
        loop {
            match admin.delete_groups(&[name], &options).await?.into_iter().find_map(Result::err) {
                None | Some((_, Code::GroupIdNotFound)) => return Ok(()),
                Some((_, Code::NonEmptyGroup)) => tokio::time::sleep(POLL).await,
                Some((_, code)) => return Err(rdkafka::error::KafkaError::AdminOp(code)),
            }
        }
    };
    timely(work).await
}

/// Every key that begins with `prefix`.
pub async fn delete_keys(url: &str, prefix: &str) -> Result<(), ScratchError> {
    let work = async {
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let mut at = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(at).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1_000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                redis::cmd("DEL").arg(keys).query_async::<()>(&mut connection).await?;
            }
            if next == 0 {
                return Ok::<_, redis::RedisError>(());
            }
            at = next;
        }
    };
    timely(work).await
}
