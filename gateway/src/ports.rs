//! The two things a gateway needs from the rest of the system, as traits of its own: forward a record, ask the logic.
//!
//! In: records and questions of one core. Out: answers on that core's lane. Always: neither call waits; both are made from
//! a core's thread. The composition root joins them to the queue and the logic, so the gateway names neither.

use crate::lane::CoreLane;
use bytes::Bytes;
use im_proto::{ConnectionId, DeviceId, Generation, InboxVersion, LogId, Seq, TraceId, UserId, client};

/// Logins, conversations or users of one question. A logic in another process refuses more.
pub const ASKED_AT_ONCE_MAX: usize = 1_000;

/// A command that writes, on its way to the queue.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub log: LogId,
    /// An encoded `im.internal.v1.Upstream`.
    pub record: Bytes,
    /// That of the record, for a queue that shows it to other tools.
    pub trace: Option<TraceId>,
}

pub trait Forward: Send + Sync + 'static {
    /// Takes every record for which there is room. What is left, in its order, was not taken (part of the queue is full);
    /// the core keeps it, stops reading from the connections that wait, and tries again shortly. What is left are the same
    /// `Bytes`, not copies: by them the core knows whose it is.
    fn forward(&self, records: &mut Vec<Upstream>);
}

pub trait AskLogic: Send + Sync + 'static {
    /// Asks; the answer comes on `lane` as a [`LogicAnswer`], or never: then the core's own deadline ends the request.
    fn ask(&self, question: Question, lane: CoreLane);
}

#[derive(Debug)]
pub enum Question {
    /// Verify the token, register the route, tell the login.
    SignIn { connection: ConnectionId, sign_in: client::SignIn },
    /// A command that only reads (pull, sync, list members). `frame` is the encoded `ClientFrame`.
    Read { connection: ConnectionId, request_id: u64, user: UserId, frame: Bytes },
    /// The logins that sent a heartbeat in this turn: do they still stand, and what are their users' inbox versions?
    Heartbeats { logins: Vec<HeldLogin> },
    /// Who is in a large conversation?
    LargeMembers { log: LogId },
    /// How far have these conversations come, and are they still large?
    LargeHeads { logs: Vec<LogId> },
    /// Which large conversations are these users in? `changes` comes back with the answer.
    LargeOfUsers { changes: u64, users: Vec<(ConnectionId, UserId)> },
    /// The connection of this login is gone: forget its route.
    SignedOut { connection: ConnectionId, user: UserId, device: DeviceId, generation: Generation },
}

#[derive(Debug)]
pub enum LogicAnswer {
    SignedIn {
        connection: ConnectionId,
        outcome: Result<SignedIn, SignInRefused>,
    },
    /// `frame` is a delimited `ServerFrame`. `inbox_version`: the answer told the connection of everything up to it, and of
    /// the `large` conversations up to their seqs.
    Read {
        connection: ConnectionId,
        request_id: u64,
        frame: Bytes,
        inbox_version: Option<InboxVersion>,
        large: Vec<(LogId, Seq)>,
    },
    /// An error: the login has ended, and the kick that said so was lost.
    Heartbeats {
        answers: Vec<(ConnectionId, Result<InboxVersion, client::kicked::Reason>)>,
    },
    /// `None`: nobody could be asked.
    LargeMembers {
        log: LogId,
        members: Option<LargeMembers>,
    },
    LargeHeads {
        heads: Vec<LargeHead>,
    },
    LargeOfUsers {
        changes: u64,
        users: Vec<(ConnectionId, Vec<LargeMembership>)>,
    },
}

/// Who is signed in on a connection.
#[derive(Debug, Clone)]
pub struct HeldLogin {
    pub connection: ConnectionId,
    pub user: UserId,
    pub device: DeviceId,
    pub generation: Generation,
}

/// A login that stands: its route is registered.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub user: UserId,
    pub device: DeviceId,
    pub generation: Generation,
    /// Read after the route was registered.
    pub inbox_version: InboxVersion,
    pub epoch: im_proto::Epoch,
    /// When the token ends; the connection is closed then with TOKEN_EXPIRED. `None`: it does not.
    pub token_expires_at_ms: Option<i64>,
    /// The large conversations of the user; read after the route was registered.
    pub large: Vec<LargeMembership>,
}

/// A user's present time in a large conversation, as of the last change of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeMembership {
    pub log: LogId,
    pub joined_seq: Seq,
    pub members_seq: Seq,
}

/// All members of a large conversation, each with its joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeMembers {
    /// Every change up to this one is in them.
    pub members_seq: Seq,
    pub members: Vec<(UserId, Seq)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeHead {
    pub log: LogId,
    pub seq: Seq,
    /// False: its members are told one by one now.
    pub is_large: bool,
}

#[derive(Debug, Clone)]
pub struct SignInRefused {
    pub code: client::CloseCode,
    pub reconnect_after_ms: u32,
    pub detail: String,
}
