//! Records into the topic.
//!
//! In: records of gateway cores, follow-ups of workers. Out: messages, each in the partition of its log's shard. Always: a
//! call never waits for a broker; a full buffer leaves records with their caller, in order; a message that the brokers did
//! not take in time is dropped and counted: its sender has no ack and sends again.

use super::{CALL_TIMEOUT, KafkaError, KafkaOptions, topics};
use crate::finding::refuse_unsafe;
use crate::planted::planted;
use crate::ports::{Partition, Queue, Record, Shard, StoreError};
use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Their bytes, likewise.
const IN_FLIGHT_KIB_MAX: &str = "262144";
/// A message that no broker took by then is given up: the gateway answers UNKNOWN at the same time.
const MESSAGE_TIMEOUT_MS: &str = "10000";
/// A message is sent at once; others join it while the one before is on its way.
const LINGER_MS: &str = "0";

/// What became of the messages.
#[derive(Debug, Default)]
pub struct ProducerCounts {
    pub taken: AtomicU64,
    /// Given up: no broker took them in time.
    pub lost: AtomicU64,
}

/// Who waits for a message to be taken, if anybody does.
type Waiting = Box<Option<oneshot::Sender<bool>>>;

struct Deliveries(Arc<ProducerCounts>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Waiting;

    fn delivery(&self, outcome: &DeliveryResult<'_>, waiting: Waiting) {
        let counter = if outcome.is_ok() { &self.0.taken } else { &self.0.lost };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err((error, _)) = outcome {
            tracing::warn!(%error, "kafka did not take a record; its sender has no ack");
        }
        if let Some(waiting) = *waiting {
            // Whoever waited may have given up.
            let _ = waiting.send(outcome.is_ok());
        }
    }
}

pub struct KafkaQueue {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    partitions: u32,
    counts: Arc<ProducerCounts>,
}

impl KafkaQueue {
    /// Looks at the topic first: one that may lose what it took is refused, unless that was allowed.
    pub async fn open(options: &KafkaOptions) -> Result<Arc<Self>, KafkaError> {
        let (partitions, findings) = topics::check(options).await?;
        refuse_unsafe(findings, &options.allow).map_err(KafkaError::Weak)?;
        let mut config = options.client()?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", LINGER_MS)
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
            .set("queue.buffering.max.messages", options.in_flight_max.to_string())
            .set("queue.buffering.max.kbytes", IN_FLIGHT_KIB_MAX);
        let counts = Arc::new(ProducerCounts::default());
        let producer = config.create_with_context(Deliveries(counts.clone()))?;
        Ok(Arc::new(Self { producer, topic: options.topic.clone(), partitions, counts }))
    }

    pub fn counts(&self) -> &ProducerCounts {
        &self.counts
    }

    /// Waits until the brokers have what was produced so far, or gave it up. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        Ok(self.producer.flush(timeout)?)
    }

    fn partition(&self, record: &Record) -> Partition {
        Partition::of(Shard::of(&record.log), self.partitions)
    }

    /// False: there is no room.
    fn send(&self, record: &Record, partition: Partition, waiting: Waiting) -> Result<bool, ClientError> {
        let message = BaseRecord::with_opaque_to(&self.topic, waiting)
            .partition(partition.0 as i32)
            .key(record.log.as_str())
            .payload(&record.upstream[..]);
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error),
        }
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    fn produce(&self, records: &mut Vec<Record>) {
        // One buffer for all partitions: once it is full, all that follows waits.
        let mut full = false;
        records.retain(|record| {
            if full {
                return true;
            }
            match self.send(record, self.partition(record), Box::new(None)) {
                Ok(taken) => {
                    full = !taken && !planted("queue_drops_when_full");
                    full
                }
                Err(error) => {
                    // No room will help it. Its sender has no ack, and is told so at its deadline.
                    tracing::error!(%error, log = %record.log, bytes = record.upstream.len(), "a record kafka cannot take");
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    false
                }
            }
        });
    }

    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let away = |what: &str| StoreError::Unavailable(format!("kafka {what}"));
        let hand_on = async {
            let mut taken = Vec::with_capacity(records.len());
            for record in &records {
                loop {
                    let (told, outcome) = oneshot::channel();
                    let sent = self.send(record, self.partition(record), Box::new(Some(told)));
                    if sent.map_err(|error| StoreError::Unavailable(error.to_string()))? {
                        taken.push(outcome);
                        break;
                    }
                    tokio::time::sleep(ROOM_POLL).await;
                }
            }
            for outcome in taken {
                if !matches!(outcome.await, Ok(true)) {
                    return Err(away("did not take a follow-up record"));
                }
            }
            Ok(())
        };
        tokio::time::timeout(CALL_TIMEOUT, hand_on).await.unwrap_or_else(|_| Err(away("took too long")))
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }
}

/// Between attempts to hand on a follow-up record while the buffer is full.
const ROOM_POLL: Duration = Duration::from_millis(5);
