//! The way from gateways to workers: commands that write, partitioned by log.
//!
//! In: encoded `Upstream` records, keyed by the log they write. Out: the same records, each partition in order, to one
//! consumer at a time. Always: a record may be lost, repeated, or seen by an old owner after a new one took over; the
//! store's unique keys make that harmless. Nothing is acked to a client because it was queued.

use super::{Shard, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{LogId, TraceId};
use std::time::Instant;

/// One command for one log.
#[derive(Debug, Clone)]
pub struct Record {
    pub log: LogId,
    /// An encoded `Upstream`.
    pub upstream: Bytes,
    /// That of the `Upstream`, told beside it for a queue that shows it to other tools, and for a record that cannot be decoded.
    pub trace: Option<TraceId>,
}

/// A number below the queue's partition count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u32);

impl Partition {
    /// The partition that carries `shard` when there are `count` of them.
    pub fn of(shard: Shard, count: u32) -> Self {
        Self(u32::from(shard.index()) % count)
    }
}

#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Takes every record for whose partition there is room and never waits. What is left in `records`, in its order, was
    /// not taken: those partitions are full, and the caller stops reading from the clients concerned until they are not.
    /// Records of one log keep their order: once one of a partition is left, those after it in the partition are too.
    fn produce(&self, records: &mut Vec<Record>);

    /// Like [`produce`](Queue::produce), but returns only when the queue holds the records as safely as it ever will
    /// (Kafka: all in-sync replicas). For the follow-up records that one log sends to another, before the offset moves.
    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError>;

    /// Keeps records that no attempt can work off where an operator finds them. Returns when they are kept as safely as the
    /// queue keeps anything; before that the offset must not move past them. Repeated after an error, one may be kept twice.
    /// A queue that keeps nothing itself has no place for them: there the caller's log line is all that stays.
    async fn set_aside(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError>;

    /// How many partitions there are; at most [`Shard::COUNT`].
    fn partitions(&self) -> u32;
}

#[async_trait]
pub trait Consumer: Send + 'static {
    /// Waits for what happens next to the partitions this consumer owns: one is gained or lost, or has records. A batch is
    /// of one partition, in order, at most `records_max`. A partition has at most one uncommitted batch: the next one comes
    /// after its commit, so a partition whose store is away pauses by itself while others go on. `None` when the queue is
    /// closed and drained. Cancel-safe: a dropped call takes nothing.
    async fn next(&mut self, records_max: usize) -> Result<Option<Consumed>, StoreError>;

    /// Everything of the partition up to and including `offset` is stored and handed on, and need not come again. Does
    /// nothing for a partition that this consumer no longer owns.
    async fn commit(&mut self, partition: Partition, offset: Offset) -> Result<(), StoreError>;
}

#[derive(Debug)]
pub enum Consumed {
    /// Comes before any batch of the partition: the owner forgets what it knew of its logs, and repeats what the projections
    /// lack. What was lost again before it was told is not told: its next owner has claimed it by then.
    Gained(Partition),
    Records(Batch),
    /// Another consumer has it, or will: what is under way of it may be finished (the store's keys make that harmless), its
    /// commits do nothing, and nothing more of it may be covered.
    Lost(Partition),
}

/// Records of one partition; never empty.
#[derive(Debug)]
pub struct Batch {
    pub partition: Partition,
    pub records: Vec<Queued>,
}

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct Queued {
    pub offset: Offset,
    pub record: Record,
    /// When the queue took it, by the clock of this process that never jumps. A queue in other processes cannot know it to the
    /// moment; then it is no earlier than when this consumer had last seen the partition empty.
    pub since: Instant,
    /// It may have come before, to this consumer or to another: it waited when the partition was gained.
    pub may_repeat: bool,
    /// The key that it came with, where that names no log or the record is damaged; its log is then one that nothing has.
    pub odd_key: Option<Bytes>,
}

/// A record that no attempt can work off.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub partition: Partition,
    pub queued: Queued,
    pub reason: DeadReason,
}

/// Deterministic: the same record meets the same end every time. A store that is away is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// It is not what a gateway writes.
    Undecodable,
    /// No store takes its entry: it has more than [`ENTRY_BYTES_MAX`](super::ENTRY_BYTES_MAX).
    TooLarge,
}

impl DeadReason {
    pub const ALL: [Self; 2] = [Self::Undecodable, Self::TooLarge];

    /// In headers, metrics and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
        }
    }
}

/// The place of a record in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(pub u64);
