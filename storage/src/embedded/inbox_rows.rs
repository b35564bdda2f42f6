//! The inbox rows in memory: a part of the table, with what moved since it was last written.
//!
//! In: moves. Out: versions; rows to write. Always: what memory holds of a row is at least as new as the table; a row
//! leaves memory only when the table has it; a user's versions rise, because they are taken under the lock that guards
//! the user.

use super::{
    engine::Engine,
    tables::{self, Parts, Place, store_error},
    versions::Versions,
};
use crate::ports::{InboxRow, Move, Moved, ReadCursor, StoreError};
use im_proto::{InboxVersion, LogId, Ordinal, Seq, UserId};
use std::collections::HashMap;

/// A row of the table, without its key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row {
    pub version: InboxVersion,
    pub head: Seq,
    pub head_ordinal: Ordinal,
    pub read: ReadCursor,
}

impl Row {
    pub fn encode(&self) -> Vec<u8> {
        let read = self.read;
        [self.version.0, self.head.0, self.head_ordinal.0, read.seq.0, read.ordinal.0].map(u64::to_le_bytes).concat()
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut parts = Parts::new(row, Place::Inbox);
        Ok(Self {
            version: InboxVersion(parts.u64()?),
            head: Seq(parts.u64()?),
            head_ordinal: Ordinal(parts.u64()?),
            read: ReadCursor { seq: Seq(parts.u64()?), ordinal: Ordinal(parts.u64()?) },
        })
    }

    pub fn read(engine: &Engine, user: &UserId, log: &LogId) -> Result<Self, StoreError> {
        let key = tables::pair(user.as_str(), log.as_str());
        let row = tables::read_row(&engine.read()?, Place::Inbox, &key).map_err(store_error)?;
        row.map_or(Ok(Self::default()), |row| Self::decode(&row))
    }

    pub fn named(self, log: LogId) -> InboxRow {
        let Self { version, head, head_ordinal, read } = self;
        InboxRow { log, version, head, head_ordinal, read }
    }
}

struct Kept {
    log: LogId,
    row: Row,
    /// The flush that takes its last change to the table.
    flush: u64,
}

struct User {
    version: InboxVersion,
    /// Some of the user's rows, by log.
    rows: Vec<Kept>,
    /// The last flush that any of the rows waits for.
    flush: u64,
}

/// The users of one lock.
pub struct Stripe {
    users: HashMap<UserId, User>,
    /// Rows that changed since the last flush began, each once.
    changed: Vec<(UserId, LogId)>,
    /// The flush that will take what changes now. Those below it have begun.
    flush: u64,
    /// Users and rows held.
    held: usize,
}

/// Rows for the table: key and value.
pub type TableRows = Vec<(Vec<u8>, Vec<u8>)>;

impl Stripe {
    pub fn new() -> Self {
        Self { users: HashMap::new(), changed: Vec::new(), flush: 1, held: 0 }
    }

    fn user(&mut self, engine: &Engine, user: &UserId) -> Result<&mut User, StoreError> {
        if !self.users.contains_key(user) {
            let key = tables::prefix(user.as_str());
            let row = tables::read_row(&engine.read()?, Place::Inbox, &key).map_err(store_error)?;
            let version = row.map_or(Ok(0), |row| Parts::new(&row, Place::Inbox).u64())?;
            let loaded = User { version: InboxVersion(version), rows: Vec::new(), flush: 0 };
            self.users.insert(user.clone(), loaded);
            self.held += 1;
        }
        self.users.get_mut(user).ok_or_else(|| StoreError::Unavailable("a user was lost".to_owned()))
    }

    pub fn version(&mut self, engine: &Engine, user: &UserId) -> Result<InboxVersion, StoreError> {
        Ok(self.user(engine, user)?.version)
    }

    /// Answers the user's versions, and whether one more row waits to be written.
    pub fn bump(&mut self, engine: &Engine, versions: &Versions, moved: &Move) -> Result<(Moved, bool), StoreError> {
        let flush = self.flush;
        let user = self.user(engine, &moved.user)?;
        let (place, loaded) = match user.rows.binary_search_by(|kept| kept.log.cmp(&moved.log)) {
            Ok(place) => (place, 0),
            Err(place) => {
                let row = Row::read(engine, &moved.user, &moved.log)?;
                user.rows.insert(place, Kept { log: moved.log.clone(), row, flush: 0 });
                (place, 1)
            }
        };
        let kept = &mut user.rows[place];
        let previous = user.version;
        let row = &mut kept.row;
        let mut first = false;
        if moved.touch || moved.head > row.head || moved.read.seq > row.read.seq {
            if moved.head > row.head {
                (row.head, row.head_ordinal) = (moved.head, moved.head_ordinal);
            }
            if moved.read.seq > row.read.seq {
                row.read = moved.read;
            }
            row.version = versions.take();
            user.version = row.version;
            first = kept.flush != flush;
            (kept.flush, user.flush) = (flush, flush);
        }
        let answer = Moved { previous, version: user.version };
        self.held += loaded;
        if first {
            self.changed.push((moved.user.clone(), moved.log.clone()));
        }
        Ok((answer, first))
    }

    /// How many rows wait for the next flush.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The row, if memory holds it.
    pub fn held_row(&self, user: &UserId, log: &LogId) -> Option<Row> {
        let rows = &self.users.get(user)?.rows;
        let place = rows.binary_search_by(|kept| kept.log.cmp(log)).ok()?;
        Some(rows[place].row)
    }

    /// All rows of the user that memory holds.
    pub fn held_rows(&self, user: &UserId) -> HashMap<LogId, Row> {
        let rows = self.users.get(user).map(|user| user.rows.as_slice()).unwrap_or_default();
        rows.iter().map(|kept| (kept.log.clone(), kept.row)).collect()
    }

    /// Begins a flush: its number, and the rows it has to write, by key; a user's version comes before its rows.
    pub fn begin_flush(&mut self) -> (u64, TableRows) {
        let number = self.flush;
        self.flush += 1;
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        let mut rows = TableRows::with_capacity(changed.len() * 2);
        let mut last: Option<&UserId> = None;
        for (user, log) in &changed {
            let Some(row) = self.held_row(user, log) else { continue };
            if last != Some(user) {
                let version = self.users.get(user).map(|user| user.version).unwrap_or_default();
                rows.push((tables::prefix(user.as_str()), version.0.to_le_bytes().to_vec()));
                last = Some(user);
            }
            rows.push((tables::pair(user.as_str(), log.as_str()), row.encode()));
        }
        (number, rows)
    }

    /// The table has what flush `number` wrote. Above `held_max` users and rows, forgets of those the table has, down
    /// to half; which ones is left to chance.
    pub fn end_flush(&mut self, number: u64, held_max: usize) {
        if self.held <= held_max {
            return;
        }
        let mut held = self.held;
        self.users.retain(|_, user| {
            let stays = held <= held_max / 2 || user.flush > number;
            held -= if stays { 0 } else { 1 + user.rows.len() };
            stays
        });
        self.held = held;
    }
}
