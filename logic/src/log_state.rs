//! What a worker knows of one log.
//!
//! In: entries behind those known. Out: the place behind them. Always: `stored` is a place the store has confirmed; `tip`
//! is `stored` plus what was decided since and is not confirmed yet, and falls back to it when an append stops.

use crate::membership::Members;
use im_proto::{LogId, Ordinal, Seq, client};
use im_storage::ports::{MembershipChange, Offset, Partition, ReadCursor};
use std::sync::Arc;

/// Where in the queue a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueuePlace {
    pub partition: Partition,
    pub offset: Offset,
}

/// A place in a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Position {
    /// 0: the log is empty.
    pub head: Seq,
    pub ordinal: Ordinal,
    /// The last entry that changed the members.
    pub members_seq: Seq,
    /// The one before that; 0 if it was not met in memory.
    pub members_seq_before: Seq,
    /// Shared with what waits to be delivered, so that a message costs no copy of the member list.
    pub members: Arc<Members>,
    /// The record that made the last entry. Those of this log that lie before it were decided before it was.
    pub decided: Option<QueuePlace>,
}

impl Position {
    /// The record, or one behind it, has made an entry: it was decided already, whether it was stored or refused.
    pub fn was_decided(&self, record: QueuePlace) -> bool {
        self.decided.is_some_and(|last| last.partition == record.partition && record.offset <= last.offset)
    }

    /// The last entry came through another partition: their number has changed since, and places cannot be compared.
    pub fn was_moved_from(&self, partition: Partition) -> bool {
        self.decided.is_some_and(|last| last.partition != partition)
    }

    pub fn is_empty(&self) -> bool {
        self.head == Seq(0)
    }

    /// The place behind `entry`, which is the next one and was made by `record`.
    pub fn behind(&self, entry: &client::Entry, change: Option<&MembershipChange>, record: Option<QueuePlace>) -> Self {
        debug_assert_eq!(entry.seq, self.head.next().0);
        let decided = record.or(self.decided);
        let place = Self { head: Seq(entry.seq), ordinal: Ordinal(entry.ordinal), decided, ..self.clone() };
        match change {
            Some(change) => Self {
                members_seq: change.seq,
                members_seq_before: self.members_seq,
                members: Arc::new(self.members.with(change)),
                ..place
            },
            None => place,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct LogState {
    pub stored: Position,
    pub tip: Position,
}

impl LogState {
    pub fn at(position: Position) -> Self {
        Self { tip: position.clone(), stored: position }
    }

    /// The store has everything up to `position`.
    pub fn confirm(&mut self, position: &Position) {
        self.stored = position.clone();
        if self.tip.head <= position.head {
            self.tip = position.clone();
        }
    }
}

/// A log with commands in the present batch. Its commands are decided in the order in which they came.
#[derive(Debug)]
pub(crate) struct Lane {
    pub log: LogId,
    pub state: LogState,
    /// It cannot be read: its commands are turned away, and it is not remembered.
    pub damaged: bool,
    /// In a user's own log: the cursors moved by this batch, each with the entry that moved it. The inbox does not have
    /// them yet.
    reads: Vec<(Seq, LogId, ReadCursor)>,
}

impl Lane {
    pub fn new(log: LogId, state: LogState) -> Self {
        Self { log, state, damaged: false, reads: Vec::new() }
    }

    pub fn fall_back(&mut self) {
        self.state.tip = self.state.stored.clone();
        self.reads.retain(|(by, _, _)| *by <= self.state.stored.head);
    }

    pub fn has_unconfirmed(&self) -> bool {
        self.state.tip.head > self.state.stored.head
    }

    pub fn read_moved(&mut self, by: Seq, conversation: LogId, cursor: ReadCursor) {
        self.reads.push((by, conversation, cursor));
    }

    /// The highest cursor that this batch gave the conversation.
    pub fn read_cursor(&self, conversation: &str) -> ReadCursor {
        let cursors =
            self.reads.iter().filter(|(_, log, _)| log.as_str() == conversation).map(|(_, _, cursor)| *cursor);
        cursors.max_by_key(|cursor| cursor.seq).unwrap_or_default()
    }
}
