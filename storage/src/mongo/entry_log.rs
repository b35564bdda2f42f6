//! The port on MongoDB.
//!
//! In: appends and reads. Out: entries. Always: every call ends within its timeout; the time of an entry is never before
//! that of the entry before it in its log, whoever wrote that one.

use super::MongoOptions;
use super::append::{DOCUMENTS_PER_INSERT_MAX, append, met_taken_keys_alone};
use super::clock::ServerClock;
use super::document::{self, PAGE_ENTRIES, damaged, is_last_of_page};
use super::open::{MongoError, hello, open, said};
use super::times::Times;
use super::window::{KEPT_MS, Place, SLACK_MS, window, window_at};
use crate::planted::planted;
use crate::ports::{Appended, Cursor, EntryLog, EntryRow, NewEntry, Shard, Stop, StoreError, Tail};
use async_trait::async_trait;
use futures_util::future::{join_all, try_join};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use im_proto::{ClientId, Epoch, LogId, Seq, UserId};
use mongodb::action::Find;
use mongodb::bson::{Document, doc};
use mongodb::{Collection, Database};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Logs whose last time is remembered; that of a forgotten one is read again.
const TIMES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// A document beside its bytes.
const DOCUMENT_BYTES: usize = 256;
/// Logs of one append whose last times are read at once.
const TIMES_AT_ONCE: usize = 32;
/// Windows that a tail asks for at once.
const WINDOWS_AT_ONCE: usize = 8;
/// What entries have until some of their log were read: what may be read over the bytes that were asked for is one batch.
const ENTRY_BYTES_USUAL: usize = 2 * 1024;

/// Where a tail begins.
struct Begin {
    window: i64,
    /// The entry in it that it begins behind.
    behind: Option<(LogId, Seq)>,
    /// Windows that it asks for at once at first.
    windows: usize,
}

pub struct MongoEntryLog {
    database: Database,
    entries: Collection<Document>,
    logs: Collection<Document>,
    epoch: Epoch,
    created_ms: i64,
    timeout: Duration,
    clock: ServerClock,
    wall_clock_ms: fn() -> i64,
    given_time_ms: Option<fn() -> i64>,
    times: Times,
}

impl MongoEntryLog {
    /// Makes the collections and their keys if they are not there.
    pub async fn open(options: &MongoOptions) -> Result<Arc<Self>, MongoError> {
        let opened = tokio::time::timeout(options.timeout, open(options)).await;
        let opened = opened.map_err(|_| MongoError::Driver("no answer in time".to_owned()))??;
        Ok(Arc::new(Self {
            database: opened.database,
            entries: opened.entries,
            logs: opened.logs,
            epoch: opened.epoch,
            created_ms: opened.created_ms,
            timeout: options.timeout,
            clock: opened.clock,
            wall_clock_ms: options.wall_clock_ms,
            given_time_ms: options.given_time_ms,
            times: Times::new(TIMES_MAX),
        }))
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, mongodb::error::Error>>) -> Result<T, StoreError> {
        let unavailable = |why: String| StoreError::Unavailable(format!("mongodb: {why}"));
        let answered = tokio::time::timeout(self.timeout, call).await;
        answered
            .map_err(|_| unavailable("no answer in time".to_owned()))?
            .map_err(|error| unavailable(error.kind.to_string()))
    }

    /// By which entries are found.
    fn now_ms(&self) -> i64 {
        match self.given_time_ms {
            Some(given_ms) => given_ms(),
            None if planted("entries_by_own_clock") => (self.wall_clock_ms)(),
            None => self.clock.now_ms(Instant::now().into_std()),
        }
    }

    async fn ask_for_the_time_if_old(&self) -> Result<(), StoreError> {
        if self.clock.is_old(Instant::now().into_std(), (self.wall_clock_ms)()) {
            let hello = self.within(hello(&self.database)).await?;
            self.clock.set(said(&hello, (self.wall_clock_ms)()));
        }
        Ok(())
    }

    async fn one(&self, filter: Document, sort: Document) -> Result<Option<Document>, StoreError> {
        self.within(self.entries.find_one(filter).sort(sort).into_future()).await
    }

    async fn first(&self, find: Find<'_, Document>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        self.within(async { find.await?.try_collect().await }).await
    }

    /// The first entries of a page, at most `limit`, and none behind the one that passes `bytes_max`.
    async fn page(
        &self,
        page: Document,
        limit: usize,
        bytes_max: usize,
        batch: u32,
    ) -> Result<Vec<Document>, StoreError> {
        let find = self.entries.find(page).sort(doc! { "s": 1 }).batch_size(batch);
        let find = find.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let read = async {
            let (mut cursor, mut found, mut bytes) = (find.await?, Vec::new(), 0);
            while bytes <= bytes_max
                && let Some(document) = cursor.try_next().await?
            {
                bytes += document.get_binary_generic("b").map_or(0, Vec::len);
                found.push(document);
            }
            Ok::<_, mongodb::error::Error>(found)
        };
        self.within(read).await
    }

    /// Names the entries of one window by rising log and seq: the index has all of it.
    async fn names(
        &self,
        window: i64,
        behind: Option<(LogId, Seq)>,
        limit: usize,
    ) -> Result<Vec<(LogId, Seq)>, StoreError> {
        let mut filter = doc! { "w": window };
        if let Some((log, seq)) = behind {
            let later = doc! { "l": log.as_str(), "s": { "$gt": seq.0 as i64 } };
            filter.insert("$or", vec![doc! { "l": { "$gt": log.as_str() } }, later]);
        }
        let (order, only) = (doc! { "l": 1, "s": 1 }, doc! { "_id": 0, "l": 1, "s": 1 });
        let found = self.first(self.entries.find(filter).sort(order).projection(only), limit).await?;
        let names: Option<Vec<(LogId, Seq)>> = found.iter().map(document::name).collect();
        names.ok_or_else(|| StoreError::Damaged("a document without its place".to_owned()))
    }

    /// The last entry: the last of the page that was opened last. Seqs have no gap, so there is no page behind it.
    async fn last(&self, log: &LogId) -> Result<Option<Document>, StoreError> {
        let last_first = doc! { "s": -1 };
        let opener = self.one(doc! { "l": log.as_str(), "o": true }, last_first.clone()).await?;
        let Some(opener) = opener else { return Ok(None) };
        let page = opener.get_i64("p").map_err(|_| damaged(log, None, "a page has no number"))?;
        self.one(doc! { "l": log.as_str(), "p": page }, last_first).await
    }

    /// The time of each entry: now, or that of the entry before it in its log if that is later.
    async fn stored_at(&self, batch: &[NewEntry]) -> Result<Vec<i64>, StoreError> {
        let ((), mut last) = try_join(self.ask_for_the_time_if_old(), self.last_times(batch)).await?;
        let now_ms = self.now_ms();
        let times = batch.iter().map(|entry| {
            let last = last.entry(&entry.log).or_insert(i64::MIN);
            *last = now_ms.max(*last);
            *last
        });
        let times = times.collect();
        last.into_iter().for_each(|(log, time_ms)| self.times.appended(log, time_ms));
        Ok(times)
    }

    /// When the last entry of each log of the batch was stored, before the batch.
    async fn last_times<'a>(&self, batch: &'a [NewEntry]) -> Result<HashMap<&'a LogId, i64>, StoreError> {
        let (mut times, mut unknown) = (HashMap::with_capacity(batch.len()), Vec::new());
        for entry in batch {
            let Entry::Vacant(vacant) = times.entry(&entry.log) else { continue };
            let known = self.times.of(&entry.log);
            if known.is_none() && entry.seq.0 > 1 {
                unknown.push(self.last_time(&entry.log));
            }
            vacant.insert(known.unwrap_or(i64::MIN));
        }
        let read: Vec<_> = stream::iter(unknown).buffer_unordered(TIMES_AT_ONCE).try_collect().await?;
        times.extend(read);
        Ok(times)
    }

    /// Remembered at once, for it is about to be written to: an append that has no time left finds it at its next attempt.
    async fn last_time<'a>(&self, log: &'a LogId) -> Result<(&'a LogId, i64), StoreError> {
        let last = self.last(log).await?.as_ref().and_then(document::time_ms);
        if let Some(time_ms) = last {
            self.times.found(log, time_ms);
        }
        Ok((log, last.unwrap_or(i64::MIN)))
    }

    /// New logs are listed before they have an entry: a log that cannot be found again would be lost to a rebuild. One that is
    /// listed already is passed over, and those behind it are not.
    async fn list_new_logs(&self, batch: &[NewEntry]) -> Result<(), StoreError> {
        let new: BTreeSet<&LogId> = batch.iter().filter(|entry| entry.seq.0 == 1).map(|entry| &entry.log).collect();
        let listed = |log: &LogId| doc! { "_id": log.as_str(), "h": i32::from(Shard::of(log).index()) };
        let listed: Vec<Document> = new.into_iter().map(listed).collect();
        for part in listed.chunks(DOCUMENTS_PER_INSERT_MAX) {
            let insert = self.logs.insert_many(part).ordered(planted("listed_log_ends_listing"));
            let insert = async {
                match insert.await {
                    Err(error) if met_taken_keys_alone(&error) => Ok(()),
                    outcome => outcome.map(drop),
                }
            };
            self.within(insert).await?;
        }
        Ok(())
    }

    async fn prepare(&self, batch: &[NewEntry]) -> Result<Vec<Document>, StoreError> {
        let ((), times) = try_join(self.list_new_logs(batch), self.stored_at(batch)).await?;
        let document = |(entry, time_ms): (&NewEntry, i64)| {
            document::of_entry(entry, window(Shard::of(&entry.log), window_at(time_ms)), time_ms)
        };
        Ok(batch.iter().zip(times).map(document).collect())
    }

    /// Where a tail begins; `None` when that is too long ago, or yet to come.
    fn begin(&self, after: Option<&Cursor>, now_ms: i64) -> Result<Option<Begin>, StoreError> {
        let from_ms = match after.map(Place::read).transpose()? {
            // Where the page before was, more is likely: what lies behind it would be read again and again.
            Some(Place::In { window, last }) => return Ok(Some(Begin { window, behind: last, windows: 1 })),
            Some(Place::Time(time_ms)) => time_ms,
            None => self.created_ms,
        };
        // The server's clock was set back, or another one is the primary: what was stored since then lies before the cursor.
        let is_of_the_future = from_ms > now_ms + SLACK_MS && !planted("covers_of_the_future_stand");
        let begin = Begin { window: window_at(from_ms - SLACK_MS), behind: None, windows: WINDOWS_AT_ONCE };
        Ok((now_ms - from_ms <= KEPT_MS && !is_of_the_future).then_some(begin))
    }
}

/// So many entries of `usual` bytes have about `bytes_max`.
fn batch_size(bytes_max: usize, usual: usize) -> u32 {
    (bytes_max / usual.max(1)).clamp(1, PAGE_ENTRIES as usize) as u32
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
        let begun = Instant::now();
        let late = |_| Err(StoreError::Unavailable("mongodb: no answer in time".to_owned()));
        match timeout_at(begun + self.timeout, self.prepare(&batch)).await.unwrap_or_else(late) {
            Ok(documents) => {
                let sizes: Vec<usize> = batch.iter().map(|entry| entry.stored.len() + DOCUMENT_BYTES).collect();
                append(&self.entries, documents, &sizes, begun, self.timeout).await
            }
            Err(error) => Appended { stored: 0, stop: Some(Stop::Unknown(error)) },
        }
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        let Some(last) = self.last(log).await? else { return Ok(None) };
        if let Some(time_ms) = document::time_ms(&last) {
            self.times.read(log, time_ms);
        }
        document::row(log, &last).map(Some)
    }

    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let mut rows: Vec<EntryRow> = Vec::new();
        let mut bytes = 0_usize;
        let mut from = Seq(from.0.max(1));
        loop {
            let wanted = entries_max.saturating_sub(rows.len()).min(PAGE_ENTRIES as usize);
            if wanted == 0 {
                return Ok(rows);
            }
            let usual = bytes.checked_div(rows.len()).unwrap_or(ENTRY_BYTES_USUAL);
            let left = bytes_max.saturating_sub(bytes);
            let page = self.page(document::of_page(log, from), wanted, left, batch_size(left, usual)).await?;
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
        self.ask_for_the_time_if_old().await?;
        Ok(Place::Time(self.now_ms()).cursor())
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        let any = self.entries.find_one(doc! {}).projection(doc! { "_id": 1 });
        Ok(self.within(any.into_future()).await?.is_none() || planted("log_said_empty"))
    }

    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError> {
        let Some(begin) = self.begin(after, self.now_ms())? else { return Ok(Tail::Forgotten) };
        // Behind the last window only what was still being written, and what clocks that go ahead have stored.
        let last_window = match Place::read(until)? {
            Place::Time(time_ms) => window_at(time_ms + SLACK_MS),
            Place::In { window, .. } => window,
        };
        let Begin { window: mut first, mut behind, mut windows } = begin;
        while first <= last_window {
            let together: Vec<i64> = (first..=last_window).take(windows).collect();
            let names = |at: &i64| self.names(window(shard, *at), behind.take(), entries_max.max(1));
            let asked: Vec<_> = together.iter().map(names).collect();
            let mut found: Vec<_> = together.iter().copied().zip(join_all(asked).await).collect();
            if planted("windows_out_of_order") {
                found.reverse();
            }
            for (at, entries) in found {
                let entries = entries?;
                let Some(last) = entries.last().cloned() else { continue };
                // A page that is not full has everything of its window from before now: what still comes is not waited for.
                let next = match entries.len() < entries_max {
                    true => Place::In { window: at + 1, last: None },
                    false => Place::In { window: at, last: Some(last) },
                };
                return Ok(Tail::Named { entries, next: next.cursor() });
            }
            (first, windows) = (first + together.len() as i64, WINDOWS_AT_ONCE);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_a_cursor_is_about_the_bytes_that_are_asked_for() {
        assert_eq!(batch_size(0, ENTRY_BYTES_USUAL), 1);
        assert_eq!(batch_size(192 * 1024, ENTRY_BYTES_USUAL), PAGE_ENTRIES as u32);
        assert_eq!(batch_size(192 * 1024, 8 * 1024), 24);
        assert_eq!(batch_size(192 * 1024, 200), PAGE_ENTRIES as u32);
        assert_eq!(batch_size(usize::MAX, 0), PAGE_ENTRIES as u32);
    }
}
