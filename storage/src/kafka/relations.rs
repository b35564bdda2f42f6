//! The relations in a compacted topic of one partition.
//!
//! In: relations. Out: to every follower the topic from its beginning, and on. Always: a consumer of its own for each follower,
//! outside of any group; a `put` returns when all in-sync replicas have it; what cannot be read is passed over and named in the
//! log, so that a newer program's kinds stop no older one.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions, topics};
use crate::finding::refuse_unsafe;
use crate::planted::planted;
use crate::ports::{Followed, Relation, RelationFeed, RelationKey, Relations, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset as Place, TopicPartitionList};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The topic has no other.
const PARTITION: i32 = 0;
/// Given up a little before the caller is answered, so that an answer stands.
const MESSAGE_TIMEOUT_MS: &str = "9000";
/// A broker answers a fetch that finds nothing after this time; what comes meanwhile is told at once.
const FETCH_WAIT_MS: &str = "500";

pub struct KafkaRelations {
    options: KafkaOptions,
    /// Made by the first `put`: who only follows needs none.
    producer: OnceCell<FutureProducer>,
}

impl KafkaRelations {
    /// Looks at the topic first: one that may lose what it took is refused, unless that was allowed.
    pub async fn open(options: &KafkaOptions) -> Result<Arc<Self>, KafkaError> {
        let findings = topics::check_relations(options).await?;
        refuse_unsafe(findings, &options.allow).map_err(KafkaError::Weak)?;
        Ok(Arc::new(Self { options: options.clone(), producer: OnceCell::new() }))
    }

    /// Not an idempotent one, which may stand still for good when it gave messages up (`replaceable`): to put the same once more
    /// changes nothing, and one request at a time keeps the order of one producer's; puts of two that overlap have none anyway.
    fn make_producer(&self) -> Result<FutureProducer, KafkaError> {
        let mut config = self.options.client()?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "false")
            .set("max.in.flight.requests.per.connection", "1")
            // The other name of the same.
            .remove("max.in.flight")
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS);
        Ok(config.create()?)
    }

    /// A consumer that is assigned the partition joins no group and commits nothing; librdkafka wants the name all the same.
    fn consumer(&self) -> Result<StreamConsumer<Context>, KafkaError> {
        let mut config = self.options.client()?;
        config
            .set("group.id", &self.options.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS)
            // A replica nearby may not have yet what a `put` has returned for, and would tell its own end.
            .remove("client.rack");
        let consumer: StreamConsumer<Context> = config.create_with_context(Context)?;
        let from = if planted("relations_of_the_past_forgotten") { Place::End } else { Place::Beginning };
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.options.relations_topic, PARTITION, from)?;
        consumer.assign(&place)?;
        Ok(consumer)
    }
}

#[async_trait]
impl Relations for KafkaRelations {
    async fn put(&self, relation: Relation) -> Result<(), StoreError> {
        let producer = self.producer.get_or_try_init(async || self.make_producer()).await.map_err(unavailable)?;
        let key = relation.key.to_text();
        let mut record = FutureRecord::<str, [u8]>::to(&self.options.relations_topic).partition(PARTITION).key(&key);
        if let Some(value) = &relation.value {
            record = record.payload(value);
        }
        producer.send(record, CALL_TIMEOUT).await.map(drop).map_err(|(error, _)| unavailable(error))
    }

    async fn follow(&self) -> Result<Box<dyn RelationFeed>, StoreError> {
        let consumer = self.consumer().map_err(unavailable)?;
        Ok(Box::new(Feed { consumer, caught_up: false, has_passed_over: false }))
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("kafka: {error}"))
}

struct Context;

impl ClientContext for Context {
    fn error(&self, error: ClientError, reason: &str) {
        super::tell(&error, reason);
    }
}

impl ConsumerContext for Context {}

struct Feed {
    consumer: StreamConsumer<Context>,
    caught_up: bool,
    /// A newer program's relations may be many: the log has one line of them.
    has_passed_over: bool,
}

#[async_trait]
impl RelationFeed for Feed {
    async fn next(&mut self) -> Followed {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let Some(key) = RelationKey::parse(message.key().unwrap_or_default()) else {
                        if !std::mem::replace(&mut self.has_passed_over, true) {
                            tracing::warn!(offset = message.offset(), "relations of a kind that is not known here");
                        }
                        continue;
                    };
                    return Followed::Kept(Relation { key, value: message.payload().map(Bytes::copy_from_slice) });
                }
                // The end is met again behind every change; only the first time it says something.
                Err(ClientError::PartitionEOF(_)) if !self.caught_up => {
                    self.caught_up = true;
                    return Followed::CaughtUp;
                }
                Err(ClientError::PartitionEOF(_)) => {}
                // The client goes on by itself, at the place where it stood.
                Err(error) => {
                    tracing::warn!(%error, "the relations cannot be read from kafka now; who is banned is not told")
                }
            }
        }
    }
}
