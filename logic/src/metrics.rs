//! What the logic counts.
//!
//! In: one call per event or batch. Out: plain counters that the composition root prints. Always: counters only rise, but
//! for those of partitions and banned users; one value is shared by all workers and requests of the process.

use im_observe::{Durations, Sizes};
use im_proto::client::ErrorCode;
use im_storage::ports::DeadReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// One more than the highest `ErrorCode`.
const CODES: usize = 12;

#[derive(Debug, Default)]
pub struct LogicMetrics {
    /// Records taken from the queue.
    pub records: AtomicU64,
    /// Records that no attempt could work off, by reason.
    dead_letters: [AtomicU64; DeadReason::ALL.len()],
    /// Entries stored.
    pub appended: AtomicU64,
    /// Commands that were stored before and got the same answer again.
    pub duplicates: AtomicU64,
    /// Batches of the queue that were worked through.
    pub batches: AtomicU64,
    /// Calls of the entry log's append; more than batches when keys were taken.
    pub appends: AtomicU64,
    /// Appends that stored less than they held; what was left was decided and appended again.
    pub append_retries: AtomicU64,
    /// Appends that met a taken key.
    pub appends_taken: AtomicU64,
    /// Entries found behind a known head: another owner wrote them.
    pub foreign_entries: AtomicU64,
    /// Calls that moved inboxes.
    pub bumps: AtomicU64,
    /// Rows moved in inboxes.
    pub moves: AtomicU64,
    /// Deliveries to single connections: answers and push targets.
    pub answers: AtomicU64,
    pub push_targets: AtomicU64,
    /// Entries of large conversations handed to gateways, each for all its members there.
    pub large_pushes: AtomicU64,
    /// Entries repeated into the projections at start or after a take-over.
    pub caught_up_entries: AtomicU64,
    /// Partitions taken over: those whose projections have caught up with the log, and those that are behind it.
    pub partitions_caught_up: AtomicU64,
    pub partitions_behind: AtomicU64,
    /// Partitions repeated because a projection had lost rows or claims.
    pub projections_repaired: AtomicU64,
    /// Calls of a store that failed; the worker waited and tried again, or the request was refused.
    pub store_errors: AtomicU64,
    /// Logs that could not be read because stored data is damaged.
    pub damaged: AtomicU64,
    /// Entries that were gone from the end of a log; tombstones are in their places.
    pub lost_entries: AtomicU64,
    /// Requests answered: pull, sync, list members.
    pub reads: AtomicU64,
    pub sign_ins: AtomicU64,
    pub sign_ins_refused: AtomicU64,
    /// Users who are banned, as far as this process knows.
    pub users_banned: AtomicU64,
    refused: [AtomicU64; CODES],
    /// Records of a batch.
    pub batch_records: Sizes,
    /// To decide what is left of a batch; what had to be asked of the store included.
    pub decide_time: Durations,
    /// One call of the entry log's append.
    pub append_time: Durations,
    /// From stored to handed on: projections moved, routes looked up, deliveries with their streams.
    pub deliver_time: Durations,
}

impl LogicMetrics {
    pub(crate) fn count_refusal(&self, code: ErrorCode) {
        add(&self.refused[code as usize % CODES], 1);
    }

    pub(crate) fn dead_letters(&self, reason: DeadReason) -> &AtomicU64 {
        &self.dead_letters[reason as usize]
    }

    pub fn set_aside(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DeadReason::ALL.into_iter().map(|reason| (reason.name(), self.dead_letters(reason).load(Ordering::Relaxed)))
    }

    /// Refusals by code, those that happened.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refused.iter().enumerate().filter_map(|(code, count)| {
            let count = count.load(Ordering::Relaxed);
            let name = ErrorCode::try_from(code as i32).ok()?.as_str_name();
            (count > 0).then_some((name, count))
        })
    }
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
