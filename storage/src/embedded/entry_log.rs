//! The entry log on the embedded store.
//!
//! In: entries with chosen seqs. Out: the same bytes, for ever. Always: an append is part of one transaction, so what is
//! stored of it is a prefix; both unique keys are looked at in the transaction that writes; an entry's checksum covers
//! its key and is verified at every read. An entry is read from memory until the sorted tables have it (see `index`).

use super::{
    engine::Engine,
    journal,
    recent::Fresh,
    tables::{self, Place, Tables, open_to_read, store_error},
    writer::{Memory, Sync, WriteError, Writer},
};
use crate::{
    planted::planted,
    ports::{Appended, Cursor, EntryLog, EntryRow, NewEntry, Shard, Stop, StoreError, Tail},
};
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{ClientId, Epoch, LogId, Seq, UserId};
use redb::ReadableTable;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{collections::BTreeSet, hash::Hasher, sync::Arc};

/// The checksum stands before the entry's bytes.
pub const CHECKSUM_BYTES: usize = 4;

pub struct EmbeddedEntryLog {
    engine: Arc<Engine>,
    writer: Writer,
    epoch: Epoch,
    hash_key: [u8; 16],
}

impl EmbeddedEntryLog {
    pub fn new(engine: Arc<Engine>, writer: Writer, epoch: Epoch, hash_key: [u8; 16]) -> Self {
        Self { engine, writer, epoch, hash_key }
    }
}

#[async_trait]
impl EntryLog for EmbeddedEntryLog {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn append(&self, batch: Vec<NewEntry>) -> Appended {
        if batch.is_empty() {
            return Appended { stored: 0, stop: None };
        }
        let rows: Vec<_> = batch.into_iter().map(|entry| Fresh::new(entry, &self.hash_key)).collect();
        let appended = self.writer.write(Sync::Durable, rows.len(), move |tables, memory| {
            let mut stored = 0;
            for row in &rows {
                match row.put(tables, memory)? {
                    Put::Stored => stored += 1,
                    Put::Taken => return Ok((stored, Some(Stop::Taken))),
                    Put::Gap { head } => {
                        let what = format!("log {} ends at {head}, refused to store {}", row.log, row.seq);
                        return Ok((stored, Some(Stop::Unknown(StoreError::Damaged(what)))));
                    }
                }
            }
            Ok((stored, None))
        });
        match appended.await {
            Ok((stored, stop)) => Appended { stored, stop },
            Err(error) => Appended { stored: 0, stop: Some(Stop::Unknown(error)) },
        }
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.engine.health.check()?;
        let txn = {
            let recent = self.engine.recent();
            if let Some(fresh) = recent.head(log) {
                return Ok(Some(fresh.row()?));
            }
            self.engine.read()?
        };
        let Some(entries) = open_to_read(&txn, Place::Entries).map_err(store_error)? else { return Ok(None) };
        let (start, end) = (tables::prefix(log.as_str()), tables::prefix_end(log.as_str()));
        let mut range = entries.range(start.as_slice()..end.as_slice()).map_err(engine)?;
        let Some((key, row)) = range.next_back().transpose().map_err(engine)? else { return Ok(None) };
        let seq = seq_of_key(key.value())?;
        Ok(Some(EntryRow { seq, stored: verified(key.value(), row.value())? }))
    }

    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let mut page = Page { rows: Vec::new(), next: from.max(Seq(1)), entries_max, bytes: 0, bytes_max };
        let (fresh, txn) = {
            let recent = self.engine.recent();
            let fresh = recent.log(log).skip_while(|fresh| fresh.seq < page.next).take(entries_max);
            (fresh.cloned().collect::<Vec<_>>(), self.engine.read()?)
        };
        let end = match fresh.first() {
            Some(first) => tables::numbered(log.as_str(), first.seq.0),
            None => tables::prefix_end(log.as_str()),
        };
        let start = tables::numbered(log.as_str(), page.next.0);
        if start < end
            && let Some(entries) = open_to_read(&txn, Place::Entries).map_err(store_error)?
        {
            for row in entries.range(start.as_slice()..end.as_slice()).map_err(engine)? {
                let (key, row) = row.map_err(engine)?;
                let row = EntryRow { seq: seq_of_key(key.value())?, stored: verified(key.value(), row.value())? };
                if !page.takes(log, row)? {
                    return Ok(page.rows);
                }
            }
        }
        for fresh in fresh {
            if !page.takes(log, fresh.row()?)? {
                break;
            }
        }
        Ok(page.rows)
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        self.engine.health.check()?;
        let client_key = client_key(&self.hash_key, log, sender, client_id);
        let txn = {
            let recent = self.engine.recent();
            if let Some(seq) = recent.seq_of(&client_key) {
                let fresh = recent.log(log).find(|fresh| fresh.seq == seq);
                return fresh.map(Fresh::row).transpose();
            }
            self.engine.read()?
        };
        let row = tables::read_row(&txn, Place::ClientIds, &client_key).map_err(store_error)?;
        let Some(row) = row else { return Ok(None) };
        let seq = seq_of_client_row(&client_key, &row)
            .ok_or_else(|| StoreError::Damaged(format!("the client id's row of an entry of log {log}")))?;
        let key = tables::numbered(log.as_str(), seq.0);
        let Some(row) = tables::read_row(&txn, Place::Entries, &key).map_err(store_error)? else {
            return Err(StoreError::Damaged(format!("log {log} lacks entry {seq}")));
        };
        Ok(Some(EntryRow { seq, stored: verified(&key, &row)? }))
    }

    async fn end(&self) -> Result<Cursor, StoreError> {
        self.engine.health.check()?;
        Ok(journal::cursor(self.engine.journal_end()))
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.engine.health.check()?;
        Ok(self.engine.journal_end() == 0 || planted("log_said_empty"))
    }

    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError> {
        let from = after.map(journal::position).transpose()?.unwrap_or(0);
        // Before the snapshot, so that the snapshot has all of it.
        let end = self.engine.journal_end().min(journal::position(until)?);
        self.engine.health.check()?;
        journal::tail(&self.engine.read()?, shard, from, end, entries_max)
    }

    async fn logs(&self, shard: Shard, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, StoreError> {
        // Before the snapshot: what leaves memory in between is in the tables by then.
        let mut logs: BTreeSet<LogId> =
            self.engine.recent().logs().filter(|log| Shard::of(log) == shard).cloned().collect();
        let txn = self.engine.read()?;
        if let Some(table) = open_to_read(&txn, Place::Entries).map_err(store_error)? {
            let mut from = after.map(|log| tables::prefix_end(log.as_str())).unwrap_or_default();
            let mut found = 0;
            // From log to log, not from entry to entry.
            while found < limit
                && let Some(row) = table.range(from.as_slice()..).map_err(engine)?.next()
            {
                let (key, _) = row.map_err(engine)?;
                let log = log_of_key(key.value())?;
                from = tables::prefix_end(log.as_str());
                if Shard::of(&log) == shard {
                    found += 1;
                    logs.insert(log);
                }
            }
        }
        Ok(logs.into_iter().filter(|log| after.is_none_or(|after| log > after)).take(limit).collect())
    }

    async fn release(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError> {
        let position = journal::position(cursor)?;
        let shards = shards.to_vec();
        self.writer.write(Sync::Later, 1, move |tables, _| journal::release(tables, &shards, position)).await
    }
}

fn engine(error: redb::StorageError) -> StoreError {
    store_error(error.into())
}

/// A page of a range, as it fills.
struct Page {
    rows: Vec<EntryRow>,
    next: Seq,
    entries_max: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Page {
    /// False when the page was full before this row.
    fn takes(&mut self, log: &LogId, row: EntryRow) -> Result<bool, StoreError> {
        if row.seq != self.next {
            return Err(StoreError::Damaged(format!("log {log} lacks entry {}", self.next)));
        }
        self.bytes += row.stored.len();
        if self.rows.len() == self.entries_max || (self.bytes > self.bytes_max && !self.rows.is_empty()) {
            return Ok(false);
        }
        self.next = row.seq.next();
        self.rows.push(row);
        Ok(true)
    }
}

/// What became of an entry that was to be stored.
enum Put {
    Stored,
    Taken,
    Gap { head: Seq },
}

impl Fresh {
    /// Made by the caller's thread, not by the one that writes.
    fn new(entry: NewEntry, hash_key: &[u8; 16]) -> Self {
        let key = tables::numbered(entry.log.as_str(), entry.seq.0);
        Self {
            client_key: client_key(hash_key, &entry.log, &entry.sender, &entry.client_id),
            checksum: checksum(&key, &entry.stored),
            log: entry.log,
            seq: entry.seq,
            stored: Bytes::copy_from_slice(&entry.stored),
        }
    }

    /// The entry, if its checksum still agrees.
    fn row(&self) -> Result<EntryRow, StoreError> {
        let key = tables::numbered(self.log.as_str(), self.seq.0);
        if self.checksum != checksum(&key, &self.stored) {
            return Err(StoreError::Damaged(format!("{}: changed in memory", place_of(&key))));
        }
        Ok(EntryRow { seq: self.seq, stored: self.stored.clone() })
    }

    /// Stores the entry, or nothing of it.
    fn put(&self, tables: &mut Tables<'_>, memory: &mut Memory) -> Result<Put, WriteError> {
        let head = head(tables, memory, &self.log)?;
        if self.seq <= head {
            return Ok(Put::Taken);
        }
        if self.seq != head.next() {
            return Ok(Put::Gap { head });
        }
        if is_known(tables, memory, &self.client_key)? && !planted("no_client_id_key") {
            return Ok(Put::Taken);
        }
        memory.heads.put(self.log.clone(), self.seq);
        memory.fresh_ids.insert(self.client_key);
        memory.fresh.push(self.clone());
        Ok(Put::Stored)
    }
}

/// The last seq of `log`; 0 if it is empty.
fn head(tables: &mut Tables<'_>, memory: &mut Memory, log: &LogId) -> Result<Seq, WriteError> {
    if let Some(head) = memory.heads.get(log) {
        return Ok(*head);
    }
    // Entries of this transaction are not recent yet, but their log is among the heads: it was used last.
    let recent = memory.engine.recent().head(log).map(|fresh| fresh.seq);
    let head = match recent {
        Some(head) => head,
        None => {
            let (start, end) = (tables::prefix(log.as_str()), tables::prefix_end(log.as_str()));
            let entries = tables.open(Place::Entries)?;
            let last = entries.range(start.as_slice()..end.as_slice())?.next_back().transpose()?;
            last.map(|(key, _)| seq_of_key(key.value())).transpose()?.unwrap_or_default()
        }
    };
    memory.heads.put(log.clone(), head);
    Ok(head)
}

/// Whether an entry with this client id is stored: by this transaction, lately, or ever.
fn is_known(tables: &mut Tables<'_>, memory: &Memory, client_key: &[u8; 16]) -> Result<bool, WriteError> {
    Ok(memory.fresh_ids.contains(client_key)
        || memory.engine.recent().seq_of(client_key).is_some()
        || tables.open(Place::ClientIds)?.get(client_key.as_slice())?.is_some())
}

fn log_of_key(key: &[u8]) -> Result<LogId, StoreError> {
    let id = key.len().checked_sub(9).and_then(|end| std::str::from_utf8(&key[..end]).ok());
    let log = id.and_then(|id| LogId::parse(id).ok());
    log.ok_or_else(|| StoreError::Damaged("a key of table entries does not decode".to_owned()))
}

fn seq_of_key(key: &[u8]) -> Result<Seq, StoreError> {
    let number = key.last_chunk().copied().map(u64::from_be_bytes);
    number.map(Seq).ok_or_else(|| StoreError::Damaged("a key of table entries does not decode".to_owned()))
}

pub fn checksum(key: &[u8], stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), stored)
}

/// The entry of a row, if its checksum agrees with its key and bytes.
pub fn verified(key: &[u8], row: &[u8]) -> Result<Bytes, StoreError> {
    if let Some((sum, stored)) = row.split_first_chunk::<CHECKSUM_BYTES>()
        && (u32::from_le_bytes(*sum) == checksum(key, stored) || planted("crc_skip"))
    {
        return Ok(Bytes::copy_from_slice(stored));
    }
    Err(StoreError::Damaged(format!("{}: its checksum does not match", place_of(key))))
}

/// Names the entry of a key to a person, whatever the key holds.
pub fn place_of(key: &[u8]) -> String {
    let (log, number) = key.split_at(key.len().saturating_sub(8));
    let log = String::from_utf8_lossy(log.strip_suffix(&[0]).unwrap_or(log));
    match number.try_into().map(u64::from_be_bytes) {
        Ok(seq) => format!("log {log}, entry {seq}"),
        Err(_) => format!("log {log}"),
    }
}

/// 128 bits under the store's own key: two client ids never meet by chance, nor by anyone's design.
fn client_key(hash_key: &[u8; 16], log: &LogId, sender: &UserId, client_id: &ClientId) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    for id in [log.as_str(), sender.as_str(), client_id.as_str()] {
        hasher.write_u8(id.len() as u8);
        hasher.write(id.as_bytes());
    }
    hasher.finish128().as_bytes()
}

/// The seq, and a checksum of it and its key.
pub fn client_row(client_key: &[u8; 16], seq: Seq) -> [u8; 12] {
    let mut row = [0; 12];
    row[..8].copy_from_slice(&seq.0.to_le_bytes());
    let sum = checksum(client_key, &row[..8]);
    row[8..].copy_from_slice(&sum.to_le_bytes());
    row
}

/// `None` if the checksum does not agree.
pub fn seq_of_client_row(client_key: &[u8], row: &[u8]) -> Option<Seq> {
    let (seq, sum) = row.split_at_checked(8)?;
    let sum_known = u32::from_le_bytes(sum.try_into().ok()?);
    (sum_known == checksum(client_key, seq)).then_some(Seq(u64::from_le_bytes(seq.try_into().ok()?)))
}
