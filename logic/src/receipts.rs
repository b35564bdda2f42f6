//! Receipts whose readers the directory did not tell in time.
//!
//! In: who has read in which conversation. Out: the other members' inboxes, moved. Always: bounded; while one waits nothing
//! is covered, so whoever takes over finds it in the log; the heartbeat tells those whose inbox moved, and their sync shows
//! how far was read.

use crate::catch_up::bump;
use crate::deliver::{others, touch};
use crate::prefetch::LOADS_AT_ONCE_MAX;
use crate::worker::Shared;
use futures_util::{StreamExt as _, stream};
use im_proto::{LogId, UserId};
use im_storage::ports::StoreError;
use std::collections::BTreeSet;

/// More are found in the log, by repeating it from the last cover on.
const WAITING_MAX: usize = 10_000;

/// Conversations, and readers whose cursors moved in them.
pub(crate) type Receipts = BTreeSet<(LogId, UserId)>;

#[derive(Default)]
pub(crate) struct LateReceipts(Receipts);

impl LateReceipts {
    /// False: there is no room, and none of them is kept.
    #[must_use]
    pub fn add(&mut self, receipts: Receipts) -> bool {
        self.0.extend(receipts);
        let has_room = self.0.len() <= WAITING_MAX;
        if !has_room {
            self.0.clear();
        }
        has_room
    }

    /// All that wait; from now on they are the caller's.
    pub fn take(&mut self) -> Receipts {
        std::mem::take(&mut self.0)
    }
}

/// Moves the inboxes of everybody who should be told. May be repeated.
pub(crate) async fn tell(shared: &Shared, receipts: &Receipts) -> Result<(), StoreError> {
    let looks: Vec<_> = receipts
        .iter()
        .map(|(conversation, reader)| async move { (conversation, others(shared, conversation, reader).await) })
        .collect();
    let mut found = stream::iter(looks).buffer_unordered(LOADS_AT_ONCE_MAX);
    let mut moves = Vec::new();
    while let Some((conversation, readers)) = found.next().await {
        match readers {
            Ok(readers) => moves.extend(readers.iter().map(|reader| touch(reader, conversation))),
            Err(StoreError::Damaged(what)) => tracing::error!(what, "no receipts: damaged data"),
            Err(error) => return Err(error),
        }
    }
    bump(shared, moves).await
}
