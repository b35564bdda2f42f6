//! Step 5: the loop of one worker.
//!
//! In: batches of a queue's partitions. Out: each of them decided, stored, handed on, and only then committed. Always: one
//! batch at a time, so a log's commands keep their order; a store that is away makes the partition wait, nothing is passed
//! over; a partition that was taken over is caught up before its first command is decided.

use crate::admit::{Admitted, admit};
use crate::clock::now_ms;
use crate::log_state::Lane;
use crate::metrics::add;
use crate::planted::planted;
use crate::worker::{Stopped, Worker, told_to_stop};
use im_storage::ports::{Batch, Consumer, Partition, StoreError};
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
        if let Err(error) = self.cover().await {
            tracing::warn!(%error, "the projections' last changes are repeated at the next start");
        }
    }

    async fn consume(&mut self, consumer: &mut dyn Consumer, ready: watch::Sender<bool>) -> Result<(), Stopped> {
        let interval = Duration::from_millis(u64::from(self.shared.config.cover_interval_ms));
        // When what was applied is made durable next; `None` while nothing was applied since.
        let mut cover_at: Option<Instant> = None;
        loop {
            let mut stop = self.stop.clone();
            let batch = tokio::select! {
                biased;
                () = told_to_stop(&mut stop) => return Ok(()),
                () = sleep_until(cover_at.unwrap_or_else(Instant::now)), if cover_at.is_some() => {
                    cover_at = self.cover_or_later(interval).await;
                    continue;
                }
                batch = consumer.next(self.shared.config.batch_records_max) => batch,
            };
            match batch {
                Ok(Some(batch)) => {
                    self.process(consumer, &ready, batch).await?;
                    cover_at = cover_at.or_else(|| Some(Instant::now() + interval));
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

    async fn process(
        &mut self,
        consumer: &mut dyn Consumer,
        ready: &watch::Sender<bool>,
        batch: Batch,
    ) -> Result<(), Stopped> {
        let Batch { partition, taken_over, records } = batch;
        if taken_over {
            self.take_over(partition).await?;
            let _ = ready.send(true);
        }
        let Some(last) = records.last().map(|consumed| consumed.offset) else {
            return Ok(());
        };
        if planted("commit_before_persist") {
            self.commit(consumer, partition, last).await;
        }
        add(&self.shared.metrics.batches, 1);
        add(&self.shared.metrics.records, records.len());
        let Admitted { mut work, logs, told } = admit(&self.shared, records, now_ms());
        let mut lanes = self.prefetch_logs(logs).await?;
        self.prefetch_reads(&mut work).await?;
        let mut outcome = self.persist(&mut lanes, &work).await?;
        outcome.told.extend(told);
        self.deliver(&lanes, outcome).await?;
        self.remember(lanes);
        self.commit(consumer, partition, last).await;
        Ok(())
    }

    /// Another worker may have written these logs since we last did.
    async fn take_over(&mut self, partition: Partition) -> Result<(), Stopped> {
        tracing::info!(partition = partition.0, "partition taken over");
        self.logs.clear();
        self.owned.insert(partition);
        self.catch_up(&self.shards(|of| of == partition)).await
    }

    fn remember(&mut self, lanes: Vec<Lane>) {
        for lane in lanes {
            if !lane.damaged {
                self.logs.put(lane.log, lane.state);
            }
        }
    }

    /// A lost commit costs a repeated batch, which is harmless.
    async fn commit(&self, consumer: &mut dyn Consumer, partition: Partition, offset: u64) {
        if let Err(error) = consumer.commit(partition, offset).await {
            add(&self.shared.metrics.store_errors, 1);
            tracing::warn!(%error, partition = partition.0, "offset not committed");
        }
    }

    /// When to cover next, if this attempt failed.
    async fn cover_or_later(&mut self, interval: Duration) -> Option<Instant> {
        let error = self.cover().await.err()?;
        add(&self.shared.metrics.store_errors, 1);
        tracing::warn!(%error, "projections not made durable; trying again");
        Some(Instant::now() + interval)
    }

    /// Between batches everything stored in our shards is applied, so the end of the log, read now, is covered.
    async fn cover(&mut self) -> Result<(), StoreError> {
        let shards = self.shards(|partition| self.owned.contains(&partition));
        let end = self.shared.ports.log.end().await?;
        self.shared.cover(&shards, &end).await
    }
}
