//! An entry log that does what another owner or a bad network would do.
//!
//! In: the calls of a worker, and faults by turn. Out: the inner log's answers, or a fault. Always: what is stored is
//! stored by the inner log, under its own rules.

use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{ClientId, Epoch, LogId, Seq, UserId, client, internal};
use im_storage::ports::*;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Barrier;

/// What happens to one call of `append`.
pub enum Fault {
    /// Another owner writes the place of entry `at` first.
    Zombie { at: usize },
    /// Another owner has already stored the entries of the batch up to `to`, each as it is.
    WrittenBefore { to: usize },
    /// The first `landed` are stored, `told` of them are reported, and the rest is not known.
    Unknown { told: usize, landed: usize },
    /// Nothing is known; the entries land when somebody reads.
    LandsLater,
}

pub struct FaultyLog {
    pub inner: Arc<dyn EntryLog>,
    pub faults: Mutex<VecDeque<Fault>>,
    /// Entries on their way.
    late: Mutex<Vec<NewEntry>>,
    /// Calls of `head`, `range` and `find` that fail before one succeeds.
    pub reads_failing: AtomicU64,
    /// Answers of `head` that are older than the question by now, given before true ones.
    pub stale_heads: Mutex<VecDeque<EntryRow>>,
    /// A log that no longer reads as it was written.
    pub damaged: Mutex<Option<LogId>>,
    /// A log whose reads get no answer.
    pub away: Mutex<Option<LogId>>,
    /// Calls of `find`.
    pub look_ups: AtomicU64,
    /// Calls of `find` get no answer before as many are under way.
    pub look_ups_together: Mutex<Option<Arc<Barrier>>>,
    /// Entries that `range` gave.
    pub ranged: AtomicU64,
    /// Calls of `range`, likewise.
    pub ranges_together: Mutex<Option<Arc<Barrier>>>,
    /// Entries of each append that was asked for.
    pub asked: Mutex<Vec<Vec<(LogId, Seq, ClientId)>>>,
}

impl FaultyLog {
    pub fn over(inner: Arc<dyn EntryLog>) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            late: Mutex::default(),
            reads_failing: AtomicU64::new(0),
            stale_heads: Mutex::default(),
            damaged: Mutex::default(),
            away: Mutex::default(),
            look_ups: AtomicU64::new(0),
            look_ups_together: Mutex::default(),
            ranged: AtomicU64::new(0),
            ranges_together: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    pub fn fail(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    fn read(&self, log: &LogId) -> Result<(), StoreError> {
        if self.damaged.lock().unwrap().as_ref() == Some(log) {
            return Err(StoreError::Damaged("a planted fault".into()));
        }
        if self.away.lock().unwrap().as_ref() == Some(log) {
            return Err(StoreError::Unavailable("a planted fault".into()));
        }
        let failing = self.reads_failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(StoreError::Unavailable("a planted fault".into())) } else { Ok(()) }
    }

    async fn land(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        if !late.is_empty() {
            self.inner.append(late).await;
        }
    }
}

async fn together(calls: &Mutex<Option<Arc<Barrier>>>) {
    let barrier = calls.lock().unwrap().clone();
    if let Some(barrier) = barrier {
        barrier.wait().await;
    }
}

/// The entry that another owner would write at the same place.
fn zombie(entry: &NewEntry) -> NewEntry {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let client_id = format!("zombie-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut stored = internal::StoredEntry::decode(entry.stored.clone()).unwrap();
    let mut inner = client::Entry::decode(stored.entry.clone()).unwrap();
    inner.client_id = client_id.clone();
    stored.entry = inner.encode_to_vec().into();
    stored.content_hash = Bytes::from_static(&[1; 16]);
    // Of a record that came another way.
    stored.offset_after = 0;
    NewEntry { client_id: ClientId::parse(&client_id).unwrap(), stored: stored.encode_to_vec().into(), ..entry.clone() }
}

#[async_trait]
impl EntryLog for FaultyLog {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    async fn append(&self, batch: Vec<NewEntry>) -> Appended {
        let asked = batch.iter().map(|entry| (entry.log.clone(), entry.seq, entry.client_id.clone())).collect();
        self.asked.lock().unwrap().push(asked);
        self.land().await;
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Zombie { at }) if at < batch.len() => {
                let target = &batch[at];
                // A place is only written behind the one before it.
                let before = batch[..at].iter().filter(|entry| entry.log == target.log).map(zombie);
                self.inner.append(before.chain([zombie(target)]).collect()).await;
            }
            Some(Fault::WrittenBefore { to }) => {
                self.inner.append(batch[..to].to_vec()).await;
            }
            Some(Fault::Unknown { told, landed }) => {
                let appended = self.inner.append(batch[..landed.min(batch.len())].to_vec()).await;
                let stop = Some(Stop::Unknown(StoreError::Unavailable("a planted fault".into())));
                return Appended { stored: told.min(appended.stored), stop };
            }
            Some(Fault::LandsLater) => {
                *self.late.lock().unwrap() = batch;
                let stop = Some(Stop::Unknown(StoreError::Unavailable("a planted fault".into())));
                return Appended { stored: 0, stop };
            }
            Some(Fault::Zombie { .. }) | None => {}
        }
        self.inner.append(batch).await
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.read(log)?;
        let stale = self.stale_heads.lock().unwrap().pop_front();
        if stale.is_some() { Ok(stale) } else { self.inner.head(log).await }
    }

    async fn range(&self, log: &LogId, from: Seq, entries: usize, bytes: usize) -> Result<Vec<EntryRow>, StoreError> {
        self.read(log)?;
        together(&self.ranges_together).await;
        let rows = self.inner.range(log, from, entries, bytes).await?;
        self.ranged.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(rows)
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        self.read(log)?;
        self.look_ups.fetch_add(1, Ordering::Relaxed);
        together(&self.look_ups_together).await;
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
