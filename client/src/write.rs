//! One command that writes a conversation's log, as it waits for its final answer.
//!
//! In: a send, or a command to a group. Out: the command as it stands on the wire, and what its end is for the app. Always:
//! only `after` differs between two attempts; bodies are not printed.

use crate::event::{Event, Recipient, Refusal, Ticket};
use crate::wire::Asked;
use bytes::Bytes;
use im_proto::client::{self, client_frame::Command, send};
use im_proto::{ClientId, LogId, UserId};

pub(crate) struct QueuedWrite {
    pub ticket: Ticket,
    /// `client_message_id` or `command_id`: one name space.
    pub id: ClientId,
    pub what: Write,
}

pub(crate) enum Write {
    Send {
        to: Recipient,
        body: Bytes,
    },
    /// Its `after` is empty here.
    ToGroup(Command),
}

impl std::fmt::Debug for QueuedWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueuedWrite({})", self.id)
    }
}

impl QueuedWrite {
    pub fn send(ticket: Ticket, to: Recipient, id: ClientId, body: Bytes) -> Self {
        Self { ticket, id, what: Write::Send { to, body } }
    }

    /// With the group it writes to. `Err`: a command that writes to no group.
    pub fn to_group(ticket: Ticket, user: &UserId, command: Command) -> Result<(LogId, Self), Command> {
        let Some((group, id)) = group_and_id(user, &command) else { return Err(command) };
        Ok((group, Self { ticket, id, what: Write::ToGroup(command) }))
    }

    /// As it is written now. `after`: the id of the command before it that has no final answer, or empty.
    pub fn command(&self, after: String) -> Command {
        match &self.what {
            Write::Send { to, body } => {
                let to = match to {
                    Recipient::User(user) => send::To::UserId(user.into()),
                    Recipient::Conversation(conversation) => send::To::ConversationId(conversation.into()),
                };
                let client_message_id = (&self.id).into();
                Command::Send(client::Send { client_message_id, after, body: body.clone(), to: Some(to) })
            }
            Write::ToGroup(command) => {
                let mut command = command.clone();
                match &mut command {
                    Command::AddMembers(add) => add.after = after,
                    Command::RemoveMember(remove) => remove.after = after,
                    Command::LeaveGroup(leave) => leave.after = after,
                    // `CreateGroup` is the first of its log; the others never come here.
                    Command::CreateGroup(_) => {}
                    Command::SignIn(_)
                    | Command::Send(_)
                    | Command::Pull(_)
                    | Command::Sync(_)
                    | Command::MarkRead(_)
                    | Command::ListMembers(_) => {}
                }
                command
            }
        }
    }

    pub fn asked(&self, conversation: &LogId) -> Asked {
        let (conversation, id) = (conversation.clone(), self.id.clone());
        match self.what {
            Write::Send { .. } => Asked::Send { conversation, id },
            Write::ToGroup(_) => Asked::ToGroup { conversation, id },
        }
    }

    /// It is not stored and never will be.
    pub fn refused(self, conversation: LogId, refusal: Refusal) -> Event {
        let Self { ticket, id: client_message_id, what } = self;
        match what {
            Write::Send { .. } => Event::Refused { ticket, conversation, client_message_id, refusal },
            Write::ToGroup(_) => Event::RequestRefused { ticket, refusal },
        }
    }
}

fn group_and_id(user: &UserId, command: &Command) -> Option<(LogId, ClientId)> {
    let (group, id) = match command {
        Command::CreateGroup(create) => {
            let id = ClientId::parse(&create.command_id).ok()?;
            return Some((LogId::group(user, &id), id));
        }
        Command::AddMembers(add) => (&add.conversation_id, &add.command_id),
        Command::RemoveMember(remove) => (&remove.conversation_id, &remove.command_id),
        Command::LeaveGroup(leave) => (&leave.conversation_id, &leave.command_id),
        // Each by name: a forgotten one would lose its place behind the sender's earlier commands.
        Command::SignIn(_)
        | Command::Send(_)
        | Command::Pull(_)
        | Command::Sync(_)
        | Command::MarkRead(_)
        | Command::ListMembers(_) => return None,
    };
    Some((LogId::parse(group).ok()?, ClientId::parse(id).ok()?))
}
