//! The contracts between the logic and what stores or carries for it. Traits and plain values only; no driver.
//!
//! | port | standalone | distributed | what may be lost without harm |
//! |---|---|---|---|
//! | [`Queue`] | bounded queues in memory | Kafka | any record: its sender has no ack and repeats |
//! | [`EntryLog`] | redb | MongoDB | nothing that was reported as stored |
//! | [`Directory`] | redb | MySQL | rows since the last [`cover`](Projection::cover): repeated from the log |
//! | [`Inbox`] | memory over redb | Redis | everything: repeated from the log and the directory |
//! | [`Routes`] | memory | Redis | everything: devices register again |
//! | [`Relations`] | redb | Kafka, a compacted topic | nothing that was reported as kept |
//! | [`Delivery`] | a call into the gateway | a gRPC stream | any batch: clients see the gap |
//!
//! Every call ends: an adapter bounds its own waiting (10 s at most) and answers [`StoreError::Unavailable`].

mod delivery;
mod directory;
mod entry_log;
mod inbox;
mod projection;
mod queue;
mod relations;
mod routes;

pub use delivery::{Delivery, GatewayBoot};
pub use directory::{
    Conversation, Created, Device, Directory, Header, MEMBERSHIPS_MAX, MemberRow, Membership, MembershipChange,
    ReadMark,
};
pub use entry_log::{Appended, Cursor, ENTRY_BYTES_MAX, EntryLog, EntryRow, NewEntry, Shard, Stop, Tail};
pub use inbox::{Inbox, InboxPage, InboxRow, Move, Moved, ReadCursor};
pub use projection::{Claim, Covered, Projection};
pub use queue::{Batch, Consumed, Consumer, DeadLetter, DeadReason, Offset, Partition, Queue, Queued, Record};
pub use relations::{Followed, RELATION_BYTES_MAX, Relation, RelationFeed, RelationKey, RelationKind, Relations};
pub use routes::{Dial, Gateway, Login, Registered, Routes};

/// Why a store did not answer. What the caller does differs, so there are two.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Away, slow, full, or told to stop. Nothing is known of a write that was under way. Repeat later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Stored bytes are not what was written (a checksum, a broken structure). Names the place. Repeating does not help;
    /// an operator must look.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}
