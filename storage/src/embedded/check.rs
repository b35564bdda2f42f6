//! Whether the store's file holds what was written to it.
//!
//! In: a file, before or after the engine accepted it. Out: nothing, or the first place that is wrong. Always: reads
//! only.

use super::{
    entry_log::{place_of, seq_of_client_row, verified},
    tables::{Place, open_to_read, store_error},
};
use crate::ports::StoreError;
use redb::{
    BackendError, Builder, ConcurrencyMode, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend,
};
use std::{
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The engine's header: where it says whether the file was closed in order.
const FLAGS_OFFSET: u64 = 9;
const RECOVERY_REQUIRED: u8 = 2;
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

/// Reads every entry and every client id: checksums, no gap in any log, as many client ids as entries.
pub fn scan(txn: &ReadTransaction) -> Result<(), StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    let Some(entries) = open_to_read(txn, Place::Entries).map_err(store_error)? else { return Ok(()) };
    let mut last: Vec<u8> = Vec::new();
    for row in entries.iter().map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        let (key, row) = (key.value(), row.value());
        verified(key, row)?;
        if !follows(&last, key) {
            return Err(StoreError::Damaged(format!("{}: the entry before it is missing", place_of(key))));
        }
        last.clear();
        last.extend_from_slice(key);
    }
    let Some(ids) = open_to_read(txn, Place::ClientIds).map_err(store_error)? else { return Ok(()) };
    for row in ids.iter().map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        if seq_of_client_row(key.value(), row.value()).is_none() {
            return Err(StoreError::Damaged("table client_ids: a checksum does not match".to_owned()));
        }
    }
    let (entries, ids) = (entries.len().map_err(engine)?, ids.len().map_err(engine)?);
    if entries != ids {
        return Err(StoreError::Damaged(format!("{entries} entries have {ids} client ids")));
    }
    Ok(())
}

/// Whether `key` is the next entry of the log of `last`, or the first of another.
fn follows(last: &[u8], key: &[u8]) -> bool {
    let parts = |key: &[u8]| {
        let (log, seq) = key.split_last_chunk::<8>()?;
        Some((log.to_vec(), u64::from_be_bytes(*seq)))
    };
    match (parts(last), parts(key)) {
        (Some((log, seq)), Some((next_log, next_seq))) if log == next_log => next_seq == seq + 1,
        (_, Some((_, next_seq))) => next_seq == 1,
        (_, None) => false,
    }
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

/// A file shown as if it had been closed in order, so that the engine reads it without repairing it. Its locks are
/// granted unasked: the lock of the folder is ours, and nothing is written.
#[derive(Debug)]
struct AsClosed<B>(B);

impl<B: StorageBackend> StorageBackend for AsClosed<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)?;
        if let Some(place) = FLAGS_OFFSET.checked_sub(offset)
            && let Some(flags) = out.get_mut(place as usize)
        {
            *flags &= !RECOVERY_REQUIRED;
        }
        Ok(())
    }

    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}
