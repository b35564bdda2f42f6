//! Makes a backup, copied into the folder, a store to serve from.
//!
//! In: a folder that no server has open. Out: the same store under a new epoch, and what it holds. Always: every page and
//! every entry was checked first; the new epoch is above the old one and of no other restore; the witness knows this file,
//! whichever it knew before. A crash half-way leaves a folder that this can be run on again.
//!
//! Why an epoch: clients may have seen entries younger than the backup. Their seqs will be given out again with other
//! content, and only the epoch tells a client that what it knows is of another history.

use super::{
    check::{self, Scanned},
    open::{
        DATA_FILE, Files, OpenError, OpenOptions, checked_database, damaged, lock_folder, read_facts, scan, state_row,
    },
    tables::{Place, Tables, meta},
};
use im_proto::Epoch;
use redb::{Database, StorageBackend as _};
use std::io;

/// Where the clock is behind the old epoch, the new one lies a random step above it: the same backup, restored twice, gets
/// two epochs.
const EPOCH_STEP_MAX: u64 = 1_000_000;

/// A store that was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    pub epoch_before: Epoch,
    pub epoch: Epoch,
    pub logs: usize,
    pub entries: u64,
    /// The last commit in the file.
    pub commit: u64,
    /// The last commit that this folder knew to be acked; above `commit`, the file is older than the folder.
    pub acked: u64,
}

/// Blocks for as long as reading the whole store takes.
pub fn restore(options: &OpenOptions) -> Result<Restored, OpenError> {
    let no_store = || OpenError::NoStore(options.folder.clone());
    let io_error = |error: io::Error| OpenError::Io(options.folder.clone(), error);
    if !options.folder.join(DATA_FILE).exists() {
        return Err(no_store());
    }
    let Files { lock, witness, data } = lock_folder(options)?;
    let storage = data().map_err(io_error)?;
    if storage.len().map_err(io_error)? == 0 || check::is_unborn(&storage).map_err(io_error)? {
        return Err(no_store());
    }
    drop(storage);
    let acked = witness.last().map_err(io_error)?;
    let (database, _) = checked_database(data, acked, options)?;
    let facts = read_facts(&database)?.ok_or_else(no_store)?;
    let Scanned { logs, entries } = scan(&database)?;
    let epoch = next_epoch(facts.epoch, options.now_ms);
    write(&database, epoch, facts.commit + 1, facts.journal_end).map_err(damaged)?;
    database.close().map_err(|error| damaged(error.into()))?;
    // Last: until then the witness may refuse the folder, which is right, for it is not restored yet.
    witness.restart(facts.commit + 1).map_err(io_error)?;
    drop(lock);
    Ok(Restored { epoch_before: facts.epoch, epoch, logs, entries, commit: facts.commit, acked })
}

fn next_epoch(before: Epoch, now_ms: i64) -> Epoch {
    let step = rand::random_range(1..=EPOCH_STEP_MAX);
    Epoch(before.0.saturating_add(step).max(now_ms.max(0) as u64))
}

fn write(database: &Database, epoch: Epoch, commit: u64, journal_end: u64) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    let mut tables = Tables::new(&txn);
    let rows = tables.open(Place::Meta)?;
    rows.insert(meta::EPOCH, epoch.0.to_le_bytes().as_slice())?;
    rows.insert(meta::STATE, state_row(commit, journal_end).as_slice())?;
    drop(tables);
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_is_above_the_old_one_whatever_the_clock_says_and_no_two_restores_share_one() {
        assert_eq!(next_epoch(Epoch(1_000), 5_000_000), Epoch(5_000_000));
        let behind: std::collections::HashSet<u64> =
            (0..20).map(|_| next_epoch(Epoch(9_000_000), 5_000_000).0).collect();
        assert!(behind.len() > 1 && behind.iter().all(|epoch| *epoch > 9_000_000), "{behind:?}");
        assert!(next_epoch(Epoch(7), -1).0 > 7);
    }
}
