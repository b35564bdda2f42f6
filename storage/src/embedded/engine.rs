//! The open file, shared by its readers and its one writer.
//!
//! In: a database, opened and checked. Out: snapshots to read. Always: closed once, by the writer, when it stops; every
//! later call answers that the store is closed.

use super::{health::Health, recent::Recent, tables::store_error, witness::Witness};
use crate::ports::StoreError;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase};
use std::{
    fs::File,
    sync::{
        Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub struct Engine {
    database: RwLock<Option<Database>>,
    pub health: Health,
    pub witness: Witness,
    recent: RwLock<Recent>,
    /// The journal position behind everything stored, as of the last commit.
    journal_end: AtomicU64,
    /// Something was committed that no later commit has made durable yet.
    unsynced: AtomicBool,
    /// The lock that keeps a second process out of the folder; let go at the close.
    folder: Mutex<Option<File>>,
}

impl Engine {
    pub fn new(database: Database, witness: Witness, recent: Recent, journal_end: u64, folder: Option<File>) -> Self {
        Self {
            recent: RwLock::new(recent),
            database: RwLock::new(Some(database)),
            health: Health::new(),
            witness,
            journal_end: AtomicU64::new(journal_end),
            unsynced: AtomicBool::new(false),
            folder: Mutex::new(folder),
        }
    }

    pub fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the sorted tables may lack. A snapshot that is to agree with it is taken while it is held.
    pub fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn recent_mut(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether a power cut now would take something that readers see.
    pub fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire)
    }

    /// What the last commit was: a synced one makes all before it durable too.
    pub fn set_unsynced(&self, unsynced: bool) {
        self.unsynced.store(unsynced, Ordering::Release);
    }

    /// Waits for the reads under way and closes the file, so that the next open need not repair it.
    pub fn close(&self) -> Result<(), StoreError> {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(database) = database else { return Ok(()) };
        let closed = database.close().map_err(|error: DatabaseError| store_error(error.into()));
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        closed
    }
}

pub fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
