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
    pub(crate) async fn prefetch_reads(&self, work: &mut Vec<Work>) -> Vec<Told> {
        let looks = work.iter().enumerate().filter_map(|(at, work)| {
            let Command::MarkRead(mark) = &work.command else { return None };
            let (ports, user, mark) = (self.shared.ports.clone(), work.sender.clone(), mark.clone());
            Some(async move { (at, read_target::look_up(&ports, &user, &mark).await) })
        });
        let mut found = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOADS_AT_ONCE_MAX);
        let mut away = BTreeSet::new();
        while let Some((at, outcome)) = found.next().await {
            match outcome {
                Ok(target) => work[at].read = Some(target),
                Err(error @ StoreError::Damaged(_)) => {
                    add(&self.shared.metrics.damaged, 1);
                    tracing::error!(%error, "a read cursor points at damaged data");
                    work[at].read = Some(Default::default());
                }
                Err(error) => {
                    add(&self.shared.metrics.store_errors, 1);
                    tracing::warn!(%error, "a read cursor cannot be looked up");
                    away.insert(at);
                }
            }
        }
        let told = away.iter().map(|at| self.refused(&work[*at], &Refusal::UNAVAILABLE)).collect();
        let mut at = 0..;
        work.retain(|_| at.next().is_none_or(|at| !away.contains(&at)));
        told
    }

    /// The log cannot be read: its commands are answered RETRY, the others go on.
    pub(crate) fn give_up(&self, lane: &mut Lane, error: &StoreError) {
        add(&self.shared.metrics.damaged, 1);
        tracing::error!(log = %lane.log, %error, "a log cannot be read");
        lane.damaged = true;
    }
}
