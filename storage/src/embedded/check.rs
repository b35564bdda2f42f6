//! Whether the store's file holds what was written to it.
//!
//! In: a file, before or after the engine accepted it. Out: nothing, or the first place that is wrong. Always: reads
//! only.

use super::{
    entry_log::{place_of, seq_of_client_row, verified},
    index,
    tables::{self, Place, ReadTable, open_to_read, store_error},
    views::{AsClosed, Untouched},
};
use crate::ports::StoreError;
use redb::{
    Builder, ConcurrencyMode, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
};
use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The engine's header: where it says whether the file was closed in order.
pub const FLAGS_OFFSET: u64 = 9;
pub const RECOVERY_REQUIRED: u8 = 2;
/// The mark at the front of every file of the engine.
const MARK_BYTES: usize = 9;
const HEADER_PAGE_BYTES: usize = 4_096;
/// The engine makes its files smaller than this.
const UNBORN_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Whether the file was left open: a kill or a power cut.
pub fn is_unclean(backend: &impl StorageBackend) -> io::Result<bool> {
    if backend.len()? <= FLAGS_OFFSET {
        return Ok(false);
    }
    let mut flags = [0];
    backend.read(FLAGS_OFFSET, &mut flags)?;
    Ok(flags[0] & RECOVERY_REQUIRED != 0)
}

/// Whether the file is one whose creation was cut short: the engine writes its mark last, so there is none yet, and no
/// table was ever written. (A store with content that lost its mark is something else, and damage.)
pub fn is_unborn(backend: &impl StorageBackend) -> io::Result<bool> {
    let length = backend.len()?;
    if length == 0 || length > UNBORN_BYTES_MAX {
        return Ok(false);
    }
    let mut bytes = vec![0; length as usize];
    backend.read(0, &mut bytes)?;
    let (header, tables) = bytes.split_at(bytes.len().min(HEADER_PAGE_BYTES));
    Ok(header.iter().take(MARK_BYTES).chain(tables).all(|byte| *byte == 0))
}

/// Reads every entry and every client id: checksums, no gap in any log, a client id for each entry.
pub fn scan(txn: &ReadTransaction) -> Result<Scanned, StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    let entries = open_to_read(txn, Place::Entries).map_err(store_error)?;
    let ids = open_to_read(txn, Place::ClientIds).map_err(store_error)?;
    let mut heads = entries.as_ref().map(scan_entries).transpose()?.unwrap_or_default();
    let mut id_count = ids.as_ref().map(scan_ids).transpose()?.unwrap_or(0);
    let mut wrong = None;
    index::read_pending(txn, |fresh| {
        let head = heads.entry(fresh.log.as_str().as_bytes().to_vec()).or_insert(0);
        if fresh.seq.0 > *head + 1 {
            wrong.get_or_insert_with(|| missing_before(&tables::numbered(fresh.log.as_str(), fresh.seq.0)));
        }
        // A run that was cut short has written some of them already.
        *head = fresh.seq.0.max(*head);
        match ids.as_ref().map_or(Ok(None), |ids| ids.get(fresh.client_key.as_slice())) {
            Ok(indexed) => id_count += u64::from(indexed.is_none()),
            Err(error) => wrong = Some(engine(error)),
        }
    })?;
    let (logs, entry_count) = (heads.values().filter(|head| **head > 0).count(), heads.values().sum());
    if entry_count != id_count {
        wrong.get_or_insert(StoreError::Damaged(format!("{entry_count} entries have {id_count} client ids")));
    }
    wrong.map_or(Ok(Scanned { logs, entries: entry_count }), Err)
}

/// What a scan has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    pub logs: usize,
    pub entries: u64,
}

fn scan_ids(ids: &ReadTable) -> Result<u64, StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    for row in ids.iter().map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        if seq_of_client_row(key.value(), row.value()).is_none() {
            return Err(StoreError::Damaged("table client_ids: a checksum does not match".to_owned()));
        }
    }
    ids.len().map_err(engine)
}

/// Answers the head of every log, by the log's bytes.
fn scan_entries(entries: &ReadTable) -> Result<HashMap<Vec<u8>, u64>, StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    let mut heads = HashMap::new();
    let (mut log, mut head) = (Vec::new(), 0);
    for row in entries.iter().map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        let key = key.value();
        verified(key, row.value())?;
        let Some((next_log, seq)) = key.split_last_chunk::<8>() else { return Err(missing_before(key)) };
        let next_log = next_log.strip_suffix(&[0]).unwrap_or(next_log);
        if log != next_log {
            heads.insert(std::mem::replace(&mut log, next_log.to_vec()), head);
            head = 0;
        }
        if u64::from_be_bytes(*seq) != head + 1 {
            return Err(missing_before(key));
        }
        head += 1;
    }
    heads.insert(log, head);
    Ok(heads)
}

fn missing_before(key: &[u8]) -> StoreError {
    StoreError::Damaged(format!("{}: the entry before it is missing", place_of(key)))
}

/// The format of a file that was closed in order, read without writing to it. `None` for a new or an unreadable one.
pub fn format(backend: impl StorageBackend) -> Option<u32> {
    let look = || {
        let database = Builder::new().open_read_only_with_backend(AsClosed(backend)).ok()?;
        let row = tables::read_row(&database.begin_read().ok()?, Place::Meta, tables::meta::FORMAT).ok()??;
        row.try_into().ok().map(u32::from_le_bytes)
    };
    // As below: an engine that panics over a damage has found one, and will say so when it is opened for writing.
    catch_unwind(AssertUnwindSafe(look)).ok().flatten()
}

/// Whether the engine finds every page of a file as it was written. What it would write on the way stays in memory.
pub fn is_sound(backend: impl StorageBackend) -> bool {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Builder::new().set_check_integrity_on_open(true).create_with_backend(Untouched::new(backend)?).map(drop)
    }));
    matches!(opened, Ok(Ok(())))
}

/// Looks for the entry behind a refusal of the engine, which names no place of ours. `None` if the damage lies outside
/// the entries, or the file cannot be read at all.
pub fn find_damaged_entry(backend: impl StorageBackend) -> Option<String> {
    let look = || {
        // A reader beside writers needs no state that only an orderly close or a repair leaves.
        let mut builder = Builder::new();
        builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
        let database = builder.open_read_only_with_backend(AsClosed(backend)).ok()?;
        match scan(&database.begin_read().ok()?) {
            Err(StoreError::Damaged(place)) => Some(place),
            _ => None,
        }
    };
    // The engine trusts its pages once a file is open, and panics over some that are damaged.
    catch_unwind(AssertUnwindSafe(look)).ok().flatten()
}
