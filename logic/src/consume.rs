//! Step 5: the loop of one worker.
//!
//! In: batches of a queue's partitions. Out: each of them decided, stored, handed on, and only then committed. Always: one
//! batch at a time, so a log's commands keep their order; a store that is away makes the partition wait, nothing is passed
//! over; projections are covered, and those of a partition that was gained or that have lost rows caught up, beside the commands.

use crate::admit::{Admitted, admit};
use crate::catch_up::CaughtUp;
use crate::log_state::Lane;
use crate::metrics::add;
use crate::planted::planted;
use crate::worker::{Stopped, Worker, told_to_stop};
use im_storage::ports::{Batch, Consumed, Consumer, Offset, Partition};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Between attempts to read a queue that is away.
const QUEUE_WAIT: Duration = Duration::from_millis(500);

impl Worker {
    /// Runs until the queue is closed and drained, or `stop` says so.
    pub(crate) async fn run(mut self, mut consumer: Box<dyn Consumer>, ready: watch::Sender<bool>) {
        if self.consume(consumer.as_mut(), ready).await.is_err() {
            tracing::warn!("stopped while a store was away; what was under way is repeated at the next start");
            return;
        }
        self.cover_last().await;
    }

    async fn consume(&mut self, consumer: &mut dyn Consumer, ready: watch::Sender<bool>) -> Result<(), Stopped> {
        let mut cover_at = Instant::now() + self.idle_cover_interval();
        loop {
            self.count_partitions();
            let mut stop = self.stop.clone();
            let consumed = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => return Ok(()),
                ended = self.covering.next() => {
                    if !self.covered(ended) {
                        cover_at = cover_at.min(Instant::now() + self.cover_interval());
                    }
                    continue;
                }
                () = sleep_until(cover_at), if self.covering.is_idle() => {
                    self.repair_inbox().await;
                    self.begin_cover().await;
                    let again = if self.inbox_behind { self.cover_interval() } else { self.idle_cover_interval() };
                    cover_at = Instant::now() + again;
                    continue;
                }
                caught_up = self.catch_ups.next() => {
                    self.caught_up(caught_up?);
                    cover_at = cover_at.min(Instant::now() + self.cover_interval());
                    if self.catch_ups.is_done() {
                        let _ = ready.send(true);
                    }
                    continue;
                }
                consumed = consumer.next(self.shared.config.batch_records_max) => consumed,
            };
            match consumed {
                Ok(Some(Consumed::Gained(partition))) => {
                    tracing::info!(partition = partition.0, "partition gained");
                    self.forget(partition);
                    self.catch_ups.add(partition, false);
                    if planted("catch_up_blocks") {
                        let caught_up = self.catch_ups.next().await?;
                        self.caught_up(caught_up);
                        let _ = ready.send(true);
                    }
                }
                Ok(Some(Consumed::Lost(partition))) => {
                    tracing::info!(partition = partition.0, "partition lost");
                    self.forget(partition);
                }
                Ok(Some(Consumed::Records(batch))) => {
                    self.process(consumer, batch).await?;
                    cover_at = cover_at.min(Instant::now() + self.cover_interval());
                    if self.reads.len() >= self.shared.config.reads_waiting_max {
                        self.make_room_for_reads().await;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    add(&self.shared.metrics.store_errors, 1);
                    tracing::warn!(%error, "the queue is away; waiting");
                    let _ = tokio::time::timeout(QUEUE_WAIT, told_to_stop(&mut stop)).await;
                }
            }
        }
    }

    async fn process(&mut self, consumer: &mut dyn Consumer, batch: Batch) -> Result<(), Stopped> {
        let Batch { partition, records } = batch;
        let Some(last) = records.last().map(|last| last.offset) else { return Ok(()) };
        if planted("commit_before_persist") {
            self.commit(consumer, partition, last).await;
        }
        add(&self.shared.metrics.batches, 1);
        add(&self.shared.metrics.records, records.len());
        self.shared.metrics.batch_records.note(records.len());
        let Admitted { mut work, logs, told, mut dead } = admit(&self.shared, partition, records);
        let mut lanes = self.prefetch_logs(logs).await?;
        let unread = self.prefetch_reads(&mut work).await;
        let mut outcome = self.persist(&mut lanes, &work).await?;
        outcome.told.extend(told.into_iter().chain(unread));
        dead.extend(outcome.too_large.drain(..).map(|too_large| too_large.dead(partition)));
        let started = Instant::now();
        self.deliver(&lanes, outcome).await?;
        self.shared.metrics.deliver_time.note(started.elapsed());
        self.set_aside(dead).await?;
        self.remember(lanes);
        self.commit(consumer, partition, last).await;
        Ok(())
    }

    fn remember(&mut self, lanes: Vec<Lane>) {
        for lane in lanes {
            if !lane.damaged {
                self.logs.put(lane.log, lane.state);
            }
        }
    }

    /// A lost commit costs a repeated batch, which is harmless.
    async fn commit(&self, consumer: &mut dyn Consumer, partition: Partition, offset: Offset) {
        if let Err(error) = consumer.commit(partition, offset).await {
            add(&self.shared.metrics.store_errors, 1);
            tracing::warn!(%error, partition = partition.0, "offset not committed");
        }
    }

    fn cover_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.config.cover_interval_ms))
    }

    /// Without anything to cover the claims are looked after all the same: that is how a flushed projection is noticed.
    fn idle_cover_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.config.claim_check_interval_ms))
    }

    fn caught_up(&mut self, caught_up: CaughtUp) {
        let CaughtUp { partition, owned, is_repair } = caught_up;
        if is_repair {
            add(&self.shared.metrics.projections_repaired, 1);
        }
        self.owned.insert(partition, owned);
    }
}
