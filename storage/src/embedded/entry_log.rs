//! The entry log on the embedded store.
//!
//! In: entries with chosen seqs. Out: the same bytes, for ever. Always: an append is one transaction's part, so what is
//! stored of it is a prefix; both unique keys are looked at in the transaction that writes; an entry's checksum covers
//! its key and is verified at every read.

use super::{
    engine::Engine,
    journal,
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
use redb::{ReadTransaction, ReadableTable};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{hash::Hasher, sync::Arc};

/// The checksum stands before the entry's bytes.
const CHECKSUM_BYTES: usize = 4;

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

    /// A snapshot, if what it says can be relied on: after a failed write the truth is known only at the next open.
    fn read(&self) -> Result<ReadTransaction, StoreError> {
        self.engine.health.check()?;
        self.engine.read()
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
        let rows: Vec<_> = batch.into_iter().map(|entry| Prepared::new(entry, &self.hash_key)).collect();
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
        let Some(entries) = open_to_read(&self.read()?, Place::Entries).map_err(store_error)? else { return Ok(None) };
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
        let mut rows = Vec::new();
        let from = from.max(Seq(1));
        let Some(entries) = open_to_read(&self.engine.read()?, Place::Entries).map_err(store_error)? else {
            return Ok(rows);
        };
        let (start, end) = (tables::numbered(log.as_str(), from.0), tables::prefix_end(log.as_str()));
        let (mut expected, mut bytes) = (from, 0);
        for row in entries.range(start.as_slice()..end.as_slice()).map_err(engine)?.take(entries_max) {
            let (key, row) = row.map_err(engine)?;
            let seq = seq_of_key(key.value())?;
            if seq != expected {
                return Err(StoreError::Damaged(format!("log {log} lacks entry {expected}")));
            }
            let stored = verified(key.value(), row.value())?;
            bytes += stored.len();
            if bytes > bytes_max && !rows.is_empty() {
                break;
            }
            rows.push(EntryRow { seq, stored });
            expected = seq.next();
        }
        Ok(rows)
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        let txn = self.read()?;
        let hash = client_key(&self.hash_key, log, sender, client_id);
        let Some(row) = tables::read_row(&txn, Place::ClientIds, &hash).map_err(store_error)? else { return Ok(None) };
        let seq = seq_of_client_row(&hash, &row)
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

    async fn tail(&self, shard: Shard, after: Option<&Cursor>, entries_max: usize) -> Result<Tail, StoreError> {
        let from = after.map(journal::position).transpose()?.unwrap_or(0);
        // Before the snapshot, so that nothing stored in between is passed over.
        let end = self.engine.journal_end();
        journal::tail(&self.read()?, shard, from, end, entries_max)
    }
}

fn engine(error: redb::StorageError) -> StoreError {
    store_error(error.into())
}

/// An entry with its keys made, which is done by the caller's thread and not by the one that writes.
struct Prepared {
    log: LogId,
    seq: Seq,
    key: Vec<u8>,
    client_key: [u8; 16],
    checksum: u32,
    stored: Bytes,
}

enum Put {
    Stored,
    Taken,
    Gap { head: Seq },
}

impl Prepared {
    fn new(entry: NewEntry, hash_key: &[u8; 16]) -> Self {
        let key = tables::numbered(entry.log.as_str(), entry.seq.0);
        Self {
            client_key: client_key(hash_key, &entry.log, &entry.sender, &entry.client_id),
            checksum: checksum(&key, &entry.stored),
            key,
            log: entry.log,
            seq: entry.seq,
            stored: entry.stored,
        }
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
        let ids = tables.open(Place::ClientIds)?;
        let row = client_row(&self.client_key, self.seq);
        let known = ids.insert(self.client_key.as_slice(), row.as_slice())?.map(|known| known.value().to_vec());
        if let Some(known) = known
            && !planted("no_client_id_key")
        {
            ids.insert(self.client_key.as_slice(), known.as_slice())?;
            return Ok(Put::Taken);
        }
        let length = CHECKSUM_BYTES + self.stored.len();
        let mut value = tables.open(Place::Entries)?.insert_reserve(self.key.as_slice(), length)?;
        let (checksum, stored) = value.as_mut().split_at_mut(CHECKSUM_BYTES);
        checksum.copy_from_slice(&self.checksum.to_le_bytes());
        stored.copy_from_slice(&self.stored);
        memory.heads.put(self.log.clone(), self.seq);
        memory.unjournaled.push((self.log.clone(), self.seq));
        Ok(Put::Stored)
    }
}

/// The last seq of `log`; 0 if it is empty.
fn head(tables: &mut Tables<'_>, memory: &mut Memory, log: &LogId) -> Result<Seq, WriteError> {
    if let Some(head) = memory.heads.get(log) {
        return Ok(*head);
    }
    let (start, end) = (tables::prefix(log.as_str()), tables::prefix_end(log.as_str()));
    let entries = tables.open(Place::Entries)?;
    let last = entries.range(start.as_slice()..end.as_slice())?.next_back().transpose()?;
    let head = last.map(|(key, _)| seq_of_key(key.value())).transpose()?.unwrap_or_default();
    memory.heads.put(log.clone(), head);
    Ok(head)
}

fn seq_of_key(key: &[u8]) -> Result<Seq, StoreError> {
    let number = key.last_chunk().copied().map(u64::from_be_bytes);
    number.map(Seq).ok_or_else(|| StoreError::Damaged("a key of table entries does not decode".to_owned()))
}

fn checksum(key: &[u8], stored: &[u8]) -> u32 {
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
fn client_row(client_key: &[u8; 16], seq: Seq) -> [u8; 12] {
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
