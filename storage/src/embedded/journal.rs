//! The order in which entries were stored, so that what the projections lack can be found again.
//!
//! In: the entries of each transaction. Out: those of a shard behind a position. Always: positions count entries and
//! never go back; a row names up to [`ENTRIES_PER_ROW_MAX`] entries and its key is the position of the first; what was
//! released for every shard is forgotten.

use super::{
    tables::{Parts, Place, Tables, meta, open_to_read, put_id, read_row, store_error},
    writer::{Memory, WriteError},
};
use crate::ports::{Claim, Cursor, Shard, StoreError, Tail};
use im_proto::{LogId, Seq};
use redb::{ReadTransaction, ReadableTable};

/// Keeps a row near one page of the file and the search within a row short.
const ENTRIES_PER_ROW_MAX: usize = 128;

/// Writes what this transaction stored.
pub fn write(tables: &mut Tables<'_>, memory: &mut Memory) -> Result<(), redb::Error> {
    for chunk in memory.fresh.chunks(ENTRIES_PER_ROW_MAX) {
        let mut row = Vec::with_capacity(chunk.len() * 34);
        for fresh in chunk {
            row.push(Shard::of(&fresh.log).index());
            put_id(&mut row, fresh.log.as_str());
            row.extend_from_slice(&fresh.seq.0.to_le_bytes());
        }
        tables.open(Place::Journal)?.insert(memory.journal_end.to_be_bytes().as_slice(), row.as_slice())?;
        memory.journal_end += chunk.len() as u64;
    }
    Ok(())
}

pub fn cursor(position: u64) -> Cursor {
    Cursor(position.to_be_bytes().to_vec().into())
}

/// The position in a cursor of ours.
pub fn position(cursor: &Cursor) -> Result<u64, StoreError> {
    let bytes = cursor.0.as_ref().try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| StoreError::Damaged("a cursor of another store".to_owned()))
}

/// The entries of `shard` from `from` on, before `end`: the place up to which all readers see them.
pub fn tail(txn: &ReadTransaction, shard: Shard, from: u64, end: u64, entries_max: usize) -> Result<Tail, StoreError> {
    if from + 1 < positions(txn, meta::RELEASED)?.of(shard) {
        return Ok(Tail::Forgotten);
    }
    let mut entries = Vec::new();
    let Some(table) = open_to_read(txn, Place::Journal).map_err(store_error)? else {
        return Ok(Tail::Named { entries, next: cursor(end) });
    };
    let engine = |error: redb::StorageError| store_error(error.into());
    let start = from.to_be_bytes();
    let first = table.range(..=start.as_slice()).map_err(engine)?.next_back().transpose().map_err(engine)?;
    let first = first.map_or(start.to_vec(), |(key, _)| key.value().to_vec());
    for row in table.range(first.as_slice()..).map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        let mut position = position_of_key(key.value())?;
        let mut parts = Parts::new(row.value(), Place::Journal);
        while !parts.is_empty() && position < end {
            if parts.u8()? != shard.index() || position < from {
                let log_bytes = parts.u8()?;
                parts.bytes(usize::from(log_bytes) + 8)?;
            } else if entries.len() == entries_max {
                return Ok(Tail::Named { entries, next: cursor(position) });
            } else {
                entries.push((parts.id(LogId::parse)?, Seq(parts.u64()?)));
            }
            position += 1;
        }
    }
    Ok(Tail::Named { entries, next: cursor(end.max(from)) })
}

fn position_of_key(key: &[u8]) -> Result<u64, StoreError> {
    let bytes = key.try_into();
    bytes.map(u64::from_be_bytes).map_err(|_| StoreError::Damaged("a key of table journal does not decode".to_owned()))
}

/// Notes under `row` that a projection covers `shards` up to `position`. A cover never goes back.
pub fn cover(tables: &mut Tables<'_>, row: &[u8], claim: &Claim, position: u64) -> Result<(), WriteError> {
    raise(tables, row, claim.shards(), position).map(drop)
}

/// Notes that nothing before `position` will be asked of `shards`, and forgets what is asked of no shard.
pub fn release(tables: &mut Tables<'_>, shards: &[Shard], position: u64) -> Result<(), WriteError> {
    let released = raise(tables, meta::RELEASED, shards.iter().copied(), position)?;
    let Some(least) = released.0.iter().min().and_then(|least| least.checked_sub(1)) else { return Ok(()) };
    // The row that holds `least` itself stays whole.
    let journal = tables.open(Place::Journal)?;
    let bound = least.to_be_bytes();
    let keep = journal.range(..=bound.as_slice())?.next_back().transpose()?;
    let Some(keep) = keep.map(|(key, _)| key.value().to_vec()) else { return Ok(()) };
    journal.retain_in(..keep.as_slice(), |_, _| false)?;
    Ok(())
}

fn raise(
    tables: &mut Tables<'_>,
    row: &[u8],
    shards: impl Iterator<Item = Shard>,
    position: u64,
) -> Result<Positions, WriteError> {
    let meta = tables.open(Place::Meta)?;
    let mut positions = Positions::decode(meta.get(row)?.map(|row| row.value().to_vec()))?;
    shards.for_each(|shard| positions.raise(shard, position + 1));
    meta.insert(row, positions.encode().as_slice())?;
    Ok(positions)
}

/// What is covered or released under `row`.
pub fn positions(txn: &ReadTransaction, row: &[u8]) -> Result<Positions, StoreError> {
    Positions::decode(read_row(txn, Place::Meta, row).map_err(store_error)?)
}

/// A row of covers or releases: for each shard 0, or one more than its position.
pub struct Positions([u64; Shard::COUNT as usize]);

impl Default for Positions {
    fn default() -> Self {
        Self([0; Shard::COUNT as usize])
    }
}

impl Positions {
    pub fn of(&self, shard: Shard) -> u64 {
        self.0[usize::from(shard.index())]
    }

    pub fn cursor(&self, shard: Shard) -> Option<Cursor> {
        self.of(shard).checked_sub(1).map(cursor)
    }

    pub fn raise(&mut self, shard: Shard, to: u64) {
        let known = &mut self.0[usize::from(shard.index())];
        *known = to.max(*known);
    }

    fn decode(row: Option<Vec<u8>>) -> Result<Self, StoreError> {
        let mut positions = Self::default();
        if let Some(row) = row {
            let mut parts = Parts::new(&row, Place::Meta);
            for known in &mut positions.0 {
                *known = parts.u64()?;
            }
        }
        Ok(positions)
    }

    fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|known| known.to_le_bytes()).collect()
    }
}
