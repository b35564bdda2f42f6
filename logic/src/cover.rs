//! What was applied is declared durable, beside the commands.
//!
//! In: between two batches, what is owned, the read cursors that have moved, and receipts that are late. Out: which partitions
//! must be claimed again, and the cursors and receipts that no store took. Always: one covering at a time, and commands wait for
//! none of it; what it declares is true whenever it arrives: everything stored before it began was applied by then, and a
//! projection that has lost rows since answers LOST; the inbox is not covered while it lacks moves.

use crate::metrics::add;
use crate::planted::planted;
use crate::receipts::{self, Receipts};
use crate::worker::{Owned, Shared, Worker};
use im_storage::ports::{Covered, Cursor, Partition, ReadMark, StoreError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Cursors wait no longer than this for a directory before they are left to be repeated from the log.
const LATE: Duration = Duration::from_secs(3);
/// Of a worker that ends: what is not covered by then is repeated at the next start.
const LAST_COVER_PATIENCE: Duration = Duration::from_secs(5);
/// Whoever was replaced hears from the queue within this time that it lost the partition. If it does not, it is the owner.
const REPLACED_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Covering {
    /// The one that runs. It ends with the value.
    task: JoinSet<Ended>,
    /// Since then the directory has taken no cursors, though it was asked to.
    unanswered_since: Option<Instant>,
}

/// How a covering ended.
#[derive(Default)]
pub(crate) struct Ended {
    covered: Vec<(Partition, Owned, Covered)>,
    not_taken: Vec<ReadMark>,
    not_told: Receipts,
    error: Option<StoreError>,
}

impl Covering {
    pub fn is_idle(&self) -> bool {
        self.task.is_empty()
    }

    /// The one that runs has ended; waits for ever where none does. May be cancelled.
    pub async fn next(&mut self) -> Ended {
        match self.task.join_next().await {
            Some(Ok(ended)) => {
                if ended.not_taken.is_empty() {
                    self.unanswered_since = None;
                }
                ended
            }
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => std::future::pending().await,
        }
    }

    fn begin(&mut self, covering: impl Future<Output = Ended> + Send + 'static) {
        self.unanswered_since.get_or_insert_with(Instant::now);
        self.task.spawn(covering);
    }

    fn late_at(&self) -> Instant {
        self.unanswered_since.unwrap_or_else(Instant::now) + LATE
    }
}

/// Everything that is said to be applied before a cover says so.
struct Before {
    end: Cursor,
    marks: Vec<ReadMark>,
    receipts: Receipts,
    /// While it lacks moves the directory is covered by itself: only the inbox has to be repeated then.
    inbox_behind: bool,
}

/// Cursors and receipts first: a cover says that directory and inbox have those of the entries before it.
async fn cover(shared: Shared, before: Before, owned: Vec<(Partition, Owned)>) -> Ended {
    let Before { end, marks, receipts, mut inbox_behind } = before;
    let mut ended = Ended::default();
    let tell = async { if receipts.is_empty() { Ok(()) } else { receipts::tell(&shared, &receipts).await } };
    let record =
        async { if marks.is_empty() { Ok(()) } else { shared.ports.directory.record_reads(marks.clone()).await } };
    // At once: while a covering waits for a store that is silent, no other one is looked after.
    let (told, recorded) = tokio::join!(tell, record);
    if let Err(error) = told {
        (ended.not_told, ended.error, inbox_behind) = (receipts, Some(error), true);
    }
    if let Err(error) = recorded {
        return Ended { not_taken: marks, error: Some(error), ..ended };
    }
    for (partition, mut owned) in owned {
        match shared.cover(&mut owned, &end, inbox_behind).await {
            Ok(covered) => ended.covered.push((partition, owned, covered)),
            Err(error) => {
                ended.error = Some(error);
                // Whatever it is that is away: the directory may be asked for the others.
                if std::mem::replace(&mut inbox_behind, true) {
                    break;
                }
            }
        }
    }
    ended
}

impl Worker {
    /// Between batches everything stored in our shards is applied, so the end of the log, read now, is covered of those that
    /// are caught up. While the inbox lacks moves only the directory is.
    pub(crate) async fn begin_cover(&mut self) {
        let end = match self.shared.ports.log.end().await {
            Ok(end) => end,
            Err(error) => return self.not_covered(&error),
        };
        let (marks, receipts) = (self.reads.take(), self.late_receipts.take());
        let before = Before { end, marks, receipts, inbox_behind: self.inbox_behind };
        self.covering.begin(cover(self.shared.clone(), before, self.owned.clone().into_iter().collect()));
        if planted("cover_blocks") {
            let ended = self.covering.next().await;
            self.covered(ended);
        }
    }

    /// True: all of it is durable.
    pub(crate) fn covered(&mut self, ended: Ended) -> bool {
        let Ended { covered, not_taken, not_told, error } = ended;
        for ReadMark { log, user, read } in not_taken {
            self.reads.add(log, user, read);
        }
        self.inbox_behind |= !self.late_receipts.add(not_told);
        for (partition, of, covered) in covered {
            // It was lost meanwhile, or is caught up under another claim.
            let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.is_claimed_as(&of)) else { continue };
            owned.covered = of.covered;
            let is_lost = match covered {
                Covered::Noted => {
                    owned.replaced_at = None;
                    false
                }
                Covered::Lost => !planted("lost_rows_ignored"),
                Covered::Replaced => owned.replaced_at.get_or_insert_with(Instant::now).elapsed() > REPLACED_PATIENCE,
            };
            if is_lost {
                tracing::warn!(partition = partition.0, "a projection lost rows or claims; repeating what it lacks");
                // Of a directory that lost rows no change may be passed over: what is decided next reads the log.
                self.forget(partition);
                self.catch_ups.add(partition, true);
            }
        }
        if let Some(error) = &error {
            self.not_covered(error);
        }
        error.is_none()
    }

    fn not_covered(&self, error: &StoreError) {
        add(&self.shared.metrics.store_errors, 1);
        tracing::warn!(%error, "projections not made durable; trying again");
    }

    /// More cursors wait than may. They are handed over, or, if the directory takes none, forgotten together with the claims:
    /// who catches up finds them in the log behind the last cover.
    pub(crate) async fn make_room_for_reads(&mut self) {
        if !self.covering.is_idle()
            && let Ok(ended) = timeout_at(self.covering.late_at(), self.covering.next()).await
        {
            self.covered(ended);
        }
        if self.covering.is_idle() && Instant::now() < self.covering.late_at() {
            self.begin_cover().await;
            return;
        }
        tracing::warn!("the directory takes no read cursors; they are repeated from the log when it does");
        self.reads.take();
        self.catch_up_again();
    }

    /// Of everything, before the worker ends.
    pub(crate) async fn cover_last(&mut self) {
        let all = async {
            if !self.covering.is_idle() {
                let ended = self.covering.next().await;
                self.covered(ended);
            }
            self.begin_cover().await;
            if !self.covering.is_idle() {
                let ended = self.covering.next().await;
                self.covered(ended);
            }
        };
        if timeout(LAST_COVER_PATIENCE, all).await.is_err() {
            tracing::warn!("a projection does not answer; its last changes are repeated at the next start");
        }
    }
}
