//! A store that fails in the middle of an append.
//!
//! In: an entry log, and behind how many entries its next append is cut. Out: the same log. Always: what an append stores is a
//! prefix of it, and one that was cut says that it does not know.

use crate::ports::*;
use async_trait::async_trait;
use im_proto::{ClientId, Epoch, LogId, Seq, UserId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An entry log whose next append stores only so many entries and then answers that it does not know: what a store that
/// fails in the middle of an ordered batch leaves behind.
pub struct CutAppends<P: ?Sized> {
    inner: Arc<P>,
    /// Entries the next append stores; `u64::MAX`: all, and no cut.
    keep: AtomicU64,
}

impl<P: ?Sized> CutAppends<P> {
    pub fn new(inner: Arc<P>) -> Arc<Self> {
        Arc::new(Self { inner, keep: AtomicU64::new(u64::MAX) })
    }

    /// The next append is cut behind `keep` entries, if it has more.
    pub fn cut_next(&self, keep: usize) {
        self.keep.store(keep as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl<P: EntryLog + ?Sized> EntryLog for CutAppends<P> {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    async fn append(&self, mut batch: Vec<NewEntry>) -> Appended {
        let keep = self.keep.swap(u64::MAX, Ordering::SeqCst) as usize;
        let cut = keep < batch.len();
        batch.truncate(keep);
        let mut appended = self.inner.append(batch).await;
        if cut && appended.stop.is_none() {
            // Reported as unknown from the front on: the answer was lost with the connection.
            appended = Appended { stored: 0, stop: Some(Stop::Unknown(StoreError::Unavailable("cut".to_owned()))) };
        }
        appended
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.inner.head(log).await
    }

    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError> {
        self.inner.range(log, from, entries_max, bytes_max).await
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        self.inner.find(log, sender, client_id).await
    }

    async fn end(&self) -> Result<Cursor, StoreError> {
        self.inner.end().await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.inner.is_empty().await
    }

    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError> {
        self.inner.tail(shard, after, until, entries_max).await
    }

    async fn logs(&self, shard: Shard, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, StoreError> {
        self.inner.logs(shard, after, limit).await
    }

    async fn release(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError> {
        self.inner.release(shards, cursor).await
    }
}
