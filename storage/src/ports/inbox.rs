//! What moved for a user, and how far the user has read. A projection of the logs, one row per (user, log).
//!
//! In: moves of many users at once. Out: one rising version per user, and the rows behind a version: all that sync needs.
//! Always: a version that was given out is never given to a later move, also after a crash; heads and read cursors never
//! fall; any move may be repeated. Visible when a call returns, durable when the next [`Inbox::cover`] returns.

use super::{Cursor, Shard, StoreError};
use async_trait::async_trait;
use im_proto::{InboxVersion, LogId, Ordinal, Seq, UserId};

#[async_trait]
pub trait Inbox: Send + Sync + 'static {
    /// Applies moves in their order and answers one [`Moved`] for each. A move that changes nothing (its head and read
    /// cursor are not above the row's, and it does not `touch`) answers `previous == version`, the user's present version.
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError>;

    /// The user's rows with a version above `after`, by rising version, at most `limit`.
    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError>;

    /// The present version of each user, in the order asked; 0 for a user nothing ever moved for.
    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError>;

    /// How far each user has read in `log`, in the order asked.
    async fn reads(&self, log: &LogId, users: &[UserId]) -> Result<Vec<ReadCursor>, StoreError>;

    /// The cursor of the last [`cover`](Inbox::cover) of this shard that survived; `None` if none did. Whoever takes a
    /// shard over applies everything the entry log names from there on.
    async fn covered(&self, shard: Shard) -> Result<Option<Cursor>, StoreError>;

    /// Every entry of `shards` stored before `cursor` has been applied here. When the call returns, that is durable. A
    /// cursor earlier than the one known changes nothing.
    async fn cover(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError>;
}

#[derive(Debug, Clone)]
pub struct Move {
    pub user: UserId,
    pub log: LogId,
    pub head: Seq,
    pub head_ordinal: Ordinal,
    /// Max-merged: the user's own send, or a moved cursor. `ReadCursor::default()` leaves it.
    pub read: ReadCursor,
    /// Gives a new version even if head and cursor stand: something else of the conversation moved, as the other's cursor.
    pub touch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCursor {
    pub seq: Seq,
    pub ordinal: Ordinal,
}

/// The user's version before and behind one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub previous: InboxVersion,
    pub version: InboxVersion,
}

#[derive(Debug)]
pub struct InboxPage {
    pub rows: Vec<InboxRow>,
    /// No more rows lie behind these.
    pub complete: bool,
    /// The user's present version. Below the `after` that was asked: the asker's token is of another history.
    pub version: InboxVersion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRow {
    pub log: LogId,
    pub version: InboxVersion,
    pub head: Seq,
    pub head_ordinal: Ordinal,
    pub read: ReadCursor,
}
