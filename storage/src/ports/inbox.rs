//! What moved for a user, and how far the user has read. A projection of the logs, one row per (user, log).
//!
//! In: moves of many users at once. Out: one rising version per user, and the rows behind a version: all that sync needs.
//! Always: a version that was given out is never given to a later move, also after a crash and after everything was lost
//! (an adapter that may lose everything lifts its versions by the clock, as generations are); heads and read cursors never
//! fall; any move may be repeated. Visible when a call returns, durable when the next [`cover`](Projection::cover) returns.

use super::{Projection, StoreError};
use async_trait::async_trait;
use im_proto::{InboxVersion, LogId, Ordinal, Seq, UserId};

#[async_trait]
pub trait Inbox: Projection {
    /// Applies moves in their order and answers one [`Moved`] for each. A move that changes nothing (its head and read
    /// cursor are not above the row's, and it does not `touch`) answers `previous == version`, the user's present version.
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError>;

    /// The user's rows with a version above `after`, by rising version, at most `limit`. None when `after` is above the
    /// present version.
    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError>;

    /// The present version of each user, in the order asked; 0 for a user nothing ever moved for.
    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError>;

    /// How far each user has read in that log, in the order asked.
    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError>;
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
    /// The user's present version. Below the `after` that was asked: rows were lost and are being repeated; what there is
    /// is listed from the beginning.
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
