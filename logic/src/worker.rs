//! One worker: what it owns and what it shares.
//!
//! In: the ports and a consumer. Out: a running task that can be waited for and stopped. Always: a worker keeps nothing
//! that the stores do not also know; it may be killed between any two of its calls.

use crate::accounts::Accounts;
use crate::admit::Origin;
use crate::catch_up::CatchUps;
use crate::config::LogicConfig;
use crate::cover::Covering;
use crate::log_cache::LogCache;
use crate::memory::CommandMemory;
use crate::metrics::{LogicMetrics, add};
use crate::rate::SendRate;
use crate::read_marks::ReadMarks;
use crate::receipts::LateReceipts;
use crate::refusal::Refusal;
use im_observe::{LineLimit, REFUSED};
use im_proto::client::server_frame::Body;
use im_proto::{Epoch, LogId, UserId};
use im_storage::ports::{
    Claim, Covered, Cursor, Delivery, Directory, EntryLog, Inbox, Partition, Queue, Routes, Shard, StoreError,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::field::display;

/// Everything the logic reaches the outside by.
#[derive(Clone)]
pub struct Ports {
    pub queue: Arc<dyn Queue>,
    pub log: Arc<dyn EntryLog>,
    pub directory: Arc<dyn Directory>,
    pub inbox: Arc<dyn Inbox>,
    pub routes: Arc<dyn Routes>,
    pub delivery: Arc<dyn Delivery>,
}

/// What all workers and requests of a process share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub ports: Ports,
    pub config: Arc<LogicConfig>,
    pub metrics: Arc<LogicMetrics>,
    pub accounts: Arc<Accounts>,
    pub send_rate: Arc<SendRate>,
    pub refused_lines: Arc<LineLimit>,
}

/// A command that is refused.
pub(crate) struct Refused<'a> {
    pub user: &'a UserId,
    pub request_id: u64,
    /// Where it came from and which log it would have written; a request that only reads is not told its connection.
    pub written: Option<(Origin, &'a LogId)>,
}

/// Lines about refused commands a second; how many more there were stands on the next line.
pub(crate) const REFUSED_LINES_PER_S_MAX: u32 = 100;

/// A partition, and the right to say how far the projections show it.
#[derive(Clone)]
pub(crate) struct Owned {
    pub shards: Vec<Shard>,
    pub directory: Claim,
    pub inbox: Claim,
    /// Up to there both say so.
    pub covered: Option<Cursor>,
    /// Another worker claimed it, and the queue has not said that we lost it: since then we cover nothing.
    pub replaced_at: Option<Instant>,
}

impl Owned {
    /// Neither was claimed anew since `before`.
    pub fn is_claimed_as(&self, before: &Self) -> bool {
        (self.directory.fence, self.inbox.fence) == (before.directory.fence, before.inbox.fence)
    }
}

impl Shared {
    /// Counts a refused command, and logs it.
    pub fn refused(&self, refusal: &Refusal, of: &Refused<'_>) {
        self.metrics.count_refusal(refusal.code);
        if !tracing::enabled!(target: REFUSED, tracing::Level::INFO) {
            return;
        }
        if let Some(left_out) = self.refused_lines.line() {
            let Refused { user, request_id: request, written } = *of;
            let (log, connection) = (written.map(|(_, log)| display(log)), written.map(|(of, _)| of.connection.0));
            let trace = written.and_then(|(origin, _)| origin.trace).map(display);
            let code = refusal.code.as_str_name();
            tracing::info!(target: REFUSED, trace, %user, log, connection, request, code, left_out, "refused");
        }
    }

    /// Both projections, or the directory alone, show everything of the partition before `end`: makes that durable, each for
    /// itself; then the log need not keep the order of it. Died in between: the next owner repeats from where either of them stands.
    pub async fn cover(&self, owned: &mut Owned, end: &Cursor, inbox_behind: bool) -> Result<Covered, StoreError> {
        let by_directory = self.ports.directory.cover(&owned.directory, end).await?;
        if by_directory != Covered::Noted || inbox_behind {
            return Ok(by_directory);
        }
        let by_inbox = self.ports.inbox.cover(&owned.inbox, end).await?;
        if by_inbox == Covered::Noted && owned.covered.as_ref() != Some(end) {
            self.ports.log.release(&owned.shards, end).await?;
            owned.covered = Some(end.clone());
        }
        Ok(by_inbox)
    }
}

/// An answer that rests on nothing unsaved.
#[derive(Debug)]
pub(crate) struct Told {
    pub origin: Origin,
    pub body: Body,
}

/// The worker was told to stop while a store was away. What it had not finished stays in the queue, or is sent again.
#[derive(Debug)]
pub(crate) struct Stopped;

pub(crate) struct Worker {
    pub shared: Shared,
    pub epoch: Epoch,
    /// Logs not in the present batch.
    pub logs: LogCache,
    pub memory: CommandMemory,
    /// Those gained, not lost again, and caught up.
    pub owned: BTreeMap<Partition, Owned>,
    pub reads: ReadMarks,
    pub covering: Covering,
    /// Until then moved read cursors are refused unseen: a store that knows about them did not answer.
    pub reads_refused_until: Option<Instant>,
    /// Whom the directory did not name in time. While some wait nothing is covered.
    pub late_receipts: LateReceipts,
    /// Until then the directory is not asked who gets receipts.
    pub receipts_late_until: Option<Instant>,
    /// The inbox was away and did not get some moves: until they were repeated from the log, nothing is covered.
    pub inbox_behind: bool,
    /// Partitions that are not covered yet: their projections may lack what is in the log.
    pub catch_ups: CatchUps,
    /// How many of `owned` and `catch_ups` are in the metrics.
    pub counted: [u64; 2],
    pub stop: watch::Receiver<bool>,
}

impl Worker {
    pub fn new(shared: Shared, stop: watch::Receiver<bool>) -> Self {
        let logs = LogCache::new(shared.config.logs_cached_max, shared.config.members_cached_max);
        Self {
            epoch: shared.ports.log.epoch(),
            logs,
            memory: CommandMemory::new(shared.config.commands_remembered_max),
            owned: BTreeMap::new(),
            reads: ReadMarks::default(),
            covering: Covering::default(),
            reads_refused_until: None,
            late_receipts: LateReceipts::default(),
            receipts_late_until: None,
            inbox_behind: false,
            catch_ups: CatchUps::new(shared.clone(), stop.clone()),
            counted: [0; 2],
            stop,
            shared,
        }
    }

    /// Another worker may write, or have written, the logs of this partition.
    pub fn forget(&mut self, partition: Partition) {
        let partitions = self.shared.ports.queue.partitions();
        self.logs.forget(|log| Partition::of(Shard::of(log), partitions) == partition);
        self.owned.remove(&partition);
        self.catch_ups.forget(partition);
    }

    /// Everything owned is claimed and repeated from its last cover on; what runs begins anew: it may have missed something.
    pub fn catch_up_again(&mut self) {
        self.catch_ups.restart();
        for partition in std::mem::take(&mut self.owned).into_keys() {
            self.catch_ups.add(partition, false);
        }
    }

    /// Whoever looks from outside sees which partitions a sync can rely on.
    pub fn count_partitions(&mut self) {
        let (owned, behind) = (self.owned.len() as u64, self.catch_ups.len() as u64);
        let now = if self.inbox_behind { [0, owned + behind] } else { [owned, behind] };
        let metrics = [&self.shared.metrics.partitions_caught_up, &self.shared.metrics.partitions_behind];
        for ((counted, now), metric) in self.counted.iter_mut().zip(now).zip(metrics) {
            metric.fetch_add(now.wrapping_sub(*counted), Ordering::Relaxed);
            *counted = now;
        }
    }

    pub fn patience(&self, what: &'static str) -> Patience {
        Patience::new(what, &self.shared, &self.stop)
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Waits between the attempts of a call to a store. There is no last attempt: the partition stands still until the store
/// is back, nothing is passed over, and the gateways tell the senders UNKNOWN at their deadline.
pub(crate) struct Patience {
    what: &'static str,
    wait: Duration,
    metrics: Arc<LogicMetrics>,
    stop: watch::Receiver<bool>,
}

impl Patience {
    pub fn new(what: &'static str, shared: &Shared, stop: &watch::Receiver<bool>) -> Self {
        Self { what, wait: FIRST_WAIT, metrics: Arc::clone(&shared.metrics), stop: stop.clone() }
    }

    pub async fn wait(&mut self, error: &StoreError) -> Result<(), Stopped> {
        add(&self.metrics.store_errors, 1);
        tracing::warn!(what = self.what, %error, wait_ms = self.wait.as_millis() as u64, "a store is away; waiting");
        let stopped = tokio::time::timeout(self.wait, told_to_stop(&mut self.stop)).await;
        self.wait = LONGEST_WAIT.min(self.wait * 2);
        if stopped.is_ok() { Err(Stopped) } else { Ok(()) }
    }
}

/// Returns when the worker's handle says so, or is gone.
pub(crate) async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A worker that runs. Dropping the handle stops it like [`stop`](WorkerHandle::stop) does, without waiting.
pub struct WorkerHandle {
    pub(crate) task: JoinHandle<()>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) ready: watch::Receiver<bool>,
}

impl WorkerHandle {
    /// Returns true when the worker has taken over partitions and all of them are caught up; before that, sync would answer
    /// from a past state. False: the worker ended first.
    pub async fn ready(&mut self) -> bool {
        self.ready.wait_for(|ready| *ready).await.is_ok()
    }

    /// Finishes the present batch, makes the projections durable and ends.
    pub async fn stop(self) -> Result<(), JoinError> {
        let _ = self.stop.send(true);
        self.task.await
    }

    /// The worker does not run any more.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Returns when the queue is closed and drained, or the worker failed.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        (&mut self.task).await
    }
}
