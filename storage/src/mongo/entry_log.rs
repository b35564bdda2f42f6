//! The port on MongoDB.
//!
//! In: appends and reads. Out: entries. Always: every call ends within its timeout; the time of an entry is never before
//! that of the entry before it in its log, whoever wrote that one.

use super::MongoOptions;
use super::append::{append, is_duplicate};
use super::document::{self, PAGE_ENTRIES, damaged, is_last_of_page, page_of};
use super::open::{MongoError, open};
use super::window::{KEPT_MS, Place, SLACK_MS, window, window_at};
use crate::ports::{Appended, Cursor, EntryLog, EntryRow, NewEntry, Shard, Stop, StoreError, Tail};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use im_proto::{ClientId, Epoch, LogId, Seq, UserId};
use lru::LruCache;
use mongodb::Collection;
use mongodb::action::Find;
use mongodb::bson::{Document, doc};
use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Logs whose last time is remembered; that of a forgotten one is read again.
const TIMES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// A document beside its bytes.
const DOCUMENT_BYTES: usize = 256;

/// The window a tail begins with, and the entry in it that it begins behind.
type Begin = (i64, Option<(LogId, Seq)>);

pub struct MongoEntryLog {
    entries: Collection<Document>,
    logs: Collection<Document>,
    epoch: Epoch,
    created_ms: i64,
    timeout: Duration,
    /// When the last entry of a log was stored.
    times: Mutex<LruCache<LogId, i64>>,
}

impl MongoEntryLog {
    /// Makes the collections and their keys if they are not there.
    pub async fn open(options: &MongoOptions) -> Result<Arc<Self>, MongoError> {
        let opened = tokio::time::timeout(options.timeout, open(options, now_ms())).await;
        let opened = opened.map_err(|_| MongoError::Driver("no answer in time".to_owned()))??;
        Ok(Arc::new(Self {
            entries: opened.entries,
            logs: opened.logs,
            epoch: opened.epoch,
            created_ms: opened.created_ms,
            timeout: options.timeout,
            times: Mutex::new(LruCache::new(TIMES_MAX)),
        }))
    }

    fn times(&self) -> MutexGuard<'_, LruCache<LogId, i64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, mongodb::error::Error>>) -> Result<T, StoreError> {
        let unavailable = |why: String| StoreError::Unavailable(format!("mongodb: {why}"));
        let answered = tokio::time::timeout(self.timeout, call).await;
        answered
            .map_err(|_| unavailable("no answer in time".to_owned()))?
            .map_err(|error| unavailable(error.kind.to_string()))
    }

    async fn one(&self, filter: Document, sort: Document) -> Result<Option<Document>, StoreError> {
        self.within(self.entries.find_one(filter).sort(sort).into_future()).await
    }

    async fn many(&self, filter: Document, sort: Document, limit: usize) -> Result<Vec<Document>, StoreError> {
        self.first(self.entries.find(filter).sort(sort), limit).await
    }

    async fn first(&self, find: Find<'_, Document>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        self.within(async { find.await?.try_collect().await }).await
    }

    /// Logs and seqs alone, by rising log and seq: of one window the index has all of it.
    async fn names(&self, filter: Document, limit: usize) -> Result<Vec<Document>, StoreError> {
        let (order, only) = (doc! { "l": 1, "s": 1 }, doc! { "_id": 0, "l": 1, "s": 1 });
        self.first(self.entries.find(filter).sort(order).projection(only), limit).await
    }

    /// The last entry: the last of the page that was opened last. Seqs have no gap, so there is no page behind it.
    async fn last(&self, log: &LogId) -> Result<Option<Document>, StoreError> {
        let last_first = doc! { "s": -1 };
        let opener = self.one(doc! { "l": log.as_str(), "o": true }, last_first.clone()).await?;
        let Some(opener) = opener else { return Ok(None) };
        let page = opener.get_i64("p").map_err(|_| damaged(log, None, "a page has no number"))?;
        let last = self.one(doc! { "l": log.as_str(), "p": page }, last_first).await?;
        if let Some(time_ms) = last.as_ref().and_then(document::time_ms) {
            self.times().put(log.clone(), time_ms);
        }
        Ok(last)
    }

    /// The time of each entry: now, or that of the entry before it in its log if that is later.
    async fn stored_at(&self, batch: &[NewEntry]) -> Result<Vec<i64>, StoreError> {
        let now_ms = now_ms();
        let mut times = Vec::with_capacity(batch.len());
        for entry in batch {
            let known = self.times().get(&entry.log).copied();
            let before = match known {
                Some(known) => known,
                None if entry.seq.0 <= 1 => i64::MIN,
                None => self.last(&entry.log).await?.as_ref().and_then(document::time_ms).unwrap_or(i64::MIN),
            };
            let time_ms = now_ms.max(before);
            self.times().put(entry.log.clone(), time_ms);
            times.push(time_ms);
        }
        Ok(times)
    }

    /// New logs are listed before they have an entry: a log that cannot be found again would be lost to a rebuild.
    async fn list_new_logs(&self, batch: &[NewEntry]) -> Result<(), StoreError> {
        let new: BTreeSet<&LogId> = batch.iter().filter(|entry| entry.seq.0 == 1).map(|entry| &entry.log).collect();
        for log in new {
            let listed = doc! { "$set": { "h": i32::from(Shard::of(log).index()) } };
            let upsert = self.logs.update_one(doc! { "_id": log.as_str() }, listed).upsert(true);
            let upsert = async {
                match upsert.await {
                    // Another one listed it at the same moment.
                    Err(error) if is_duplicate(&error) => Ok(()),
                    outcome => outcome.map(drop),
                }
            };
            self.within(upsert).await?;
        }
        Ok(())
    }

    async fn prepare(&self, batch: &[NewEntry]) -> Result<Vec<Document>, StoreError> {
        self.list_new_logs(batch).await?;
        let times = self.stored_at(batch).await?;
        let document = |(entry, time_ms): (&NewEntry, i64)| {
            document::of_entry(entry, window(Shard::of(&entry.log), window_at(time_ms)), time_ms)
        };
        Ok(batch.iter().zip(times).map(document).collect())
    }

    /// Where a tail begins; `None` when that is too long ago.
    fn begin(&self, after: Option<&Cursor>, now_ms: i64) -> Result<Option<Begin>, StoreError> {
        let from_ms = match after.map(Place::read).transpose()? {
            Some(Place::In { window, last }) => return Ok(Some((window, last))),
            Some(Place::Time(time_ms)) => time_ms,
            None => self.created_ms,
        };
        Ok((now_ms - from_ms <= KEPT_MS).then(|| (window_at(from_ms - SLACK_MS), None)))
    }
}

#[async_trait]
impl EntryLog for MongoEntryLog {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn append(&self, batch: Vec<NewEntry>) -> Appended {
        if batch.is_empty() {
            return Appended { stored: 0, stop: None };
        }
        match self.prepare(&batch).await {
            Ok(documents) => {
                let sizes: Vec<usize> = batch.iter().map(|entry| entry.stored.len() + DOCUMENT_BYTES).collect();
                append(&self.entries, documents, &sizes, self.timeout).await
            }
            Err(error) => Appended { stored: 0, stop: Some(Stop::Unknown(error)) },
        }
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.last(log).await?.map(|last| document::row(log, &last)).transpose()
    }

    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let mut rows: Vec<EntryRow> = Vec::new();
        let mut bytes = 0;
        let mut from = Seq(from.0.max(1));
        loop {
            let wanted = entries_max.saturating_sub(rows.len()).min(PAGE_ENTRIES as usize);
            if wanted == 0 {
                return Ok(rows);
            }
            let filter = doc! { "l": log.as_str(), "p": page_of(from), "s": { "$gte": from.0 as i64 } };
            let page = self.many(filter, doc! { "s": 1 }, wanted).await?;
            for found in &page {
                let row = document::row(log, found)?;
                bytes += row.stored.len();
                if bytes > bytes_max && !rows.is_empty() {
                    return Ok(rows);
                }
                from = row.seq.next();
                rows.push(row);
            }
            // A page that has no more was the last one, unless it ended at its end.
            if page.is_empty() || !rows.last().is_some_and(|row| is_last_of_page(row.seq)) {
                return Ok(rows);
            }
        }
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        let filter = doc! { "l": log.as_str(), "u": sender.as_str(), "i": client_id.as_str() };
        self.one(filter, doc! {}).await?.map(|found| document::row(log, &found)).transpose()
    }

    async fn end(&self) -> Result<Cursor, StoreError> {
        Ok(Place::Time(now_ms()).cursor())
    }

    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError> {
        let Some((first, mut last)) = self.begin(after, now_ms())? else { return Ok(Tail::Forgotten) };
        // Behind the last window only what was still being written, and what clocks that go ahead have stored.
        let last_window = match Place::read(until)? {
            Place::Time(time_ms) => window_at(time_ms + SLACK_MS),
            Place::In { window, .. } => window,
        };
        for at in first..=last_window {
            let mut filter = doc! { "w": window(shard, at) };
            if let Some((log, seq)) = last.take() {
                let behind = doc! { "l": log.as_str(), "s": { "$gt": seq.0 as i64 } };
                filter.insert("$or", vec![doc! { "l": { "$gt": log.as_str() } }, behind]);
            }
            let found = self.names(filter, entries_max.max(1)).await?;
            let entries: Option<Vec<(LogId, Seq)>> = found.iter().map(document::name).collect();
            let entries = entries.ok_or_else(|| StoreError::Damaged("a document without its place".to_owned()))?;
            let Some(last) = entries.last().cloned() else { continue };
            // A page that is not full has everything of its window from before now: what still comes is not waited for.
            let next = match entries.len() < entries_max {
                true => Place::In { window: at + 1, last: None },
                false => Place::In { window: at, last: Some(last) },
            };
            return Ok(Tail::Named { entries, next: next.cursor() });
        }
        Ok(Tail::Named { entries: Vec::new(), next: until.clone() })
    }

    async fn logs(&self, shard: Shard, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, StoreError> {
        let mut filter = doc! { "h": i32::from(shard.index()) };
        if let Some(after) = after {
            filter.insert("_id", doc! { "$gt": after.as_str() });
        }
        let found = self.first(self.logs.find(filter).sort(doc! { "_id": 1 }), limit).await?;
        let id = |found: &Document| LogId::parse(found.get_str("_id").ok()?).ok();
        let logs: Option<Vec<LogId>> = found.iter().map(id).collect();
        logs.ok_or_else(|| StoreError::Damaged("a listed log has no id".to_owned()))
    }

    /// The order is part of the entries and costs nothing more.
    async fn release(&self, _: &[Shard], _: &Cursor) -> Result<(), StoreError> {
        Ok(())
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
