//! Step 5, second half: everything a batch needs, brought into memory before anything is decided.
//!
//! In: the logs and commands of a batch. Out: a lane for each log, and for moved read cursors what their conversation
//! knows. Always: loads run side by side, a bounded number at once; a store that is away makes the batch wait; a damaged
//! log turns away its own commands only.

pub(crate) mod load;
mod read_target;

use crate::admit::Work;
use crate::log_state::{Lane, LogState};
use crate::metrics::add;
use crate::worker::{Stopped, Worker};
use futures_util::StreamExt as _;
use futures_util::stream;
use im_proto::LogId;
use im_proto::client::client_frame::Command;
use im_storage::ports::StoreError;

/// Calls to stores under way at once for one batch.
pub(crate) const LOADS_AT_ONCE_MAX: usize = 64;

impl Worker {
    /// Takes the known logs out of the cache and loads the others.
    pub(crate) async fn prefetch_logs(&mut self, logs: Vec<LogId>) -> Result<Vec<Lane>, Stopped> {
        let mut lanes: Vec<Lane> = Vec::with_capacity(logs.len());
        let mut cold = Vec::new();
        for (at, log) in logs.into_iter().enumerate() {
            let state = self.logs.pop(&log);
            if state.is_none() {
                cold.push(at);
            }
            lanes.push(Lane::new(log, state.unwrap_or_default()));
        }
        let mut patience = self.patience("load a log");
        while !cold.is_empty() {
            let loads = std::mem::take(&mut cold).into_iter().map(|at| {
                let (ports, log) = (self.shared.ports.clone(), lanes[at].log.clone());
                async move { (at, load::load(&ports, &log).await) }
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

    /// Looks up what the moved read cursors of the batch point at.
    pub(crate) async fn prefetch_reads(&mut self, work: &mut [Work]) -> Result<(), Stopped> {
        let mut patience = self.patience("look up a read cursor");
        loop {
            let missing: Vec<_> = work
                .iter()
                .enumerate()
                .filter_map(|(at, work)| match (&work.command, &work.read) {
                    (Command::MarkRead(mark), None) => Some((at, work.sender.clone(), mark.clone())),
                    _ => None,
                })
                .map(|(at, user, mark)| {
                    let ports = self.shared.ports.clone();
                    async move { (at, read_target::look_up(&ports, &user, &mark).await) }
                })
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let mut found = stream::iter(missing).buffer_unordered(LOADS_AT_ONCE_MAX);
            let mut away = None;
            while let Some((at, outcome)) = found.next().await {
                match outcome {
                    Ok(target) => work[at].read = Some(target),
                    Err(error @ StoreError::Damaged(_)) => {
                        add(&self.shared.metrics.damaged, 1);
                        tracing::error!(%error, "a read cursor points at damaged data");
                        work[at].read = Some(Default::default());
                    }
                    Err(error) => away = Some(error),
                }
            }
            if let Some(error) = away {
                patience.wait(&error).await?;
            }
        }
    }

    /// The log cannot be read: its commands are answered RETRY, the others go on.
    pub(crate) fn give_up(&self, lane: &mut Lane, error: &StoreError) {
        add(&self.shared.metrics.damaged, 1);
        tracing::error!(log = %lane.log, %error, "a log cannot be read");
        lane.damaged = true;
    }
}
