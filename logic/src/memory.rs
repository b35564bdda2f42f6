//! Commands that were settled a short while ago.
//!
//! In: ids of commands that were decided, stored or refused. Out: what became of a repeated one, and whether a send that
//! another waits for is settled. Always: bounded; what is forgotten here is found by the store's unique key. An id is
//! remembered when it is decided and forgotten again if its append fails, so that a pipeline can be decided in one batch.

use crate::entry::ContentHash;
use im_proto::{ClientId, LogId, Ordinal, Seq, UserId};
use lru::LruCache;
use std::num::NonZeroUsize;

/// Ids remembered per worker. Beyond it the ones used longest ago are forgotten. Far above the largest batch.
const WRITTEN_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Refused ids remembered per worker.
const REFUSED_MAX: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();

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
    refused: LruCache<CommandKey, ()>,
}

impl CommandMemory {
    pub fn new() -> Self {
        Self { written: LruCache::new(WRITTEN_MAX), refused: LruCache::new(REFUSED_MAX) }
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

    /// Refused for good: a send that names it as `after` need not wait.
    pub fn remember_refused(&mut self, key: CommandKey) {
        self.refused.put(key, ());
    }

    /// It is decided again.
    pub fn forget_refused(&mut self, key: &CommandKey) {
        self.refused.pop(key);
    }

    pub fn is_settled(&self, key: &CommandKey) -> bool {
        self.written.contains(key) || self.refused.contains(key)
    }
}
