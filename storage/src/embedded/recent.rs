//! Entries that were stored lately, in memory until the sorted tables have them.
//!
//! In: what each commit stored. Out: the last entries of a log, and who wrote what. Always: holds exactly what lies in
//! table `pending` behind the last finished run; of a log, a suffix without a gap. Bounded by when a run begins, and by
//! each commit indexing more than it adds.

use bytes::Bytes;
use im_proto::{LogId, Seq};
use std::{collections::HashMap, sync::Arc};

/// An entry as its row will hold it.
#[derive(Debug, Clone)]
pub struct Fresh {
    pub log: LogId,
    pub seq: Seq,
    /// The hash of (log, sender, client id).
    pub client_key: [u8; 16],
    /// Of the entry's key and bytes.
    pub checksum: u32,
    /// A copy of its own, so that it pins no buffer of a caller.
    pub stored: Bytes,
}

/// Entries that will be indexed together.
#[derive(Default)]
pub struct Generation {
    logs: HashMap<LogId, Vec<Fresh>>,
    ids: HashMap<[u8; 16], Seq>,
    entries: usize,
    bytes: usize,
}

impl Generation {
    fn add(&mut self, fresh: Fresh) {
        self.entries += 1;
        self.bytes += fresh.stored.len();
        self.ids.insert(fresh.client_key, fresh.seq);
        self.logs.entry(fresh.log.clone()).or_default().push(fresh);
    }

    pub fn log(&self, log: &LogId) -> &[Fresh] {
        self.logs.get(log).map(Vec::as_slice).unwrap_or_default()
    }

    /// All logs, sorted as their keys are in the tables.
    pub fn sorted_logs(&self) -> Vec<LogId> {
        let mut logs: Vec<_> = self.logs.keys().cloned().collect();
        logs.sort_unstable();
        logs
    }

    /// All client ids, sorted likewise.
    pub fn sorted_ids(&self) -> Vec<([u8; 16], Seq)> {
        let mut ids: Vec<_> = self.ids.iter().map(|(client_key, seq)| (*client_key, *seq)).collect();
        ids.sort_unstable();
        ids
    }
}

/// What is being indexed, and what came since.
#[derive(Default)]
pub struct Recent {
    frozen: Option<Arc<Generation>>,
    live: Generation,
}

impl Recent {
    pub fn add(&mut self, fresh: Fresh) {
        self.live.add(fresh);
    }

    /// Sets aside all that came so far, to be indexed, if it is as much as `entries_max` or `bytes_max`.
    pub fn freeze(&mut self, entries_max: usize, bytes_max: usize) -> Option<Arc<Generation>> {
        if self.frozen.is_some() || (self.live.entries < entries_max && self.live.bytes < bytes_max) {
            return None;
        }
        self.frozen = Some(Arc::new(std::mem::take(&mut self.live)));
        self.frozen.clone()
    }

    /// The tables have what was set aside. The caller drops it, outside any lock.
    pub fn thaw(&mut self) -> Option<Arc<Generation>> {
        self.frozen.take()
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.frozen.as_deref().into_iter().chain([&self.live])
    }

    /// The entries of `log`, rising.
    pub fn log(&self, log: &LogId) -> impl DoubleEndedIterator<Item = &Fresh> {
        let frozen = self.frozen.as_deref().map(|frozen| frozen.log(log)).unwrap_or_default();
        frozen.iter().chain(self.live.log(log))
    }

    /// Every log with an entry here, some twice.
    pub fn logs(&self) -> impl Iterator<Item = &LogId> {
        self.generations().flat_map(|generation| generation.logs.keys())
    }

    pub fn head(&self, log: &LogId) -> Option<&Fresh> {
        self.log(log).next_back()
    }

    pub fn seq_of(&self, client_key: &[u8; 16]) -> Option<Seq> {
        self.generations().find_map(|generation| generation.ids.get(client_key).copied())
    }
}
