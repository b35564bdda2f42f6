//! The inbox on the embedded store: rows in memory, written behind.
//!
//! In: moves. Out: versions and rows. Always: many moves of a row cost one write; what waits to be written is bounded,
//! and the mover that passes the bound writes it; what a flush has begun it finishes, whoever stops waiting for it; durable
//! with `cover`.

use super::{
    claims::Claims,
    engine::{Engine, closed},
    inbox_rows::{Row, Stripe},
    tables::{self, Place, meta, open_to_read, second_of_pair, store_error},
    versions::Versions,
    writer::{Sync, Writer},
};
use crate::planted::planted;
use crate::ports::{
    Claim, Covered, Cursor, Inbox, InboxPage, InboxRow, Move, Moved, Projection, ReadCursor, Shard, StoreError,
};
use async_trait::async_trait;
use im_proto::{InboxVersion, LogId, UserId};
use redb::ReadTransaction;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

/// Locks over the users, so that two workers seldom wait for each other.
const STRIPES: usize = 16;
/// Users and rows in memory, about 100 bytes each. Above it, written ones are forgotten and read again when needed.
const ROWS_HELD_MAX: usize = 262_144;
/// Rows that wait to be written. The mover that passes it writes them.
const ROWS_CHANGED_MAX: i64 = 65_536;
/// Rows of one flush job, so that appends come in between.
const FLUSH_ROWS_MAX: usize = 2_048;

pub struct EmbeddedInbox {
    engine: Arc<Engine>,
    writer: Writer,
    versions: Versions,
    rows: Arc<Rows>,
    claims: Claims,
}

/// The rows in memory and their way to the table.
struct Rows {
    writer: Writer,
    stripes: [Mutex<Stripe>; STRIPES],
    hasher: RandomState,
    /// Rows that wait in all stripes. Below zero for a moment when a flush takes rows that their mover has yet to count.
    changed: AtomicI64,
    flushing: tokio::sync::Mutex<()>,
}

impl EmbeddedInbox {
    pub fn new(engine: Arc<Engine>, writer: Writer, versions_reserved: u64) -> Self {
        let rows = Rows {
            writer: writer.clone(),
            stripes: std::array::from_fn(|_| Mutex::new(Stripe::new())),
            hasher: RandomState::new(),
            changed: AtomicI64::new(0),
            flushing: tokio::sync::Mutex::default(),
        };
        Self {
            engine,
            writer,
            versions: Versions::new(versions_reserved),
            rows: Arc::new(rows),
            claims: Claims::new(meta::COVERED_BY_INBOX),
        }
    }

    /// Writes what waits, visible to a later open only behind a synced commit. A task of its own: a caller that gives up in
    /// the middle must not take rows with it that no longer count as changed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        if planted("cut_flush_forgotten") {
            return self.rows.flush().await;
        }
        let rows = self.rows.clone();
        tokio::spawn(async move { rows.flush().await }).await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Rows {
    fn stripe(&self, user: &UserId) -> MutexGuard<'_, Stripe> {
        let place = self.hasher.hash_one(user) as usize % STRIPES;
        self.stripes[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Must not be dropped half-way.
    async fn flush(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.flushing.lock().await;
        for stripe in &self.stripes {
            let lock = || stripe.lock().unwrap_or_else(PoisonError::into_inner);
            let (number, mut rows) = {
                let mut stripe = lock();
                self.changed.fetch_sub(stripe.changed() as i64, Ordering::Relaxed);
                stripe.begin_flush()
            };
            while !rows.is_empty() {
                let behind = rows.split_off(rows.len().min(FLUSH_ROWS_MAX));
                let job = std::mem::replace(&mut rows, behind);
                let write = self.writer.write(Sync::Later, job.len(), move |tables, _| {
                    let inbox = tables.open(Place::Inbox)?;
                    for (key, row) in &job {
                        inbox.insert(key.as_slice(), row.as_slice())?;
                    }
                    Ok(())
                });
                write.await?;
            }
            lock().end_flush(number, ROWS_HELD_MAX / STRIPES);
        }
        Ok(())
    }
}

#[async_trait]
impl Inbox for EmbeddedInbox {
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError> {
        self.engine.health.check()?;
        self.versions.promise(moves.len(), &self.writer).await?;
        let mut changed = 0;
        let bump = |moved: &Move| {
            let (answer, first) = self.rows.stripe(&moved.user).bump(&self.engine, &self.versions, moved)?;
            changed += i64::from(first);
            Ok(answer)
        };
        let answers = moves.iter().map(bump).collect();
        // Counted also if a later move failed: the rows do wait.
        if self.rows.changed.fetch_add(changed, Ordering::Relaxed) + changed > ROWS_CHANGED_MAX {
            self.flush().await?;
        }
        answers
    }

    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError> {
        // The snapshot is taken under the lock: a row that is not in memory then is in the table already.
        let (held, version, txn) = {
            let mut stripe = self.rows.stripe(user);
            let version = stripe.version(&self.engine, user)?;
            (stripe.held_rows(user), version, self.engine.read()?)
        };
        if version <= after {
            return Ok(InboxPage { rows: Vec::new(), complete: true, version });
        }
        let mut rows = merged(&txn, user, held)?;
        rows.retain(|row| row.version > after);
        rows.sort_unstable_by_key(|row| row.version);
        let complete = rows.len() <= limit;
        rows.truncate(limit);
        Ok(InboxPage { rows, complete, version })
    }

    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError> {
        users.iter().map(|user| self.rows.stripe(user).version(&self.engine, user)).collect()
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        let read = |(log, user): &(LogId, UserId)| {
            let held = self.rows.stripe(user).held_row(user, log);
            // A row leaves memory only once the table has it, so a later snapshot shows it.
            Ok(held.map_or_else(|| Row::read(&self.engine, user, log), Ok)?.read)
        };
        of.iter().map(read).collect()
    }
}

#[async_trait]
impl Projection for EmbeddedInbox {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        self.claims.claim(shards, &self.engine.read()?)
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        self.flush().await?;
        self.claims.cover(claim, cursor, &self.writer).await
    }
}

/// All rows of `user`: those of the table, with what memory knows better.
fn merged(txn: &ReadTransaction, user: &UserId, mut held: HashMap<LogId, Row>) -> Result<Vec<InboxRow>, StoreError> {
    let mut rows = Vec::new();
    if let Some(table) = open_to_read(txn, Place::Inbox).map_err(store_error)? {
        let engine = |error: redb::StorageError| store_error(error.into());
        let (start, end) = (tables::prefix(user.as_str()), tables::prefix_end(user.as_str()));
        // The row at the prefix itself is the user's version.
        let behind_version = [start.as_slice(), &[0]].concat();
        for row in table.range(behind_version.as_slice()..end.as_slice()).map_err(engine)? {
            let (key, row) = row.map_err(engine)?;
            let log = second_of_pair(key.value(), user.as_str(), Place::Inbox, LogId::parse)?;
            let row = match held.remove(&log) {
                Some(newer) => newer,
                None => Row::decode(row.value())?,
            };
            rows.push(row.named(log));
        }
    }
    // A held row without a version only says that the table has none.
    rows.extend(held.into_iter().filter(|(_, row)| row.version.0 > 0).map(|(log, row)| row.named(log)));
    Ok(rows)
}
