//! The one thread that writes: group commit.
//!
//! In: jobs from any task, over a bounded queue. Out: their results, after the commit that holds them. Always: jobs are
//! applied in the order they came, all that wait together in one transaction, synced if any of them needs it; a lone job
//! never waits for company; before the file is closed everything is synced. The first failed commit ends all writing: a sync that failed once says nothing when it
//! succeeds later.

use super::{
    engine::{Engine, closed},
    index::{self, Run},
    journal, open,
    recent::Fresh,
    tables::{Place, Tables, meta, store_error},
};
use crate::{planted::planted, ports::StoreError};
use im_proto::{LogId, Seq};
use lru::LruCache;
use redb::{Durability, StorageError, TableError};
use std::{
    collections::HashSet,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait for the writer. When full, callers wait their turn.
const JOBS_WAITING_MAX: usize = 1_024;
/// Rows of one transaction; what waits behind them comes in the next. Keeps a commit in the milliseconds.
const COMMIT_ROWS_MAX: usize = 4_096;
/// A disk that does not answer for as long is taken for failed: the port promises an answer, and one that does not
/// change later.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Heads of logs that the writer remembers; others are read again.
const HEADS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// What the writer knows between transactions.
pub struct Memory {
    /// The number of the last synced commit.
    pub commit: u64,
    /// What this transaction stores, and the client ids of it.
    pub fresh: Vec<Fresh>,
    pub fresh_ids: HashSet<[u8; 16]>,
    /// The position behind everything stored; in a transaction, before what it stores.
    pub journal_end: u64,
    pub heads: LruCache<LogId, Seq>,
    /// What was stored before and may not be in the sorted tables.
    pub engine: Arc<Engine>,
    pub run: Option<Run>,
    /// The position that the finished runs reach to.
    pub indexed: u64,
    /// Entries in memory that begin a run.
    pub run_entries: usize,
}

/// Why a job did nothing.
pub enum WriteError {
    /// This job alone is refused; the others of its transaction go on.
    Refused(StoreError),
    /// The transaction cannot go on.
    Engine(redb::Error),
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<redb::Error> for WriteError {
    fn from(error: redb::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<TableError> for WriteError {
    fn from(error: TableError) -> Self {
        Self::Engine(error.into())
    }
}

/// Whether a job's caller relies on it after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    Durable,
    /// Visible at once, durable with the next job that is.
    Later,
}

/// One job, with its result's type hidden.
trait Job: Send {
    fn sync(&self) -> Sync;
    fn rows(&self) -> usize;
    fn apply(&mut self, tables: &mut Tables<'_>, memory: &mut Memory) -> Result<(), redb::Error>;
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Closure<F, T> {
    sync: Sync,
    rows: usize,
    run: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Closure<F, T>
where
    F: FnMut(&mut Tables<'_>, &mut Memory) -> Result<T, WriteError> + Send,
    T: Send,
{
    fn sync(&self) -> Sync {
        self.sync
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn apply(&mut self, tables: &mut Tables<'_>, memory: &mut Memory) -> Result<(), redb::Error> {
        self.result = Some(match (self.run)(tables, memory) {
            Ok(value) => Ok(value),
            Err(WriteError::Refused(error)) => Err(error),
            Err(WriteError::Engine(error)) => return Err(error),
        });
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let result = committed.and_then(|()| result.unwrap_or_else(|| Err(closed())));
        // A caller that went away does not need its answer.
        let _ = reply.send(result);
    }
}

enum Order {
    Do(Box<dyn Job>),
    Stop(oneshot::Sender<Result<(), StoreError>>),
}

/// The way to the writing thread.
#[derive(Clone)]
pub struct Writer {
    orders: mpsc::Sender<Order>,
    engine: Arc<Engine>,
}

impl Writer {
    pub fn start(engine: Arc<Engine>, memory: Memory) -> std::io::Result<Self> {
        let (orders, waiting) = mpsc::channel(JOBS_WAITING_MAX);
        let thread = Thread { engine: engine.clone(), waiting, memory, group: Vec::new() };
        std::thread::Builder::new().name("im-store".to_owned()).spawn(move || thread.run())?;
        Ok(Self { orders, engine })
    }

    /// Runs `job` in the next transaction and returns its result when that is committed. A job that refuses must not
    /// have written, or must be repeatable. `rows` says how much it is, for [`COMMIT_ROWS_MAX`].
    pub async fn write<T, F>(&self, sync: Sync, rows: usize, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &mut Memory) -> Result<T, WriteError> + Send + 'static,
    {
        self.engine.health.check()?;
        let (reply, result) = oneshot::channel();
        let job = Box::new(Closure { sync, rows, run: job, result: None, reply });
        let answer = async {
            self.orders.send(Order::Do(job)).await.map_err(|_| closed())?;
            result.await.unwrap_or_else(|_| Err(closed()))
        };
        match tokio::time::timeout(WRITE_WAIT_MAX, answer).await {
            Ok(result) => result,
            Err(_) => {
                self.engine.health.fail("a write was not answered in 10 s");
                Err(StoreError::Unavailable("the write was not answered in time".to_owned()))
            }
        }
    }

    /// Whether something that was written and answered is not durable yet.
    pub fn is_unsynced(&self) -> bool {
        self.engine.is_unsynced()
    }

    /// Writes what waits, closes the file and ends the thread.
    pub async fn stop(&self) -> Result<(), StoreError> {
        let (reply, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(reply)).await.is_err() {
            return Ok(());
        }
        stopped.await.unwrap_or(Ok(()))
    }
}

/// Opens a fresh [`Memory`] at what the store holds.
impl Memory {
    pub fn new(engine: Arc<Engine>, commit: u64, indexed: u64, run_entries: usize) -> Self {
        Self {
            commit,
            fresh: Vec::new(),
            fresh_ids: HashSet::new(),
            journal_end: engine.journal_end(),
            heads: LruCache::new(HEADS_MAX),
            engine,
            run: None,
            indexed,
            run_entries,
        }
    }
}

struct Thread {
    engine: Arc<Engine>,
    waiting: mpsc::Receiver<Order>,
    memory: Memory,
    group: Vec<Box<dyn Job>>,
}

impl Thread {
    fn run(mut self) {
        let mut stop = None;
        while stop.is_none() {
            let Some(first) = self.waiting.blocking_recv() else { break };
            stop = self.gather(first);
            let committed = if self.group.is_empty() { Ok(()) } else { self.commit() };
            for job in self.group.drain(..) {
                job.finish(committed.clone());
            }
        }
        self.waiting.close();
        while let Ok(order) = self.waiting.try_recv() {
            if let Order::Do(job) = order {
                job.finish(Err(closed()));
            }
        }
        let synced = if self.engine.is_unsynced() { self.commit_durably() } else { Ok(()) };
        let closed = self.engine.close();
        if let Some(reply) = stop {
            let _ = reply.send(synced.and(closed));
        }
    }

    /// Takes `first` and all that waits behind it, up to the bound. Answers a stop if it met one.
    fn gather(&mut self, first: Order) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let mut rows = 0;
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Stop(reply) => return Some(reply),
                Order::Do(job) => {
                    rows += job.rows();
                    self.group.push(job);
                }
            }
            next = if rows < COMMIT_ROWS_MAX { self.waiting.try_recv().ok() } else { None };
        }
        None
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let durable = self.group.iter().any(|job| job.sync() == Sync::Durable);
        self.commit_as(durable)
    }

    /// What was to be durable later: closing the file would sync it, and the witness would not know of it.
    fn commit_durably(&mut self) -> Result<(), StoreError> {
        if planted("close_unwitnessed") { Ok(()) } else { self.commit_as(true) }
    }

    fn commit_as(&mut self, durable: bool) -> Result<(), StoreError> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_commit(durable)));
        let committed = outcome.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the writer met bytes it cannot read and panicked".to_owned()))
        });
        if let Err(error) = &committed {
            self.engine.health.fail(&error.to_string());
        }
        committed
    }

    fn try_commit(&mut self, durable: bool) -> Result<(), StoreError> {
        self.engine.health.check()?;
        index::begin(&mut self.engine.recent_mut(), &mut self.memory);
        let run_finished = self.transact(durable).map_err(store_error)?;
        self.engine.set_unsynced(!durable);
        self.show(run_finished);
        if durable && let Err(error) = self.engine.witness.note(self.memory.commit) {
            tracing::warn!(%error, "the witness of the last commit could not be written");
        }
        Ok(())
    }

    /// Lets readers see what was committed: first the entries, then the place up to which the journal names them.
    fn show(&mut self, run_finished: bool) {
        let mut recent = self.engine.recent_mut();
        let indexed = if run_finished { recent.thaw() } else { None };
        self.memory.fresh.drain(..).for_each(|fresh| recent.add(fresh));
        drop(recent);
        drop(indexed);
        self.memory.fresh_ids.clear();
        self.engine.set_journal_end(self.memory.journal_end);
    }

    /// Answers whether it finished a run of the index.
    fn transact(&mut self, durable: bool) -> Result<bool, redb::Error> {
        let database = self.engine.database();
        let Some(database) = database.as_ref() else { return Err(redb::Error::DatabaseClosed) };
        let mut txn = database.begin_write()?;
        if !durable || planted("fsync_removed") {
            txn.set_durability(Durability::None)?;
        }
        let mut tables = Tables::new(&txn);
        for job in &mut self.group {
            job.apply(&mut tables, &mut self.memory)?;
        }
        let run_finished = index::step(&mut tables, &mut self.memory)?;
        index::write_pending(&mut tables, &self.memory)?;
        journal::write(&mut tables, &mut self.memory)?;
        if durable {
            self.memory.commit += 1;
            let state = open::state_row(self.memory.commit, self.memory.journal_end);
            tables.open(Place::Meta)?.insert(meta::STATE, state.as_slice())?;
        }
        drop(tables);
        txn.commit()?;
        Ok(run_finished)
    }
}
