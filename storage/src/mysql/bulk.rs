//! Statements over many rows.
//!
//! In: rows or keys. Out: the statement for at most [`ROWS_MAX`] of them. Always: values are bound and never part of the text;
//! rows are written by rising key, so that two writers wait for one another and never in a circle.
//!
//! These are the statements that cannot be checked when this is compiled, since their number of rows varies. It is filled up
//! to the next power of two by repeating the last row, which changes nothing, for writing a row twice leaves the same row:
//! so there are few shapes, and each connection has prepared the one it needs.

use crate::ports::{MemberRow, ReadMark};
use im_proto::{LogId, UserId};
use sqlx::{MySql, QueryBuilder};

/// Rows of one statement. A power of two.
pub const ROWS_MAX: usize = 512;
/// Pairs of ids of one question. The optimizer's work grows with their square: 32 pairs took 1 ms, 512 took 490 ms.
pub const PAIRS_MAX: usize = 32;

/// A conversation's row.
pub struct ConversationRow<'a> {
    pub log: &'a LogId,
    /// Of a new one; of one that is known these are not looked at.
    pub name: &'a str,
    pub creator: &'a str,
    pub peer: Option<&'a str>,
    pub applied_seq: u64,
    pub members_count: u64,
}

impl<'a> ConversationRow<'a> {
    /// Of a conversation that is known.
    pub fn known(log: &'a LogId, applied_seq: u64, members_count: u64) -> Self {
        Self { log, name: "", creator: "", peer: None, applied_seq, members_count }
    }
}

fn filled_up<T>(rows: &[T]) -> impl Iterator<Item = &T> {
    debug_assert!(rows.len() <= ROWS_MAX);
    let missing = rows.len().next_power_of_two() - rows.len();
    rows.iter().chain(rows.iter().rev().take(1).cycle().take(missing))
}

/// Makes the conversations that do not exist and locks them all.
pub fn lock_conversations(rows: &[ConversationRow<'_>]) -> QueryBuilder<MySql> {
    upsert_conversations(rows, "log = VALUES(log)")
}

/// Sets what changes of a conversation.
pub fn update_conversations(rows: &[ConversationRow<'_>]) -> QueryBuilder<MySql> {
    upsert_conversations(rows, "applied_seq = VALUES(applied_seq), members_count = VALUES(members_count)")
}

fn upsert_conversations(rows: &[ConversationRow<'_>], update: &str) -> QueryBuilder<MySql> {
    let insert = "INSERT INTO conversations (log, name, creator, peer, applied_seq, members_count) ";
    let mut statement = QueryBuilder::new(insert);
    statement.push_values(filled_up(rows), |mut values, row| {
        values.push_bind(row.log.as_str()).push_bind(row.name).push_bind(row.creator).push_bind(row.peer);
        values.push_bind(row.applied_seq).push_bind(row.members_count);
    });
    statement.push(" ON DUPLICATE KEY UPDATE ").push(update);
    statement
}

/// Columns `log`, `applied_seq`, `members_count`.
pub fn applied(logs: &[&LogId]) -> QueryBuilder<MySql> {
    let mut statement = QueryBuilder::new("SELECT log, applied_seq, members_count FROM conversations WHERE log IN ");
    push_logs(&mut statement, logs);
    statement
}

/// Columns of [`MembershipRow`](super::rows::MembershipRow). A join in one statement: row and header are of one moment.
pub fn memberships(user: &UserId, logs: &[&LogId]) -> QueryBuilder<MySql> {
    let mut statement = QueryBuilder::new(
        "SELECT m.log, m.joined_seq, m.joined_ordinal, m.left_seq, c.name, c.creator, c.peer, c.applied_seq \
         FROM members m JOIN conversations c ON c.log = m.log WHERE m.user = ",
    );
    statement.push_bind(user.as_str()).push(" AND m.log IN ");
    push_logs(&mut statement, logs);
    statement
}

fn push_logs(statement: &mut QueryBuilder<MySql>, logs: &[&LogId]) {
    statement.push("(");
    let mut listed = statement.separated(", ");
    filled_up(logs).for_each(|log| {
        listed.push_bind(log.as_str());
    });
    statement.push(")");
}

/// Columns `log`, `user`, `joined_seq`, `joined_ordinal`, `left_seq`.
pub fn members(of: &[(&LogId, &UserId)]) -> QueryBuilder<MySql> {
    let select = "SELECT log, user, joined_seq, joined_ordinal, left_seq FROM members WHERE (log, user) IN ";
    let mut statement = QueryBuilder::new(select);
    push_pairs(&mut statement, of);
    statement
}

/// Columns `log`, `user`, `seq`, `ordinal`.
pub fn reads(of: &[(&LogId, &UserId)]) -> QueryBuilder<MySql> {
    let mut statement = QueryBuilder::new("SELECT log, user, seq, ordinal FROM read_marks WHERE (log, user) IN ");
    push_pairs(&mut statement, of);
    statement
}

fn push_pairs(statement: &mut QueryBuilder<MySql>, of: &[(&LogId, &UserId)]) {
    debug_assert!(of.len() <= PAIRS_MAX);
    statement.push_tuples(filled_up(of), |mut pair, (log, user)| {
        pair.push_bind(log.as_str()).push_bind(user.as_str());
    });
}

pub fn upsert_members(rows: &[(&LogId, &MemberRow)]) -> QueryBuilder<MySql> {
    let mut statement = QueryBuilder::new("INSERT INTO members (log, user, joined_seq, joined_ordinal, left_seq) ");
    statement.push_values(filled_up(rows), |mut values, (log, row)| {
        values.push_bind(log.as_str()).push_bind(row.user.as_str()).push_bind(row.joined_seq.0);
        values.push_bind(row.joined_ordinal.0).push_bind(row.left_seq.map(|seq| seq.0));
    });
    statement.push(
        " ON DUPLICATE KEY UPDATE joined_seq = VALUES(joined_seq), joined_ordinal = VALUES(joined_ordinal), \
         left_seq = VALUES(left_seq)",
    );
    statement
}

/// A cursor never falls. Assignments run from left to right: the seq compared with is the old one.
pub fn upsert_reads(marks: &[&ReadMark]) -> QueryBuilder<MySql> {
    let mut statement = QueryBuilder::new("INSERT INTO read_marks (log, user, seq, ordinal) ");
    statement.push_values(filled_up(marks), |mut values, mark| {
        values.push_bind(mark.log.as_str()).push_bind(mark.user.as_str());
        values.push_bind(mark.read.seq.0).push_bind(mark.read.ordinal.0);
    });
    statement.push(
        " ON DUPLICATE KEY UPDATE ordinal = IF(VALUES(seq) > seq, VALUES(ordinal), ordinal), \
         seq = GREATEST(seq, VALUES(seq))",
    );
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_to_a_power_of_two_with_the_last_one() {
        let filled = |rows: &[u8]| filled_up(rows).copied().collect::<Vec<_>>();
        assert_eq!(filled(&[1]), [1]);
        assert_eq!(filled(&[1, 2, 3]), [1, 2, 3, 3]);
        assert_eq!(filled(&[1, 2, 3, 4, 5]), [1, 2, 3, 4, 5, 5, 5, 5]);
        assert_eq!(filled_up(&[0; ROWS_MAX]).count(), ROWS_MAX);
    }
}
