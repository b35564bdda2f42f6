//! Who belongs to what: conversations, their members, users' devices. Projections of the logs.
//!
//! In: changes read off entries. Out: rows for authorisation, fan-out and lists. Always: a row carries the seq of the
//! entry it shows; a change at or below it is ignored, so everything may be applied again. Visible when a call returns,
//! durable when the next [`Directory::cover`] returns.

use super::{Cursor, Shard, StoreError};
use async_trait::async_trait;
use im_proto::{DeviceId, LogId, Ordinal, Seq, UserId};

#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The conversation with its present members and those who left; `None` if no entry of it was applied.
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError>;

    /// One row of it: what `authorize` needs. Left members have a row too. One consistent read: `applied_seq` is that of
    /// the row.
    async fn member(&self, log: &LogId, user: &UserId) -> Result<Option<Membership>, StoreError>;

    /// Present members by rising user id, those behind `after`, at most `limit`.
    async fn members(&self, log: &LogId, after: Option<&UserId>, limit: usize) -> Result<Vec<MemberRow>, StoreError>;

    /// The conversations that `user` is or was a member of, by rising id, those behind `after`, at most `limit`.
    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError>;

    /// Applies changes in their order. A change whose `seq` is not above the conversation's `applied_seq` does nothing.
    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<(), StoreError>;

    /// Remembers that the device exists. Repeating it changes nothing but the platform.
    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError>;

    /// The user's devices by rising id.
    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError>;

    /// The cursor of the last [`cover`](Directory::cover) of this shard that survived; `None` if none did. Whoever takes a
    /// shard over applies everything the entry log names from there on.
    async fn covered(&self, shard: Shard) -> Result<Option<Cursor>, StoreError>;

    /// Every entry of `shards` stored before `cursor` has been applied here. When the call returns, that is durable. A
    /// cursor earlier than the one known changes nothing.
    async fn cover(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Groups; empty for a direct conversation.
    pub name: String,
    /// Groups: who created it. Direct: the sender of the first entry.
    pub creator: UserId,
    /// The last entry whose membership change is in these rows.
    pub applied_seq: Seq,
    /// By rising user id; those who left included.
    pub members: Vec<MemberRow>,
}

/// One user's row, and how much of the log it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub row: MemberRow,
    /// The last entry whose membership change is in the row: an entry with a higher `members_seq` may have changed it.
    pub applied_seq: Seq,
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
    /// The first entry of the log: `(name, creator)`.
    pub created: Option<(String, UserId)>,
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
