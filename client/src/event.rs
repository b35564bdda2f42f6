//! What the app says to the client, and what it hears.
//!
//! In: commands. Out: events. Always: every accepted command gets one event that carries its [`Ticket`]; entries of a
//! conversation come in the order of their seq, each once. Bodies are not printed: the wire's types do that only on demand.

use bytes::Bytes;
use im_proto::client::{self, client_frame};
use im_proto::{ClientId, Epoch, Generation, LogId, Ordinal, Seq, UserId};

/// Names one accepted command until its answer. Never used twice by a [`Core`](crate::Core).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The outbox or the request table is full; nothing was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many commands wait for their answers")]
pub struct Full;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// The direct conversation with this user, oneself allowed.
    User(UserId),
    Conversation(LogId),
}

/// What the app asks for. An id left out is made by the core; one given makes the command repeatable across restarts.
#[derive(Clone)]
pub enum Command {
    Send {
        to: Recipient,
        client_message_id: Option<ClientId>,
        /// An encoded `MessageBody`.
        body: Bytes,
    },
    Request(Request),
}

/// A command other than `Send`.
#[derive(Debug, Clone)]
pub enum Request {
    MarkRead {
        conversation: LogId,
        seq: Seq,
        command_id: Option<ClientId>,
    },
    CreateGroup {
        name: String,
        users: Vec<UserId>,
        command_id: Option<ClientId>,
    },
    AddMembers {
        group: LogId,
        users: Vec<UserId>,
        command_id: Option<ClientId>,
    },
    RemoveMember {
        group: LogId,
        user: UserId,
        command_id: Option<ClientId>,
    },
    Leave {
        group: LogId,
        command_id: Option<ClientId>,
    },
    ListMembers {
        conversation: LogId,
        after: Option<UserId>,
        limit: u32,
    },
    /// Reads history. What it answers is not applied to the cursors.
    Pull {
        conversation: LogId,
        from: Seq,
        limit: u32,
    },
}

impl Request {
    /// As it stands on the wire; `new_id` makes an id where the app gave none. The epoch and `after` are filled in when it is
    /// written.
    pub(crate) fn encode(self, mut new_id: impl FnMut() -> ClientId) -> client_frame::Command {
        let mut id = |given: Option<ClientId>| String::from(&given.unwrap_or_else(&mut new_id));
        let texts = |users: Vec<UserId>| users.iter().map(String::from).collect();
        match self {
            Self::MarkRead { conversation, seq, command_id } => client_frame::Command::MarkRead(client::MarkRead {
                conversation_id: (&conversation).into(),
                epoch: 0,
                seq: seq.0,
                command_id: id(command_id),
            }),
            Self::CreateGroup { name, users, command_id } => client_frame::Command::CreateGroup(client::CreateGroup {
                command_id: id(command_id),
                name,
                user_ids: texts(users),
            }),
            Self::AddMembers { group, users, command_id } => client_frame::Command::AddMembers(client::AddMembers {
                command_id: id(command_id),
                conversation_id: (&group).into(),
                user_ids: texts(users),
                after: String::new(),
            }),
            Self::RemoveMember { group, user, command_id } => {
                client_frame::Command::RemoveMember(client::RemoveMember {
                    command_id: id(command_id),
                    conversation_id: (&group).into(),
                    user_id: (&user).into(),
                    after: String::new(),
                })
            }
            Self::Leave { group, command_id } => client_frame::Command::LeaveGroup(client::LeaveGroup {
                command_id: id(command_id),
                conversation_id: (&group).into(),
                after: String::new(),
            }),
            Self::ListMembers { conversation, after, limit } => {
                client_frame::Command::ListMembers(client::ListMembers {
                    conversation_id: (&conversation).into(),
                    after_user_id: after.as_ref().map(String::from).unwrap_or_default(),
                    limit,
                })
            }
            Self::Pull { conversation, from, limit } => client_frame::Command::Pull(client::Pull {
                conversation_id: (&conversation).into(),
                epoch: 0,
                from_seq: from.0,
                limit,
            }),
        }
    }
}

/// A final error: the same again will not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused: {code:?} {detail}")]
pub struct Refusal {
    /// As on the wire; `ERROR_CODE_UNSPECIFIED` for one this client does not know.
    pub code: client::ErrorCode,
    /// For a developer's eyes.
    pub detail: String,
}

impl From<client::Error> for Refusal {
    fn from(error: client::Error) -> Self {
        Self { code: error.code(), detail: error.detail }
    }
}

/// The answer to a command other than `Send`.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Done(client::CommandAck),
    ReadMarked(client::ReadMarked),
    Members(client::Members),
    Pulled(client::Pulled),
    /// An answer this client does not know, also to a send; the command has ended.
    Unknown,
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server closed with this code; see `CloseCode`. It may be one this client does not know.
    Closed { code: i32 },
    /// The stream ended, could not be opened, or failed.
    Lost,
    /// Nothing was heard for too long.
    Silent,
    /// What the server sent is no frame.
    BadFrame,
    /// The server knows the token's subject under another name than the configuration.
    WrongUser,
    /// The app asked for it.
    Asked,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Connected,
    SignedIn {
        epoch: Epoch,
        generation: Generation,
        user_log: Option<LogId>,
    },
    /// `reconnect_after_ms`: when the next attempt is due. `None`: the client stays away until the app mends the cause.
    Disconnected {
        cause: Cause,
        reconnect_after_ms: Option<u64>,
    },
    /// The token has expired: answer with [`Core::set_token`](crate::Core::set_token).
    NeedToken,
    Kicked {
        reason: client::kicked::Reason,
        generation: Generation,
    },
    /// The send is durable.
    Acked {
        ticket: Ticket,
        conversation: LogId,
        client_message_id: ClientId,
        epoch: Epoch,
        seq: Seq,
        server_time_ms: i64,
    },
    /// The send is not stored and never will be.
    Refused {
        ticket: Ticket,
        conversation: LogId,
        client_message_id: ClientId,
        refusal: Refusal,
    },
    Answered {
        ticket: Ticket,
        answer: Answer,
    },
    RequestRefused {
        ticket: Ticket,
        refusal: Refusal,
    },
    /// The next entry of a conversation, this device's own sends included.
    Entry {
        conversation: LogId,
        entry: client::Entry,
    },
    /// The server refuses to show what lies behind the cursor of a conversation.
    Unreadable {
        conversation: LogId,
        refusal: Refusal,
    },
    /// This user's own cursor, moved by any of its devices. Max-merge it.
    ReadMoved {
        conversation: LogId,
        seq: Seq,
        ordinal: Ordinal,
    },
    /// Somebody else's cursor. Max-merge it.
    Receipt {
        conversation: LogId,
        user: UserId,
        read_seq: Seq,
    },
    /// A conversation that moved, as sync tells it. Its entries follow.
    ConversationState(client::ConversationState),
    /// The history of the store was replaced: forget what was cached of every conversation. It comes again.
    Reset,
    /// Everything that had moved when sync was asked has been handed over.
    Synced,
}
