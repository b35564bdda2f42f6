//! Records into the topic.
//!
//! In: records of gateway cores; follow-ups and dead letters of workers. Out: messages, each in the partition of its log's
//! shard, dead letters in their own topic. Always: a
//! call never waits for a broker; a full buffer leaves records with their caller, in order; a message that the brokers did
//! not take in time, or that a producer which failed had in flight, is dropped and counted: its sender has no ack and sends again.

use super::replaceable::{Native, ReplaceableProducer};
use super::{CALL_TIMEOUT, KafkaError, KafkaOptions, topics};
use crate::finding::refuse_unsafe;
use crate::planted::planted;
use crate::ports::{DeadLetter, Partition, Queue, Record, Shard, StoreError};
use async_trait::async_trait;
use im_observe::Durations;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::field::display;

/// Their bytes, likewise.
const IN_FLIGHT_KIB_MAX: &str = "262144";
/// A message that no broker took by then is given up: the gateway answers UNKNOWN at the same time.
const MESSAGE_TIMEOUT_MS: &str = "10000";
/// A message is sent at once; others join it while the one before is on its way.
const LINGER_MS: &str = "0";

/// The header of a record's trace id, in the form of W3C.
pub(super) const TRACEPARENT: &str = "traceparent";
/// The CRC-32C of a record's value, big-endian. Kafka's own is looked at by brokers, and by our client only if it is told to; and
/// then, in librdkafka 2.12, a damaged record stops its partition, since what comes behind it is not found.
pub(super) const CHECKSUM: &str = "im-crc32c";

/// What became of the messages.
#[derive(Debug, Default)]
pub struct ProducerCounts {
    /// Handed to a producer, and not heard of yet.
    pub in_flight: AtomicU64,
    pub taken: AtomicU64,
    /// Given up: no broker took them in time, or the producer failed.
    pub lost: AtomicU64,
    /// Producers that failed for good, or that nothing was taken of any more.
    pub replaced: AtomicU64,
    /// Calls of `produce` that put something in.
    pub batches: AtomicU64,
    /// From such a call to the brokers' word for its last record.
    pub acks: Durations,
}

/// What is remembered of a message on its way.
#[derive(Default)]
pub(super) struct InFlight {
    /// When its batch was put in; of a batch's last message only.
    since: Option<Instant>,
    /// Who waits for it to be taken, if anybody does.
    waiting: Option<oneshot::Sender<bool>>,
}

/// Of one producer.
pub(super) struct Deliveries {
    counts: Arc<ProducerCounts>,
    losing: Losing,
}

impl Deliveries {
    pub fn new(counts: Arc<ProducerCounts>) -> Self {
        Self {
            counts,
            losing: Losing { made: Instant::now(), since_ms: AtomicU64::new(0), until_ms: AtomicU64::new(0) },
        }
    }

    /// Every message was given up, the first and the last of them as far apart.
    pub fn has_lost_everything_for(&self, time: Duration) -> bool {
        self.losing.lasts() > time
    }
}

/// Since when a producer has lost whatever it was given.
struct Losing {
    made: Instant,
    /// From then on; 0: it loses nothing.
    since_ms: AtomicU64,
    /// The last loss: a silence behind it says nothing.
    until_ms: AtomicU64,
}

impl Losing {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn note(&self, is_taken: bool) {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        if is_taken && since_ms != 0 {
            self.since_ms.store(0, Ordering::Relaxed);
        } else if !is_taken {
            let now_ms = self.now_ms();
            self.until_ms.store(now_ms, Ordering::Relaxed);
            if since_ms == 0 {
                self.since_ms.store(now_ms, Ordering::Relaxed);
            }
        }
    }

    fn lasts(&self) -> Duration {
        match self.since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ms => Duration::from_millis(self.until_ms.load(Ordering::Relaxed).saturating_sub(since_ms)),
        }
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<InFlight>;

    fn delivery(&self, outcome: &DeliveryResult<'_>, in_flight: Box<InFlight>) {
        let counter = if outcome.is_ok() { &self.counts.taken } else { &self.counts.lost };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.losing.note(outcome.is_ok());
        let InFlight { since, waiting } = *in_flight;
        match outcome {
            Ok(_) => since.into_iter().for_each(|since| self.counts.acks.note(since.elapsed())),
            Err((error, message)) => {
                let (partition, bytes) = (message.partition(), message.payload_len());
                tracing::warn!(%error, partition, bytes, "kafka did not take a record; its sender has no ack");
            }
        }
        if let Some(waiting) = waiting {
            // Whoever waited may have given up.
            let _ = waiting.send(outcome.is_ok());
        }
    }
}

pub(super) type Message<'a> = BaseRecord<'a, [u8], [u8], Box<InFlight>>;

pub struct KafkaQueue {
    producer: ReplaceableProducer,
    topic: String,
    dead_letter_topic: String,
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
        let producer = ReplaceableProducer::new(config, counts.clone())?;
        let (topic, dead_letter_topic) = (options.topic.clone(), options.dead_letter_topic.clone());
        Ok(Arc::new(Self { producer, topic, dead_letter_topic, partitions, counts }))
    }

    pub fn counts(&self) -> Arc<ProducerCounts> {
        self.counts.clone()
    }

    /// Waits until the brokers have what was produced so far, or gave it up. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        Ok(self.producer.current().flush(timeout)?)
    }

    /// For tests that break it.
    #[cfg(feature = "conformance")]
    pub fn native_ptr(&self) -> *mut rdkafka::types::RDKafka {
        self.producer.current().client().native_ptr()
    }

    fn partition(&self, record: &Record) -> Partition {
        Partition::of(Shard::of(&record.log), self.partitions)
    }

    fn message<'a>(&'a self, record: &'a Record, in_flight: InFlight) -> Message<'a> {
        let message = Message::with_opaque_to(&self.topic, Box::new(in_flight))
            .partition(self.partition(record).0 as i32)
            .key(record.log.as_str().as_bytes())
            .payload(&record.upstream[..]);
        let sum = crc32c::crc32c(&record.upstream).to_be_bytes();
        let mut headers = OwnedHeaders::new_with_capacity(2).insert(Header { key: CHECKSUM, value: Some(&sum[..]) });
        if let Some(trace) = record.trace {
            headers = headers.insert(Header { key: TRACEPARENT, value: Some(&trace.traceparent()) });
        }
        message.headers(headers)
    }

    /// With its key and value as they came, and where from.
    fn letter<'a>(&'a self, letter: &'a DeadLetter, in_flight: InFlight) -> Message<'a> {
        let DeadLetter { partition, queued, reason } = letter;
        let text = |key, value: &str| Header { key, value: Some(value.to_owned()) };
        let mut headers = OwnedHeaders::new();
        for Header { key, value } in [
            text("im-reason", reason.name()),
            text("im-topic", &self.topic),
            text("im-partition", &partition.0.to_string()),
            text("im-offset", &queued.offset.0.to_string()),
        ] {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        if let Some(trace) = queued.record.trace {
            headers = headers.insert(Header { key: TRACEPARENT, value: Some(&trace.traceparent()) });
        }
        let key = queued.odd_key.as_deref().unwrap_or(queued.record.log.as_str().as_bytes());
        Message::with_opaque_to(&self.dead_letter_topic, Box::new(in_flight))
            .key(key)
            .payload(&queued.record.upstream[..])
            .headers(headers)
    }

    /// Returns when the brokers have them all.
    async fn send_and_wait<T>(
        &self,
        records: &[T],
        message: impl for<'a> Fn(&'a Self, &'a T, InFlight) -> Message<'a>,
    ) -> Result<(), StoreError> {
        let away = |what: &str| StoreError::Unavailable(format!("kafka {what}"));
        let hand_on = async {
            let mut taken = Vec::with_capacity(records.len());
            for record in records {
                loop {
                    let (told, outcome) = oneshot::channel();
                    let message = message(self, record, InFlight { since: None, waiting: Some(told) });
                    let sent = self.producer.send(&self.producer.current(), message);
                    if sent.map_err(|error| StoreError::Unavailable(error.to_string()))? {
                        taken.push(outcome);
                        break;
                    }
                    tokio::time::sleep(ROOM_POLL).await;
                }
            }
            for outcome in taken {
                if !matches!(outcome.await, Ok(true)) {
                    return Err(away("did not take a record"));
                }
            }
            Ok(())
        };
        tokio::time::timeout(CALL_TIMEOUT, hand_on).await.unwrap_or_else(|_| Err(away("took too long")))
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    fn produce(&self, records: &mut Vec<Record>) {
        let since = Instant::now();
        let (whole, mut at, mut full) = (records.len(), 0, false);
        let producer: Arc<Native> = self.producer.current();
        // One buffer for all partitions: once it is full, all that follows waits.
        records.retain(|record| {
            at += 1;
            if full {
                return true;
            }
            let since = (at == whole).then_some(since);
            match self.producer.send(&producer, self.message(record, InFlight { since, waiting: None })) {
                Ok(taken) => {
                    full = !taken && !planted("queue_drops_when_full");
                    full
                }
                Err(error) => {
                    // No room will help it. Its sender has no ack, and is told so at its deadline.
                    let (log, bytes, trace) = (&record.log, record.upstream.len(), record.trace.map(display));
                    tracing::error!(%error, %log, bytes, trace, "a record kafka cannot take");
                    self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    false
                }
            }
        });
        self.counts.batches.fetch_add(u64::from(records.len() < whole), Ordering::Relaxed);
    }

    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.send_and_wait(&records, Self::message).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.send_and_wait(&letters, Self::letter).await
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }
}

/// Between attempts to hand on a record that is waited for while the buffer is full.
const ROOM_POLL: Duration = Duration::from_millis(5);
