//! Records out of the topic, for one worker.
//!
//! In: what librdkafka fetches. Out: batches, and which partitions came and went. Always: one thread polls, whatever the
//! worker does, so a slow store never looks like a dead worker; offsets move only by [`Consumer::commit`]; of a partition
//! that is taken away, what was handed on is committed first while that may still be, and its pause ends; a record that was damaged
//! on its way is handed on as one that nobody can read; a consumer that failed for good is closed, so
//! that its worker ends; one that stands still is replaced; nobody waits for librdkafka's end for long.

use super::fetched_end::fetched_end;
use super::inbound::{Arrival, Inbound};
use super::joining::Joining;
use super::producer::{CHECKSUM, TRACEPARENT};
use super::standstill::Standstill;
use super::{KafkaError, KafkaOptions};
use crate::planted::planted;
use crate::ports::{Consumed, Consumer, Offset, Partition, Record, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{LogId, TraceId};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as ClientError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset as Place, TopicPartitionList};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The longest that the polling thread sleeps; then it looks for commits and for partitions to resume.
const POLL: Duration = Duration::from_millis(50);
/// Commits are gathered for so long: a lost one costs repeated records, which is harmless.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Messages taken up before the worker is woken.
const MESSAGES_PER_TURN_MAX: usize = 1_024;
/// A worker that does not poll for so long loses its partitions. The thread polls always, so this means a stopped process.
/// The least that brokers allow by default: after a death, senders wait as long.
const SESSION_TIMEOUT_MS: &str = "6000";
/// How soon a worker hears that partitions are shared out anew: the others' senders wait for it. The client's own default is half
/// of that session; three and more are to fit.
const HEARTBEAT_INTERVAL_MS: &str = "1000";

/// Leaving takes some round trips, or as long as a session when brokers are silent. What lasts longer ends with the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);
const CLOSE_POLL: Duration = Duration::from_millis(5);

/// For all partitions of an assignment together. What Kafka does not tell is found out by reading to the end.
const ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the lag is told anew.
const LAG_INTERVAL_MS: &str = "2000";

/// Stands for a key that is no id: no log has it, so the worker turns the record away.
const UNREADABLE: &str = "unreadable";

const NOT_COMMITTED: &str = "offsets not committed; until the next commit the records would come again";

/// By the clocks, above which it is asked whether a record came from the end of its partition.
const DOUBTFUL_AGE: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    pub topic: String,
    /// As librdkafka's own calls want it.
    topic_text: CString,
    inbound: Mutex<Inbound>,
    /// Something came, or the consumer is closed.
    pub changed: Notify,
    wall_clock_ms: fn() -> i64,
    lag: Mutex<BTreeMap<Partition, u64>>,
    /// How many the topic had when it was last looked at; 0 before that.
    partitions: AtomicUsize,
    /// The consumer is to be replaced.
    stands_still: AtomicBool,
    #[cfg(feature = "conformance")]
    pub current: Mutex<std::sync::Weak<BaseConsumer<Context>>>,
}

impl Shared {
    pub fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process and others learned their number when they started.
    fn warn_of_new_partitions(&self, now: usize) {
        let before = self.partitions.swap(now, Ordering::Relaxed);
        if before != 0 && before < now {
            tracing::warn!(before, now, "the topic has more partitions; restart the logic roles, then the gateways");
        }
    }

    fn list(&self, partitions: impl IntoIterator<Item = Partition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition.0 as i32);
        }
        list
    }

    /// Behind what the partition holds now, if Kafka tells in time.
    fn end(&self, consumer: &BaseConsumer<Context>, partition: Partition, deadline: Instant) -> Option<Offset> {
        let timeout = deadline.checked_duration_since(Instant::now()).filter(|timeout| *timeout >= POLL)?;
        match consumer.fetch_watermarks(&self.topic, partition.0 as i32, timeout) {
            Ok((_, end)) => u64::try_from(end).ok().map(Offset),
            Err(error) => {
                tracing::debug!(%error, partition = partition.0, "how far a partition goes is not known yet");
                None
            }
        }
    }

    /// Tells Kafka where to go on: behind what was handed on.
    fn commit(
        &self,
        consumer: &BaseConsumer<Context>,
        done: Vec<(Partition, Offset)>,
        mode: CommitMode,
    ) -> Result<(), ClientError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in done {
            list.add_partition_offset(&self.topic, partition.0 as i32, Place::Offset(offset.0 as i64 + 1))?;
        }
        if list.count() == 0 { Ok(()) } else { consumer.commit(&list, mode) }
    }
}

/// Hears of assignments, on the polling thread.
pub(super) struct Context {
    pub shared: Arc<Shared>,
    pub standstill: Mutex<Standstill>,
    /// It was replaced: what it still hears is of no partition that is ours by it.
    pub is_replaced: AtomicBool,
}

impl Context {
    /// `None` once it was replaced.
    fn shared(&self) -> Option<&Shared> {
        (!self.is_replaced.load(Ordering::Acquire)).then_some(&*self.shared)
    }
}

impl ClientContext for Context {
    fn error(&self, error: ClientError, reason: &str) {
        super::tell(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(shared) = self.shared() else { return };
        if let Some(group) = &statistics.cgrp {
            let mut standstill = self.standstill.lock().unwrap_or_else(PoisonError::into_inner);
            if standstill.is_for_good(&group.join_state, Instant::now()) {
                tracing::warn!(join_state = group.join_state, "the kafka consumer stands still; it is replaced");
                shared.stands_still.store(true, Ordering::Release);
            }
        }
        let Some(topic) = statistics.topics.get(&shared.topic) else { return };
        shared.warn_of_new_partitions(topic.partitions.keys().filter(|number| **number >= 0).count());
        let inbound = shared.inbound();
        let lag = topic.partitions.iter().filter_map(|(number, known)| {
            let partition = Partition(u32::try_from(*number).ok()?);
            // What nobody has committed yet is counted from where the fetching stands.
            let behind = if known.consumer_lag >= 0 { known.consumer_lag } else { known.hi_offset - known.next_offset };
            inbound.owns(partition).then_some((partition, behind.max(0) as u64))
        });
        *shared.lag.lock().unwrap_or_else(PoisonError::into_inner) = lag.collect();
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Some(shared) = self.shared() else { return };
        if let Rebalance::Revoke(list) = rebalance {
            // The client keeps a pause over losing and gaining, and who gains a partition knows of none.
            if !planted("pause_outlives_loss")
                && let Err(error) = consumer.resume(list)
            {
                tracing::warn!(%error, "partitions that were lost may stay paused");
            }
            // In one call: each is a round trip, and the group waits. Whose session is over may not commit.
            let done = partitions(list).flat_map(|partition| shared.inbound().take_commits(Some(partition))).collect();
            if !consumer.assignment_lost()
                && let Err(error) = shared.commit(consumer, done, CommitMode::Sync)
            {
                tracing::warn!(%error, partitions = list.count(), "the next owner repeats what was done");
            }
            partitions(list).for_each(|partition| shared.inbound().lost(partition));
            shared.changed.notify_one();
        }
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = outcome {
            tracing::warn!(%error, partitions = offsets.count(), "{NOT_COMMITTED}");
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Some(shared) = self.shared() else { return };
        match rebalance {
            Rebalance::Assign(list) => {
                let deadline = Instant::now() + ENDS_TIMEOUT;
                for partition in partitions(list) {
                    let end = shared.end(consumer, partition, deadline);
                    shared.inbound().gained(partition, end);
                }
                shared.changed.notify_one();
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "kafka could not share out the partitions"),
        }
    }
}

fn partitions(list: &TopicPartitionList) -> impl Iterator<Item = Partition> {
    let numbers: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    numbers.into_iter().filter_map(|number| u32::try_from(number).ok().map(Partition))
}

/// How far a consumer is behind.
#[derive(Clone)]
pub struct KafkaLag(Arc<Shared>);

impl KafkaLag {
    /// Of each partition that it owns: the records between what it has committed and the end; some seconds old.
    pub fn by_partition(&self) -> Vec<(Partition, u64)> {
        let lag = self.0.lag.lock().unwrap_or_else(PoisonError::into_inner);
        lag.iter().map(|(partition, records)| (*partition, *records)).collect()
    }
}

pub struct KafkaConsumer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaConsumer {
    /// Joins the group. Partitions come as [`Consumed::Gained`].
    pub fn open(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let mut config = options.client()?;
        config
            .set("group.id", &options.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("queued.max.messages.kbytes", "16384")
            // A partition that finds the queue full waits for so long: idle ones too, and a second by default.
            .set("fetch.queue.backoff.ms", "50")
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", LAG_INTERVAL_MS);
        for (name, value) in
            [("session.timeout.ms", SESSION_TIMEOUT_MS), ("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS)]
        {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        let shared = Arc::new(Shared {
            topic: options.topic.clone(),
            topic_text: CString::new(options.topic.as_str()).map_err(|_| KafkaError::NoTopic(options.topic.clone()))?,
            inbound: Mutex::default(),
            changed: Notify::new(),
            wall_clock_ms: options.wall_clock_ms,
            lag: Mutex::default(),
            partitions: AtomicUsize::new(0),
            stands_still: AtomicBool::new(false),
            #[cfg(feature = "conformance")]
            current: Mutex::default(),
        });
        let session_timeout_ms = config.get("session.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or_default();
        let session_timeout = Duration::from_millis(session_timeout_ms);
        let joining = Joining { config, session_timeout, shared: shared.clone() };
        let consumer = joining.join()?;
        let thread = std::thread::Builder::new().name("im-kafka".to_owned());
        let thread = thread.spawn(move || joining.run(consumer))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Partitions of which so much waits for the worker that nothing more is fetched.
    pub fn full(&self) -> Vec<Partition> {
        self.shared.inbound().full()
    }

    /// For tests that break it, as long as it is there.
    ///
    /// # Panics
    ///
    /// When it is gone.
    #[cfg(feature = "conformance")]
    #[allow(clippy::expect_used, reason = "tests alone call it")]
    pub fn native_ptr(&self) -> *mut rdkafka::types::RDKafka {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        current.expect("the consumer is gone").client().native_ptr()
    }

    /// As if it stood still. For tests, which cannot make librdkafka do it.
    #[cfg(feature = "conformance")]
    pub fn replace(&self) {
        self.shared.stands_still.store(true, Ordering::Release);
    }

    /// For the metrics of whoever gives the consumer away.
    pub fn lag(&self) -> KafkaLag {
        KafkaLag(self.shared.clone())
    }
}

impl Drop for KafkaConsumer {
    /// Leaves the group, so that the partitions go to others at once. What was handed on is committed.
    fn drop(&mut self) {
        self.shared.inbound().is_closed = true;
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the kafka consumer does not come to its end; its partitions go to others with its session"
                );
                return;
            }
            std::thread::sleep(CLOSE_POLL);
        }
        // A panic there has told its own story.
        let _ = thread.join();
    }
}

/// Returns when the consumer is closed, or is to be replaced.
pub(super) fn poll(consumer: &Arc<BaseConsumer<Context>>, shared: &Shared) {
    let mut commit_at = Instant::now() + COMMIT_INTERVAL;
    while !shared.inbound().is_closed {
        let mut wait = POLL;
        let mut came = false;
        for _ in 0..MESSAGES_PER_TURN_MAX {
            match consumer.poll(std::mem::take(&mut wait)) {
                Some(Ok(message)) => {
                    take_up(consumer, shared, &message);
                    came = true;
                }
                Some(Err(ClientError::PartitionEOF(number))) => {
                    if let Ok(number) = u32::try_from(number) {
                        shared.inbound().at_end(Partition(number));
                    }
                }
                Some(Err(error)) if is_for_good(&error) => {
                    let reason = consumer.client().fatal_error().map(|(_, reason)| reason).unwrap_or_default();
                    tracing::error!(%error, reason, "the kafka consumer failed for good; its worker ends");
                    shared.inbound().is_closed = true;
                    came = true;
                    break;
                }
                Some(Err(error)) => tracing::warn!(%error, "kafka"),
                None => break,
            }
        }
        if came {
            shared.changed.notify_one();
        }
        let resumed = shared.inbound().take_resumed();
        if !resumed.is_empty()
            && let Err(error) = consumer.resume(&shared.list(resumed))
        {
            tracing::debug!(%error, "a partition went away before it was resumed");
        }
        if Instant::now() >= commit_at {
            commit(consumer, shared, CommitMode::Async);
            commit_at = Instant::now() + COMMIT_INTERVAL;
        }
        if shared.stands_still.swap(false, Ordering::AcqRel) {
            return;
        }
    }
    commit(consumer, shared, CommitMode::Sync);
    if consumer.client().fatal_error().is_some() {
        // librdkafka does not return from closing one that failed for good. It ends with the process, which ends now.
        std::mem::forget(consumer.clone());
    }
}

/// librdkafka would read nothing more. It tells some of these errors as [`ClientError::MessageConsumption`].
fn is_for_good(error: &ClientError) -> bool {
    let is_fatal = matches!(error, ClientError::MessageConsumptionFatal(_))
        || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
    is_fatal && !planted("failed_consumer_waits")
}

fn commit(consumer: &BaseConsumer<Context>, shared: &Shared, mode: CommitMode) {
    let done = shared.inbound().take_commits(None);
    if let Err(error) = shared.commit(consumer, done, mode) {
        tracing::warn!(%error, "{NOT_COMMITTED}");
    }
}

fn take_up(consumer: &BaseConsumer<Context>, shared: &Shared, message: &BorrowedMessage<'_>) {
    let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset())) else {
        return;
    };
    let key = message.key().unwrap_or_default();
    let named = std::str::from_utf8(key).ok().filter(|_| is_whole(message)).and_then(|key| LogId::parse(key).ok());
    let odd_key = named.is_none().then(|| Bytes::copy_from_slice(key));
    let Some(log) = named.or_else(|| LogId::parse(UNREADABLE).ok()) else { return };
    let upstream = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    let age_ms = message.timestamp().to_millis().map(|at_ms| (shared.wall_clock_ms)().saturating_sub(at_ms));
    let age_by_clocks = age_ms.map(|age_ms| Duration::from_millis(age_ms.max(0) as u64));
    let arrival = Arrival {
        offset: Offset(offset),
        record: Record { log, upstream, trace: trace(message) },
        odd_key,
        age_by_clocks,
        is_last: age_by_clocks.is_some_and(|age| age > DOUBTFUL_AGE)
            && fetched_end(consumer.client(), &shared.topic_text, Partition(partition))
                .is_some_and(|end| offset + 1 >= end.0),
    };
    if shared.inbound().arrived(Partition(partition), arrival, Instant::now())
        && let Err(error) = consumer.pause(&shared.list([Partition(partition)]))
    {
        tracing::debug!(%error, "a partition went away before it was paused");
    }
}

/// As it was sent, by the checksum that it carries; an earlier program's carries none.
fn is_whole(message: &BorrowedMessage<'_>) -> bool {
    let sent = message.headers().and_then(|headers| headers.iter().find(|header| header.key == CHECKSUM));
    let sum = || crc32c::crc32c(message.payload().unwrap_or_default()).to_be_bytes();
    sent.is_none_or(|sent| sent.value == Some(&sum())) || planted("damaged_record_taken")
}

fn trace(message: &BorrowedMessage<'_>) -> Option<TraceId> {
    let header = message.headers()?.iter().find(|header| header.key == TRACEPARENT)?;
    TraceId::from_traceparent(header.value?)
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self, records_max: usize) -> Result<Option<Consumed>, StoreError> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let mut inbound = self.shared.inbound();
                // Taken and returned without an await in between: a dropped call has taken nothing.
                if let Some(consumed) = inbound.next(records_max) {
                    return Ok(Some(consumed));
                }
                if inbound.is_closed {
                    return Ok(None);
                }
            }
            changed.await;
        }
    }

    async fn commit(&mut self, partition: Partition, offset: Offset) -> Result<(), StoreError> {
        self.shared.inbound().commit(partition, offset);
        Ok(())
    }
}
