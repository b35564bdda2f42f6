//! The inbox on Redis: two keys per user, the rows by log and the logs by version.
//!
//! In: moves. Out: versions and rows. Always: a user's version is that of the row that moved last, and rows are never
//! dropped: there is one for each conversation the user ever had. A server whose memory is full refuses moves
//! (`Unavailable`) and still answers reads. A row that somebody else wrote is damage to who reads it, until the next move in
//! its log writes it anew: moves go on, for a batch that one row could refuse would be repeated for ever.
//!
//! Versions are max(stored + 1, the server's clock in microseconds). Lua's numbers and the scores of sorted sets are exact
//! up to 2^53, about 9.0e15; the clock reaches that in the year 2255. A move costs the server more than a microsecond, so no
//! user's version runs ahead of the clock, and what was given out before everything was lost lies below every later one. (In
//! milliseconds it did not: a flush between two moves takes less than one.) A server that takes over must not have a clock
//! further behind than the takeover takes.

use super::{
    answer::{damaged, list, number, text},
    claims::Claims,
    keys::Keys,
    link::{Link, bounded},
    scripts::{self, BUMP, SINCE},
};
use crate::planted::planted;
use crate::ports::{
    Claim, Covered, Cursor, Inbox, InboxPage, InboxRow, Move, Moved, Projection, ReadCursor, Shard, StoreError,
};
use async_trait::async_trait;
use im_proto::{InboxVersion, LogId, Ordinal, Seq, UserId};
use redis::{Cmd, Value};
use std::collections::HashMap;

/// Moves of one script, which nothing else interrupts: about half a millisecond.
const MOVES_PER_SCRIPT_MAX: usize = 64;
/// Rows of one page, whatever was asked for.
const PAGE_ROWS_MAX: usize = 1_000;
/// Numbers above are not exact in Lua. No log comes near.
const NUMBER_MAX: u64 = 1 << 53;

const PLACE: &str = "the inbox";

pub struct RedisInbox {
    link: Link,
    keys: Keys,
    claims: Claims,
}

impl RedisInbox {
    pub(super) fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys, claims: Claims::new() }
    }

    /// One script for some moves, in their order; users in the order they first appear.
    fn bump_script(&self, moves: &[Move]) -> Result<Cmd, StoreError> {
        let mut users: HashMap<&UserId, usize> = HashMap::new();
        let mut keys = Vec::new();
        for moved in moves {
            let next = users.len() + 1;
            users.entry(&moved.user).or_insert_with(|| {
                keys.extend([self.keys.inbox_rows(&moved.user), self.keys.inbox_order(&moved.user)]);
                next
            });
        }
        let mut command = scripts::call(&BUMP, &keys);
        for Move { user, log, head, head_ordinal, read, touch } in moves {
            let numbers = [head.0, head_ordinal.0, read.seq.0, read.ordinal.0];
            if numbers.iter().any(|number| *number > NUMBER_MAX) {
                return Err(StoreError::Damaged(format!("a move in log {log} has a number above 2^53")));
            }
            command.arg(users[user]).arg(log.as_str()).arg(&numbers).arg(u8::from(*touch));
        }
        Ok(command)
    }
}

#[async_trait]
impl Inbox for RedisInbox {
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError> {
        if planted("damaged_row_refused") {
            let rows: Vec<_> = moves.iter().map(|moved| (moved.log.clone(), moved.user.clone())).collect();
            self.reads(&rows).await?;
        }
        let scripts = moves.chunks(MOVES_PER_SCRIPT_MAX).map(|moves| self.bump_script(moves));
        let scripts = scripts.collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::with_capacity(moves.len());
        for answer in bounded(self.link.run(scripts)).await? {
            let mut versions = list(answer, PLACE)?.into_iter();
            while let (Some(previous), Some(version)) = (versions.next(), versions.next()) {
                let (previous, version) = (number(previous, PLACE)?, number(version, PLACE)?);
                answers.push(Moved { previous: InboxVersion(previous), version: InboxVersion(version) });
            }
        }
        if answers.len() == moves.len() { Ok(answers) } else { Err(damaged(PLACE)) }
    }

    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let mut command = scripts::call(&SINCE, &[self.keys.inbox_rows(user), self.keys.inbox_order(user)]);
        // One row more tells whether these are all.
        command.arg(after.0.min(NUMBER_MAX)).arg(limit + 1);
        let (answer, _) = bounded(self.link.run_one(command)).await?;
        page(answer, limit)
    }

    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError> {
        let last_of = |user| {
            let mut command = redis::cmd("ZRANGE");
            command.arg(self.keys.inbox_order(user)).arg(-1).arg(-1).arg("WITHSCORES");
            command
        };
        let answers = bounded(self.link.run(users.iter().map(last_of).collect())).await?;
        let version = |answer| {
            let score = list(answer, PLACE)?.into_iter().nth(1);
            score.map_or(Ok(InboxVersion(0)), |score| number(score, PLACE).map(InboxVersion))
        };
        answers.into_iter().map(version).collect()
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        let row_of = |(log, user): &(LogId, UserId)| {
            let mut command = redis::cmd("HGET");
            command.arg(self.keys.inbox_rows(user)).arg(log.as_str());
            command
        };
        let answers = bounded(self.link.run(of.iter().map(row_of).collect())).await?;
        let read = |answer| match text(answer, PLACE)? {
            Some(row) => Row::decode(&row).map(|row| row.read),
            None => Ok(ReadCursor::default()),
        };
        answers.into_iter().map(read).collect()
    }
}

#[async_trait]
impl Projection for RedisInbox {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        bounded(self.claims.claim(&self.link, &self.keys, shards)).await
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        bounded(self.claims.cover(&self.link, &self.keys, claim, cursor)).await
    }
}

/// A row as it is stored, without its version: `head head_ordinal read read_ordinal`.
struct Row {
    head: Seq,
    head_ordinal: Ordinal,
    read: ReadCursor,
}

impl Row {
    fn decode(row: &str) -> Result<Self, StoreError> {
        let mut numbers = row.split(' ').map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).ok_or_else(|| damaged(PLACE));
        let (head, head_ordinal) = (Seq(next()?), Ordinal(next()?));
        Ok(Self { head, head_ordinal, read: ReadCursor { seq: Seq(next()?), ordinal: Ordinal(next()?) } })
    }
}

/// What the script answered, of which at most `limit` rows belong to the page.
fn page(answer: Value, limit: usize) -> Result<InboxPage, StoreError> {
    let mut parts = list(answer, PLACE)?.into_iter();
    let mut next = || parts.next().ok_or_else(|| damaged(PLACE));
    let version = InboxVersion(number(next()?, PLACE)?);
    let mut order = list(next()?, PLACE)?.into_iter();
    let mut rows = Vec::new();
    for row in list(next()?, PLACE)? {
        let (Some(log), Some(score), Some(row)) = (order.next(), order.next(), text(row, PLACE)?) else {
            return Err(damaged(PLACE));
        };
        let log = text(log, PLACE)?.and_then(|log| LogId::parse(&log).ok()).ok_or_else(|| damaged(PLACE))?;
        let Row { head, head_ordinal, read } = Row::decode(&row)?;
        rows.push(InboxRow { log, version: InboxVersion(number(score, PLACE)?), head, head_ordinal, read });
    }
    let complete = rows.len() <= limit;
    rows.truncate(limit);
    Ok(InboxPage { rows, complete, version })
}
