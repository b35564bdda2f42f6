//! Rows of the tables as values of the port.
//!
//! In: columns. Out: ids, seqs, conversations. Always: what is no id is damage, named by its table.

use crate::ports::{Conversation, Created, Header, MemberRow, Membership, StoreError};
use im_proto::{DeviceId, InvalidId, LogId, Ordinal, Seq, UserId};

/// A conversation and its members in one list, so that one statement, which sees one moment, can answer both. The
/// conversation is the row with a name.
pub struct MixedRow {
    pub name: Option<String>,
    /// The creator, or the member.
    pub user: String,
    pub peer: Option<String>,
    /// `applied_seq`, or `joined_seq`.
    pub seq: u64,
    pub joined_ordinal: u64,
    pub left_seq: Option<u64>,
}

#[derive(sqlx::FromRow)]
pub struct MembershipRow {
    pub log: String,
    pub joined_seq: u64,
    pub joined_ordinal: u64,
    pub left_seq: Option<u64>,
    pub name: String,
    pub creator: String,
    pub peer: Option<String>,
    pub applied_seq: u64,
}

pub fn log(text: &str, table: &str) -> Result<LogId, StoreError> {
    LogId::parse(text).map_err(|error| damaged(error, table))
}

pub fn user(text: &str, table: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|error| damaged(error, table))
}

pub fn device(text: &str, table: &str) -> Result<DeviceId, StoreError> {
    DeviceId::parse(text).map_err(|error| damaged(error, table))
}

fn damaged(InvalidId: InvalidId, table: &str) -> StoreError {
    StoreError::Damaged(format!("mysql: a row of {table} holds what is no id"))
}

/// `None` if the conversation is not among them.
pub fn conversation(rows: Vec<MixedRow>) -> Result<Option<Conversation>, StoreError> {
    let mut found = None;
    let mut members = Vec::with_capacity(rows.len());
    for row in rows {
        match row.name {
            Some(name) => found = Some(header(name, &row.user, row.peer.as_deref(), row.seq)?),
            None => members.push(member(user(&row.user, "members")?, row.seq, row.joined_ordinal, row.left_seq)),
        }
    }
    // The union of the two promises no order.
    members.sort_by(|one, other| one.user.cmp(&other.user));
    Ok(found.map(|header| Conversation { header, members }))
}

pub fn membership(of: UserId, row: MembershipRow) -> Result<Membership, StoreError> {
    let header = header(row.name, &row.creator, row.peer.as_deref(), row.applied_seq)?;
    Ok(Membership { header, row: member(of, row.joined_seq, row.joined_ordinal, row.left_seq) })
}

fn header(name: String, creator: &str, peer: Option<&str>, applied_seq: u64) -> Result<Header, StoreError> {
    let creator = user(creator, "conversations")?;
    let peer = peer.map(|peer| user(peer, "conversations")).transpose()?;
    Ok(Header { created: Created { name, creator, peer }, applied_seq: Seq(applied_seq) })
}

pub fn member(user: UserId, joined_seq: u64, joined_ordinal: u64, left_seq: Option<u64>) -> MemberRow {
    let (joined_seq, joined_ordinal) = (Seq(joined_seq), Ordinal(joined_ordinal));
    MemberRow { user, joined_seq, joined_ordinal, left_seq: left_seq.map(Seq) }
}
