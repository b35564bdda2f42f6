//! Commands that were settled a short while ago.
//!
//! In: ids of commands that were stored. Out: what became of a repeated one, or of one that another waits for. Always:
//! bounded; what is forgotten here is found by the store's unique key. An id is remembered when it is decided and forgotten
//! again if its append fails, so that a pipeline can be decided in one batch. Refusals are not remembered: their sender
//! may not have heard of them, and send again.

use crate::entry::ContentHash;
use im_proto::{ClientId, LogId, Ordinal, Seq, UserId};
use lru::LruCache;
use std::num::NonZeroUsize;

/// Names one command. Unique in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CommandKey {
    pub log: LogId,
    pub sender: UserId,
    pub client_id: ClientId,
}

/// What a stored command left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub seq: Seq,
    pub ordinal: Ordinal,
    pub server_time_ms: i64,
    pub content_hash: ContentHash,
}

pub(crate) struct CommandMemory {
    written: LruCache<CommandKey, Written>,
}

impl CommandMemory {
    /// Beyond `commands_max` those that were written longest ago are forgotten.
    pub fn new(commands_max: usize) -> Self {
        Self { written: LruCache::new(NonZeroUsize::new(commands_max).unwrap_or(NonZeroUsize::MIN)) }
    }

    pub fn written(&self, key: &CommandKey) -> Option<&Written> {
        self.written.peek(key)
    }

    pub fn remember_written(&mut self, key: CommandKey, written: Written) {
        self.written.put(key, written);
    }

    /// Its append did not come to pass.
    pub fn forget_written(&mut self, key: &CommandKey) {
        self.written.pop(key);
    }
}
