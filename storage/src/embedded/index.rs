//! The way of an entry from the order of storing into the sorted tables.
//!
//! In: what a commit stores. Out: one row of table `pending` with all of it, and, in runs, rows of `entries` and
//! `client_ids`. Always: an entry is in `pending` until the commit that finishes its run; a run may be repeated from its
//! start, since it writes the same rows again.
//!
//! Why: a row of each sorted table costs a page of its own when it is written alone. Written by runs, sorted, the entries
//! of a log share their pages, and a commit touches little but the end of `pending`.

use super::{
    entry_log::{CHECKSUM_BYTES, checksum, client_row},
    recent::{Fresh, Generation, Recent},
    tables::{self, Parts, Place, Tables, meta, open_to_read, put_id, read_row, store_error},
    writer::Memory,
};
use crate::{planted::planted, ports::StoreError};
use bytes::Bytes;
use im_proto::{LogId, Seq};
use redb::{ReadTransaction, ReadableTable};
use std::sync::Arc;

/// Entries in memory that begin a run; while it goes on, at most half as many more come.
pub const RUN_ENTRIES: usize = 65_536;
/// The same in bytes.
const RUN_BYTES: usize = 32 * 1024 * 1024;
/// Rows that a commit indexes at least, while a run goes on.
const STEP_ROWS_MIN: usize = 16;
/// Otherwise so many for each entry it adds, of which each will be two: a run ends before the next begins, and no commit
/// becomes much longer by it.
const STEP_ROWS_PER_ENTRY: usize = 4;
/// A row of `pending` ends behind the entry that passes it.
const ROW_BYTES: usize = 32 * 1024;
/// Rows of finished runs that one commit forgets.
const FORGET_ROWS_MAX: usize = 16;

/// A run under way: first all its entries in the order of their keys, then all its client ids.
pub struct Run {
    generation: Arc<Generation>,
    /// Logs yet to be indexed, the next one last, and how many entries of that one are done.
    logs: Vec<LogId>,
    done_of_log: usize,
    /// Client ids yet to be indexed, the next one last.
    ids: Vec<([u8; 16], Seq)>,
    /// The position behind its entries.
    end: u64,
}

/// Writes the entries of this transaction as they came.
pub fn write_pending(tables: &mut Tables<'_>, memory: &Memory) -> Result<(), redb::Error> {
    let mut position = memory.journal_end;
    let mut row = Vec::new();
    let mut first = position;
    for fresh in &memory.fresh {
        put_id(&mut row, fresh.log.as_str());
        row.extend_from_slice(&fresh.seq.0.to_le_bytes());
        row.extend_from_slice(&fresh.client_key);
        row.extend_from_slice(&fresh.checksum.to_le_bytes());
        row.extend_from_slice(&(fresh.stored.len() as u32).to_le_bytes());
        row.extend_from_slice(&fresh.stored);
        position += 1;
        if row.len() >= ROW_BYTES {
            tables.open(Place::Pending)?.insert(first.to_be_bytes().as_slice(), row.as_slice())?;
            row.clear();
            first = position;
        }
    }
    if !row.is_empty() {
        tables.open(Place::Pending)?.insert(first.to_be_bytes().as_slice(), row.as_slice())?;
    }
    Ok(())
}

/// Shows `each` the entries that the sorted tables may lack, in the order they were stored; their checksums agree.
pub fn read_pending(txn: &ReadTransaction, mut each: impl FnMut(Fresh)) -> Result<(), StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    let indexed = indexed(txn)?.to_be_bytes();
    let Some(table) = open_to_read(txn, Place::Pending).map_err(store_error)? else { return Ok(()) };
    for row in table.range(indexed.as_slice()..).map_err(engine)? {
        let (_, row) = row.map_err(engine)?;
        let mut parts = Parts::new(row.value(), Place::Pending);
        while !parts.is_empty() {
            each(read_entry(&mut parts)?);
        }
    }
    Ok(())
}

fn read_entry(parts: &mut Parts<'_>) -> Result<Fresh, StoreError> {
    let (log, seq) = (parts.id(LogId::parse)?, Seq(parts.u64()?));
    let mut client_key = [0; 16];
    client_key.copy_from_slice(parts.bytes(16)?);
    let (sum, length) = (parts.u32()?, parts.u32()?);
    let stored = parts.bytes(length as usize)?;
    if sum != checksum(&tables::numbered(log.as_str(), seq.0), stored) && !planted("crc_skip") {
        return Err(StoreError::Damaged(format!("log {log}, entry {seq}: its checksum does not match")));
    }
    Ok(Fresh { log, seq, client_key, checksum: sum, stored: Bytes::copy_from_slice(stored) })
}

/// The position that the finished runs reach to.
fn indexed(txn: &ReadTransaction) -> Result<u64, StoreError> {
    let row = read_row(txn, Place::Meta, meta::INDEXED).map_err(store_error)?;
    row.map_or(Ok(0), |row| Parts::new(&row, Place::Meta).u64())
}

/// Begins a run if enough has come, before the commit of `memory.fresh`.
pub fn begin(recent: &mut Recent, memory: &mut Memory) {
    if memory.run.is_none()
        && let Some(generation) = recent.freeze(memory.run_entries, RUN_BYTES)
    {
        let (mut logs, mut ids) = (generation.sorted_logs(), generation.sorted_ids());
        logs.reverse();
        ids.reverse();
        memory.run = Some(Run { generation, logs, done_of_log: 0, ids, end: memory.journal_end });
    }
}

/// Indexes a part of the run. True when this transaction finishes it.
pub fn step(tables: &mut Tables<'_>, memory: &mut Memory) -> Result<bool, redb::Error> {
    forget(tables, memory.indexed)?;
    let Some(run) = &mut memory.run else { return Ok(false) };
    let mut left = STEP_ROWS_MIN.max(memory.fresh.len() * STEP_ROWS_PER_ENTRY);
    while left > 0 && !run.logs.is_empty() {
        left -= run.write_entries(tables, left)?;
    }
    run.write_ids(tables, left)?;
    if !run.ids.is_empty() {
        return Ok(false);
    }
    memory.indexed = run.end;
    tables.open(Place::Meta)?.insert(meta::INDEXED, run.end.to_le_bytes().as_slice())?;
    memory.run = None;
    Ok(true)
}

impl Run {
    /// Writes at most `rows_max` entries of one log; answers how many.
    fn write_entries(&mut self, tables: &mut Tables<'_>, rows_max: usize) -> Result<usize, redb::Error> {
        let Some(log) = self.logs.last() else { return Ok(0) };
        let entries = &self.generation.log(log)[self.done_of_log..];
        let part = &entries[..entries.len().min(rows_max)];
        let table = tables.open(Place::Entries)?;
        for fresh in part {
            let key = tables::numbered(log.as_str(), fresh.seq.0);
            let mut row = table.insert_reserve(key.as_slice(), CHECKSUM_BYTES + fresh.stored.len())?;
            let (sum, stored) = row.as_mut().split_at_mut(CHECKSUM_BYTES);
            sum.copy_from_slice(&fresh.checksum.to_le_bytes());
            stored.copy_from_slice(&fresh.stored);
        }
        self.done_of_log += part.len();
        if part.len() == entries.len() {
            self.logs.pop();
            self.done_of_log = 0;
        }
        Ok(part.len())
    }

    fn write_ids(&mut self, tables: &mut Tables<'_>, rows_max: usize) -> Result<(), redb::Error> {
        let table = tables.open(Place::ClientIds)?;
        for _ in 0..rows_max {
            let Some((client_key, seq)) = self.ids.pop() else { break };
            table.insert(client_key.as_slice(), client_row(&client_key, seq).as_slice())?;
        }
        Ok(())
    }
}

/// Removes some rows that lie before `indexed`.
fn forget(tables: &mut Tables<'_>, indexed: u64) -> Result<(), redb::Error> {
    if indexed == 0 {
        return Ok(());
    }
    let table = tables.open(Place::Pending)?;
    for _ in 0..FORGET_ROWS_MAX {
        match table.first()? {
            Some((key, _)) if key.value() < indexed.to_be_bytes().as_slice() => {}
            _ => break,
        }
        table.pop_first()?;
    }
    Ok(())
}

/// What the writer must know of the index when a store is opened.
pub fn load(txn: &ReadTransaction) -> Result<(Recent, u64), StoreError> {
    let mut recent = Recent::default();
    read_pending(txn, |fresh| recent.add(fresh))?;
    Ok((recent, indexed(txn)?))
}
