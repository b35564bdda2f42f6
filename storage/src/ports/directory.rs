//! Who belongs to what: conversations, their members, users' devices. Projections of the logs.
//!
//! In: changes read off entries. Out: rows for authorisation, fan-out and lists. Always: a row carries the seq of the
//! entry it shows; a change at or below it is ignored, so everything may be applied again. Visible when a call returns,
//! durable when the next [`cover`](Projection::cover) returns.

use super::{Projection, ReadCursor, StoreError};
use async_trait::async_trait;
use im_proto::{DeviceId, LogId, Ordinal, Seq, UserId};

#[async_trait]
pub trait Directory: Projection {
    /// The conversation with all its members, present ones and those who left; `None` if no entry of it was applied.
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError>;

    /// What `user` is in each of `logs`, in the order asked, at most [`MEMBERSHIPS_MAX`] of them: what `authorize` and a
    /// page of sync need. Left members have a row too. Row and header of a log are one consistent read.
    async fn memberships(&self, user: &UserId, logs: &[LogId]) -> Result<Vec<Option<Membership>>, StoreError>;

    /// Present members by rising user id, those behind `after`, at most `limit`, with the header of the same moment; `None`
    /// if no entry of the log was applied.
    async fn members(
        &self,
        log: &LogId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Conversation>, StoreError>;

    /// The conversations that `user` is or was a member of, by rising id, those behind `after`, at most `limit`.
    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError>;

    /// The conversations of more than `members_min` present members that `user` is a present member of, by rising id, those
    /// behind `after`, at most `limit`.
    async fn large_conversations(
        &self,
        user: &UserId,
        members_min: usize,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Membership)>, StoreError>;

    /// Applies changes in their order. A change whose `seq` is not above the conversation's `applied_seq` does nothing. One
    /// whose `after` is above it would hide that an earlier one is lacking, as in a copy that lagged when it took over: it and
    /// those behind it in its conversation are left out, and the conversation is named in the answer, by rising id. Whoever
    /// asked reads what is lacking off the log.
    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<Vec<LogId>, StoreError>;

    /// Remembers how far users have read, so that it outlives the inbox. Max-merged; a cursor of a conversation or user
    /// not known here is kept too. Not for showing: the inbox has them sooner.
    async fn record_reads(&self, reads: Vec<ReadMark>) -> Result<(), StoreError>;

    /// The cursors so remembered, in the order asked; the default where there is none.
    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError>;

    /// The furthest of all cursors remembered of the conversation, and whose it is; `None` where there is none.
    async fn furthest_read(&self, log: &LogId) -> Result<Option<ReadMark>, StoreError>;

    /// Remembers that the device exists. Repeating it changes nothing but the platform.
    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError>;

    /// The user's devices by rising id.
    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError>;
}

/// Conversations asked for in one call.
pub const MEMBERSHIPS_MAX: usize = 500;

/// A conversation without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What its first entry said.
    pub created: Created,
    /// The last entry whose membership change is in the rows: an entry with a higher `members_seq` may have changed them.
    pub applied_seq: Seq,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Groups; empty for a direct conversation.
    pub name: String,
    /// Groups: who created it. Direct: the sender of the first entry.
    pub creator: UserId,
    /// Direct: whom the creator wrote to, perhaps itself. `None` for a group.
    pub peer: Option<UserId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub header: Header,
    /// By rising user id.
    pub members: Vec<MemberRow>,
}

/// One user's row in one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub header: Header,
    pub row: MemberRow,
}

/// How far a user has read in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadMark {
    pub log: LogId,
    pub user: UserId,
    pub read: ReadCursor,
}

/// A user's time in a conversation, the last one if there were several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    pub user: UserId,
    /// The first entry this user may read: that of the joining.
    pub joined_seq: Seq,
    /// The ordinal before the joining entry: unread counts from here.
    pub joined_ordinal: Ordinal,
    /// The last entry this user may read: that of the leaving. `None` while a member.
    pub left_seq: Option<Seq>,
}

/// What one entry changes.
#[derive(Debug, Clone)]
pub struct MembershipChange {
    pub log: LogId,
    pub seq: Seq,
    /// The `seq` of the change before it; 0: there is none, or nobody knows of one.
    pub after: Seq,
    /// Of the first entry of the log.
    pub created: Option<Created>,
    /// They join at `seq`; a former member begins a new time. `joined_ordinal` is the ordinal before `seq`.
    pub joined: Vec<UserId>,
    pub joined_ordinal: Ordinal,
    /// They leave at `seq`.
    pub left: Vec<UserId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    pub platform: String,
}
