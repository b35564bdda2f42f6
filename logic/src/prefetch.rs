//! Step 5, second half: everything a batch needs, brought into memory before anything is decided.
//!
//! In: the logs and commands of a batch. Out: a lane for each log, and for moved read cursors what their conversation
//! knows. Always: loads run side by side, a bounded number at once; a log that cannot be reached makes the batch wait; a
//! damaged log turns away its own commands only.

pub(crate) mod load;
mod lost_end;
mod read_target;

use crate::admit::Work;
use crate::log_state::{Lane, LogState};
use crate::metrics::add;
use crate::refusal::Refusal;
use crate::worker::{Stopped, Told, Worker};
use futures_util::StreamExt as _;
use futures_util::stream;
use im_proto::LogId;
use im_proto::client::client_frame::Command;
use im_storage::ports::StoreError;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// For what belongs to moved read cursors, of a whole batch: messages wait behind it.
pub(crate) const READS_PATIENCE: Duration = Duration::from_secs(1);
/// After that moved cursors are refused unseen for so long, so that a silent store costs messages a fifth of the time at most.
const READS_REFUSED: Duration = Duration::from_secs(5);

/// Calls to stores under way at once for one batch.
pub(crate) const LOADS_AT_ONCE_MAX: usize = 64;

impl Worker {
    /// Takes the known logs out of the cache and loads the others.
    pub(crate) async fn prefetch_logs(&mut self, logs: Vec<LogId>) -> Result<Vec<Lane>, Stopped> {
        let mut lanes: Vec<Lane> = Vec::with_capacity(logs.len());
        let mut cold = Vec::new();
        for (at, log) in logs.into_iter().enumerate() {
            let state = self.logs.take(&log);
            if state.is_none() {
                cold.push(at);
            }
            lanes.push(Lane::new(log, state.unwrap_or_default()));
        }
        let mut patience = self.patience("load a log");
        while !cold.is_empty() {
            let loads = std::mem::take(&mut cold).into_iter().map(|at| {
                let (shared, log) = (self.shared.clone(), lanes[at].log.clone());
                async move { (at, load::load(&shared, &log).await) }
            });
            let mut loaded = stream::iter(loads.collect::<Vec<_>>()).buffer_unordered(LOADS_AT_ONCE_MAX);
            let mut away = None;
            while let Some((at, outcome)) = loaded.next().await {
                match outcome {
                    Ok(position) => lanes[at].state = LogState::at(position),
                    Err(error @ StoreError::Damaged(_)) => self.give_up(&mut lanes[at], &error),
                    Err(error) => {
                        cold.push(at);
                        away = Some(error);
                    }
                }
            }
            if let Some(error) = away {
                patience.wait(&error).await?;
            }
        }
        Ok(lanes)
    }

    /// Looks up what the moved read cursors of the batch point at. Those for which a store is away are taken out of the work
    /// and told to try again: a cursor is not worth a message's waiting.
    pub(crate) async fn prefetch_reads(&mut self, work: &mut Vec<Work>) -> Vec<Told> {
        let is_read = |(at, work): (usize, &Work)| matches!(work.command, Command::MarkRead(_)).then_some(at);
        let mut away: BTreeSet<usize> = work.iter().enumerate().filter_map(is_read).collect();
        if self.reads_refused_until.is_none_or(|until| until <= Instant::now())
            && self.look_up_reads(work, &mut away).await.is_err()
        {
            add(&self.shared.metrics.store_errors, 1);
            tracing::warn!("read cursors get no answer from a store; they are refused for a while");
            self.reads_refused_until = Some(Instant::now() + READS_REFUSED);
        }
        let told = away.iter().map(|at| self.refused(&work[*at], &Refusal::UNAVAILABLE)).collect();
        let mut at = 0..;
        work.retain(|_| at.next().is_none_or(|at| !away.contains(&at)));
        told
    }

    /// What is found out leaves `away`.
    async fn look_up_reads(&self, work: &mut [Work], away: &mut BTreeSet<usize>) -> Result<(), Elapsed> {
        let looks = work.iter().enumerate().filter_map(|(at, work)| {
            let Command::MarkRead(mark) = &work.command else { return None };
            let (ports, user, mark) = (self.shared.ports.clone(), work.sender.clone(), mark.clone());
            Some(async move { (at, read_target::look_up(&ports, &user, &mark).await) })
        });
        let mut found = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOADS_AT_ONCE_MAX);
        let deadline = Instant::now() + READS_PATIENCE;
        while let Some((at, outcome)) = timeout_at(deadline, found.next()).await? {
            let target = match outcome {
                Ok(target) => target,
                Err(error @ StoreError::Damaged(_)) => {
                    add(&self.shared.metrics.damaged, 1);
                    tracing::error!(%error, "a read cursor points at damaged data");
                    Default::default()
                }
                Err(error) => {
                    add(&self.shared.metrics.store_errors, 1);
                    tracing::warn!(%error, "a read cursor cannot be looked up");
                    continue;
                }
            };
            work[at].read = Some(target);
            away.remove(&at);
        }
        Ok(())
    }

    /// The log cannot be read: its commands are answered RETRY, the others go on.
    pub(crate) fn give_up(&self, lane: &mut Lane, error: &StoreError) {
        add(&self.shared.metrics.damaged, 1);
        tracing::error!(log = %lane.log, %error, "a log cannot be read");
        lane.damaged = true;
    }
}
