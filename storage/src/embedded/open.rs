//! Opens the store's folder, or says what an operator has to do first.
//!
//! In: a folder. Out: an engine whose file was checked, and the facts of the store. Always: one process at a time; a file
//! that lacks an acked commit, fails a checksum or is of a newer format is refused, never repaired into less.

use super::{
    check,
    engine::Engine,
    index,
    tables::{self, Place, Tables, meta},
    witness::Witness,
};
use crate::{planted::planted, ports::StoreError};
use im_proto::Epoch;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, backends::FileBackend};
use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The layout of the tables. A store of a higher one was written by a newer program.
const FORMAT: u32 = 2;

const LOCK_FILE: &str = "lock";
pub const DATA_FILE: &str = "store.redb";
const WITNESS_FILE: &str = "acked";

/// Pages of the file kept in memory, unless the operator says otherwise.
pub const CACHE_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Created if missing.
    pub folder: PathBuf,
    pub cache_bytes: usize,
    /// The time, for the epoch of a new store.
    pub now_ms: i64,
}

/// Why the store did not open; one variant per thing an operator does about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}: another process has this folder open; stop it, or give this one another folder")]
    Locked(PathBuf),
    #[error("{0}: cannot be written; let this process own it, or give it another folder")]
    NotWritable(PathBuf),
    #[error("the store has format {found} and this program knows up to {known}; run the newer program")]
    NewerFormat { found: u32, known: u32 },
    #[error("the store has format {found}, of before the first release; this program reads format {known}")]
    OlderFormat { found: u32, known: u32 },
    #[error("the store is damaged: {0}; restore a backup")]
    Damaged(String),
    /// Nothing to restore.
    #[error("{0}: there is no store in this folder; copy the backup into it first")]
    NoStore(PathBuf),
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// What a store says about itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub epoch: Epoch,
    pub hash_key: [u8; 16],
    pub versions_reserved: u64,
    /// The number of the last synced commit.
    pub commit: u64,
    pub journal_end: u64,
    /// The position before which the sorted tables have everything.
    pub indexed: u64,
}

pub fn open_folder(options: &OpenOptions) -> Result<(Arc<Engine>, Facts), OpenError> {
    let Files { lock, witness, data } = lock_folder(options)?;
    open(data, witness, Some(lock), options)
}

/// What a folder consists of, once nobody else has it.
pub struct Files<D> {
    pub lock: File,
    pub witness: Witness,
    /// Opens the engine's file.
    pub data: D,
}

pub fn lock_folder(options: &OpenOptions) -> Result<Files<impl Fn() -> io::Result<FileBackend>>, OpenError> {
    let folder = options.folder.as_path();
    let io_error = |error: io::Error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::NotWritable(folder.to_owned()),
        _ => OpenError::Io(folder.to_owned(), error),
    };
    std::fs::create_dir_all(folder).map_err(io_error)?;
    let lock = open_file(&folder.join(LOCK_FILE)).map_err(io_error)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked(folder.to_owned()),
        TryLockError::Error(error) => io_error(error),
    })?;
    let witness = open_file(&folder.join(WITNESS_FILE)).map_err(io_error)?;
    let data = folder.join(DATA_FILE);
    open_file(&data).map_err(io_error)?;
    // The names of new files must survive a power cut as their contents do.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error)?;
    let data = move || FileBackend::new(open_file(&data)?).map_err(io::Error::other);
    Ok(Files { lock, witness: Witness::File(Arc::new(witness)), data })
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Opens the file that `backend` gives. It is asked more than once, one after the other.
pub fn open<B: StorageBackend>(
    backend: impl Fn() -> io::Result<B>,
    witness: Witness,
    lock: Option<File>,
    options: &OpenOptions,
) -> Result<(Arc<Engine>, Facts), OpenError> {
    let io_error = |error| OpenError::Io(options.folder.clone(), error);
    let acked = witness.last().map_err(io_error)?;
    let (database, unclean) = checked_database(backend, acked, options)?;
    if unclean {
        tracing::info!("the store was not closed in order; every entry is checked");
        scan(&database)?;
    }
    let mut facts = match read_facts(&database)? {
        Some(facts) => facts,
        None if acked > 0 => {
            return Err(OpenError::Damaged(format!("commit {acked} was acked and the file is empty")));
        }
        None => {
            let facts = create(&database, options).map_err(damaged)?;
            witness.note(facts.commit).and_then(|()| witness.sync()).map_err(io_error)?;
            facts
        }
    };
    if facts.commit < acked {
        return Err(OpenError::Damaged(format!(
            "commit {acked} was acked and the file ends at commit {}; if the file is a backup, run `im-server restore`",
            facts.commit
        )));
    }
    let txn = database.begin_read().map_err(|error| damaged(error.into()))?;
    let (recent, indexed) = index::load(&txn).map_err(|error| OpenError::Damaged(error.to_string()))?;
    facts.indexed = indexed;
    drop(txn);
    Ok((Arc::new(Engine::new(database, witness, recent, facts.journal_end, lock)), facts))
}

/// Reads every entry.
pub fn scan(database: &Database) -> Result<check::Scanned, OpenError> {
    let txn = database.begin_read().map_err(|error| damaged(error.into()))?;
    check::scan(&txn).map_err(|error| OpenError::Damaged(error.to_string()))
}

/// The engine on a file whose pages were checked, and whether it was left open: then its last commit may be a torn one.
pub fn checked_database<B: StorageBackend>(
    backend: impl Fn() -> io::Result<B>,
    acked: u64,
    options: &OpenOptions,
) -> Result<(Database, bool), OpenError> {
    let io_error = |error| OpenError::Io(options.folder.clone(), error);
    let storage = backend().map_err(io_error)?;
    if acked == 0 && check::is_unborn(&storage).map_err(io_error)? {
        storage.set_len(0).map_err(io_error)?;
    }
    let unclean = check::is_unclean(&storage).map_err(io_error)?;
    drop(storage);
    // A newer program's file is refused before the engine may write to it; one that was left open, after its repair.
    // So that no damage is taken for one, all of it is looked through first.
    if !unclean
        && let Some(found) = backend().ok().and_then(check::format).filter(|found| *found > FORMAT)
        && (planted("flipped_format_believed") || backend().is_ok_and(check::is_sound))
    {
        return Err(OpenError::NewerFormat { found, known: FORMAT });
    }
    let storage = backend().map_err(io_error)?;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Builder::new()
            .set_cache_size(options.cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(storage)
    }));
    let refused = |what: String| {
        let place = backend().ok().and_then(check::find_damaged_entry);
        OpenError::Damaged(place.unwrap_or(what))
    };
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(error)) => return Err(open_error(error, options, refused)),
        Err(_) => return Err(refused("the file's structure".to_owned())),
    };
    Ok((database, unclean))
}

fn open_error(error: DatabaseError, options: &OpenOptions, refused: impl Fn(String) -> OpenError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked(options.folder.clone()),
        DatabaseError::Storage(redb::StorageError::Corrupted(what)) => refused(format!("the file: {what}")),
        // Not a file of the engine, or one that points beyond its own end.
        DatabaseError::Storage(redb::StorageError::Io(error))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            refused(error.to_string())
        }
        // No program of ours ever wrote an older format of the engine.
        DatabaseError::UpgradeRequired(_) => refused(error.to_string()),
        DatabaseError::Storage(redb::StorageError::Io(error)) => match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable(options.folder.clone())
            }
            _ => OpenError::Io(options.folder.clone(), error),
        },
        other => OpenError::Io(options.folder.clone(), io::Error::other(other)),
    }
}

pub fn damaged(error: redb::Error) -> OpenError {
    OpenError::Damaged(error.to_string())
}

/// Reads what the store says about itself; `None` if the store is new.
pub fn read_facts(database: &Database) -> Result<Option<Facts>, OpenError> {
    let row = |key: &[u8]| -> Result<Option<Vec<u8>>, OpenError> {
        let txn = database.begin_read().map_err(|error| damaged(error.into()))?;
        tables::read_row(&txn, Place::Meta, key).map_err(damaged)
    };
    let format = row(meta::FORMAT)?;
    let Some(format) = format else { return Ok(None) };
    let missing = |what: &str| OpenError::Damaged(format!("table meta lacks {what}"));
    let found = format.try_into().map(u32::from_le_bytes).map_err(|_| missing("its format"))?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { found, known: FORMAT });
    }
    if found < FORMAT {
        return Err(OpenError::OlderFormat { found, known: FORMAT });
    }
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    let state = row(meta::STATE)?.ok_or_else(|| missing("the state"))?;
    let (commit, journal_end) = state.split_at_checked(8).ok_or_else(|| missing("the state"))?;
    let mut facts = Facts {
        epoch: row(meta::EPOCH)?.as_deref().and_then(number).map(Epoch).ok_or_else(|| missing("the epoch"))?,
        hash_key: row(meta::HASH_KEY)?.and_then(|key| key.try_into().ok()).ok_or_else(|| missing("the hash key"))?,
        versions_reserved: row(meta::VERSIONS_RESERVED)?.as_deref().and_then(number).unwrap_or(0),
        commit: number(commit).ok_or_else(|| missing("the state"))?,
        journal_end: number(journal_end).ok_or_else(|| missing("the state"))?,
        indexed: 0,
    };
    if planted("version_reused") {
        facts.versions_reserved = highest_version(database).map_err(damaged)? + 1;
    }
    Ok(Some(facts))
}

fn create(database: &Database, options: &OpenOptions) -> Result<Facts, redb::Error> {
    let facts = Facts {
        epoch: Epoch(options.now_ms.max(1) as u64),
        hash_key: rand::random(),
        versions_reserved: 0,
        commit: 1,
        journal_end: 0,
        indexed: 0,
    };
    let txn = database.begin_write()?;
    let mut tables = Tables::new(&txn);
    let rows = tables.open(Place::Meta)?;
    rows.insert(meta::FORMAT, format_of_new_stores().to_le_bytes().as_slice())?;
    rows.insert(meta::EPOCH, facts.epoch.0.to_le_bytes().as_slice())?;
    rows.insert(meta::HASH_KEY, facts.hash_key.as_slice())?;
    rows.insert(meta::STATE, state_row(facts.commit, facts.journal_end).as_slice())?;
    drop(tables);
    txn.commit()?;
    Ok(facts)
}

/// The row of [`meta::STATE`].
pub fn state_row(commit: u64, journal_end: u64) -> Vec<u8> {
    [commit.to_le_bytes(), journal_end.to_le_bytes()].concat()
}

#[cfg(not(feature = "fault-points"))]
const fn format_of_new_stores() -> u32 {
    FORMAT
}

/// A test can have the store of a program to come.
#[cfg(feature = "fault-points")]
fn format_of_new_stores() -> u32 {
    std::env::var("IM_FAULT_STORE_FORMAT").ok().and_then(|text| text.parse().ok()).unwrap_or(FORMAT)
}

/// For the planted bug alone.
fn highest_version(database: &Database) -> Result<u64, redb::Error> {
    let Some(table) = tables::open_to_read(&database.begin_read()?, Place::Inbox)? else { return Ok(0) };
    let mut highest = 0;
    for row in table.iter()? {
        let version = row?.1.value().first_chunk().copied().map(u64::from_le_bytes);
        highest = highest.max(version.unwrap_or(0));
    }
    Ok(highest)
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Damaged(place) => Self::Damaged(place),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
