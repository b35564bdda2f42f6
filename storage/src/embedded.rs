//! The adapters of standalone mode: one file, one folder, nothing to install.
//!
//! In: a folder. Out: every port but delivery, which is a call into the gateway. Always: the same promises as the
//! distributed adapters, checked by the same suites.
//!
//! | file | what it is |
//! |---|---|
//! | `open`, `check`, `witness` | opening the folder, and refusing a damaged one |
//! | `restore` | what makes a backup, copied into the folder, a store again |
//! | `engine`, `writer`, `health` | snapshots; the one thread that commits; what a failed commit means |
//! | `tables`, `journal`, `claims` | keys and rows; the order of storing; who may say how far it is shown |
//! | `recent`, `index` | what was stored lately, in memory, and its way into the sorted tables |
//! | `entry_log`, `directory`, `inbox`, `relations` | the durable ports; `inbox_rows` and `versions` are the inbox in memory |
//! | `routes`, `queue` | the ports that live in memory alone |

mod check;
mod claims;
mod directory;
mod engine;
mod entry_log;
mod health;
mod inbox;
mod inbox_rows;
mod index;
mod journal;
mod open;
mod queue;
mod recent;
mod relations;
mod restore;
mod routes;
mod tables;
mod versions;
mod views;
mod witness;
mod writer;

pub use directory::EmbeddedDirectory;
pub use entry_log::EmbeddedEntryLog;
pub use inbox::EmbeddedInbox;
pub use open::{CACHE_BYTES, OpenError, OpenOptions};
pub use queue::{EmbeddedConsumer, EmbeddedQueue};
pub use relations::EmbeddedRelations;
pub use restore::{Restored, restore};
pub use routes::EmbeddedRoutes;
pub use witness::Witness;

use crate::ports::StoreError;
use engine::Engine;
use std::{io, sync::Arc};
use writer::{Memory, Writer};

/// An open store. Dropping it, with all its ports, closes it in order too, but nobody waits for that.
pub struct EmbeddedStore {
    engine: Arc<Engine>,
    writer: Writer,
    entry_log: Arc<EmbeddedEntryLog>,
    directory: Arc<EmbeddedDirectory>,
    inbox: Arc<EmbeddedInbox>,
    relations: Arc<EmbeddedRelations>,
}

impl EmbeddedStore {
    /// Opens the folder, or makes it. Blocks for as long as the checks of a store that was not closed in order take.
    pub fn open(options: &OpenOptions) -> Result<Self, OpenError> {
        let (engine, facts) = open::open_folder(options)?;
        Self::start(engine, facts, index::RUN_ENTRIES, options)
    }

    /// Opens what `backend` gives instead of a file of the folder, and indexes in runs of `run_entries`: for tests of
    /// failing disks.
    pub fn open_with_backend<B: redb::StorageBackend>(
        backend: impl Fn() -> io::Result<B>,
        witness: Witness,
        run_entries: usize,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let (engine, facts) = open::open(backend, witness, None, options)?;
        Self::start(engine, facts, run_entries, options)
    }

    fn start(
        engine: Arc<Engine>,
        facts: open::Facts,
        run_entries: usize,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let memory = Memory::new(engine.clone(), facts.commit, facts.indexed, run_entries);
        let writer = Writer::start(engine.clone(), memory);
        let writer = writer.map_err(|error| OpenError::Io(options.folder.clone(), error))?;
        let log = EmbeddedEntryLog::new(engine.clone(), writer.clone(), facts.epoch, facts.hash_key);
        let directory = EmbeddedDirectory::new(engine.clone(), writer.clone());
        let inbox = EmbeddedInbox::new(engine.clone(), writer.clone(), facts.versions_reserved);
        let relations = EmbeddedRelations::new(engine.clone(), writer.clone());
        Ok(Self {
            engine,
            writer,
            entry_log: Arc::new(log),
            directory: Arc::new(directory),
            inbox: Arc::new(inbox),
            relations: Arc::new(relations),
        })
    }

    pub fn entry_log(&self) -> Arc<EmbeddedEntryLog> {
        self.entry_log.clone()
    }

    pub fn directory(&self) -> Arc<EmbeddedDirectory> {
        self.directory.clone()
    }

    pub fn inbox(&self) -> Arc<EmbeddedInbox> {
        self.inbox.clone()
    }

    pub fn relations(&self) -> Arc<EmbeddedRelations> {
        self.relations.clone()
    }

    /// Returns, with the reason, when the store can no longer promise anything: the process says so and exits.
    pub async fn failed(&self) -> String {
        self.engine.health.failed().await
    }

    /// Writes what waits and closes the file, so that the next open is short. Every later call of a port answers
    /// `Unavailable`.
    pub async fn close(&self) -> Result<(), StoreError> {
        let flushed = self.inbox.flush().await;
        self.writer.stop().await.and(flushed)
    }
}
