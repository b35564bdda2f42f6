//! The open file, shared by its readers and its one writer.
//!
//! In: a database, opened and checked. Out: snapshots to read. Always: closed once, by the writer, when it stops; every
//! later call answers that the store is closed.

use super::{health::Health, tables::store_error, witness::Witness};
use crate::ports::StoreError;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase};
use std::{
    fs::File,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

pub struct Engine {
    database: RwLock<Option<Database>>,
    pub health: Health,
    pub witness: Witness,
    /// The journal position behind everything stored, as of the last commit.
    journal_end: AtomicU64,
    /// Held, never read: the lock that keeps a second process out of the folder.
    _folder: Option<File>,
}

impl Engine {
    pub fn new(database: Database, witness: Witness, journal_end: u64, folder: Option<File>) -> Self {
        Self {
            database: RwLock::new(Some(database)),
            health: Health::new(),
            witness,
            journal_end: AtomicU64::new(journal_end),
            _folder: folder,
        }
    }

    pub fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the last commit.
    pub fn read(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.database();
        let database = database.as_ref().ok_or_else(closed)?;
        database.begin_read().map_err(|error| store_error(error.into()))
    }

    pub fn journal_end(&self) -> u64 {
        self.journal_end.load(Ordering::Acquire)
    }

    pub fn set_journal_end(&self, position: u64) {
        self.journal_end.store(position, Ordering::Release);
    }

    /// Waits for the reads under way and closes the file, so that the next open need not repair it.
    pub fn close(&self) -> Result<(), StoreError> {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(database) = database else { return Ok(()) };
        database.close().map_err(|error: DatabaseError| store_error(error.into()))
    }
}

pub fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
