//! Step 6: what becomes of a command. Pure: no clock, no store, no randomness.
//!
//! In: a command, the place of its log, what was settled lately. Out: a [`Decision`]. Always: the same input gives the same
//! decision; an entry follows the tip without a gap; nothing but this decides who may do what. A new command is one file
//! below `decide/` and one arm of the `match` in [`decide`].

mod add_members;
mod create_group;
mod leave_group;
mod mark_read;
mod remove_member;
mod send;

pub(crate) use mark_read::ReadTarget;

use crate::config::Limits;
use crate::entry::ContentHash;
use crate::log_state::Position;
use crate::memory::{CommandKey, CommandMemory, Written};
use crate::planted::planted;
use crate::refusal::Refusal;
use im_proto::client::{self, ErrorClass, client_frame::Command, entry::Content, server_frame::Body};
use im_proto::{ClientId, Epoch, LogId, LogKind, Ordinal, Seq, UserId};
use std::collections::HashMap;

/// Everything a decision rests on, beside the command.
pub(crate) struct Situation<'a> {
    pub log: &'a LogId,
    pub at: &'a Position,
    pub sender: &'a UserId,
    pub epoch: Epoch,
    pub now_ms: i64,
    pub limits: &'a Limits,
    /// For a moved read cursor: what was looked up of the conversation it points into.
    pub read: Option<&'a ReadTarget>,
    pub memory: &'a CommandMemory,
    pub turned_away: &'a TurnedAway,
}

/// Commands of the present round that made no entry, as far as the store was asked, and how their senders have to take it.
pub(crate) type TurnedAway = HashMap<CommandKey, ErrorClass>;

impl Situation<'_> {
    /// Where an entry with this content goes. Messages count as unread, other entries do not.
    fn next_place(&self, content: &Content) -> Place {
        let Ordinal(before) = self.at.ordinal;
        let countable = matches!(content, Content::Message(_));
        Place { seq: self.at.head.next(), ordinal: Ordinal(before + u64::from(countable)), server_time_ms: self.now_ms }
    }

    fn is_group_member(&self) -> bool {
        self.log.kind() == Some(LogKind::Group) && self.at.members.contains(self.sender)
    }
}

#[derive(Debug)]
pub(crate) enum Decision {
    /// Write this entry; then the answer holds.
    Append(Append),
    /// Written before: the same answer again.
    Repeat(Body),
    /// Nothing to write.
    Answer(Body),
    /// Not done. Certain: holds whatever the store knows.
    Refuse(Refusal),
    /// Not done, unless the store holds this very command or the log has moved on: look, and decide again.
    RefuseUnlessStored { client_id: ClientId, refusal: Refusal },
    /// Not before `after` is stored: look whether it is.
    Await { client_id: ClientId, after: ClientId },
}

#[derive(Debug)]
pub(crate) struct Append {
    pub client_id: ClientId,
    pub content_hash: ContentHash,
    pub entry: client::Entry,
    pub answer: Body,
}

/// A command, checked for form.
trait Mutation {
    fn client_id(&self) -> &ClientId;

    /// The sender's command that must be stored first.
    fn after(&self) -> Option<&ClientId> {
        None
    }

    fn content_hash(&self) -> ContentHash;

    /// Whether it may be done, and what to write.
    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal>;

    /// The answer once it is stored at `place`; a resend gets it again.
    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body;
}

enum Verdict {
    Write(Content),
    Nothing(Body),
}

/// Where and when a command was stored.
#[derive(Clone, Copy)]
struct Place {
    seq: Seq,
    ordinal: Ordinal,
    server_time_ms: i64,
}

/// The one dispatch over commands that write.
pub(crate) fn decide(command: &Command, situation: &Situation<'_>) -> Decision {
    let decided = match command {
        Command::Send(send) => send::Send::read(send, situation).map(|c| settle(&c, situation)),
        Command::MarkRead(mark) => mark_read::MarkRead::read(mark, situation).map(|c| settle(&c, situation)),
        Command::CreateGroup(create) => {
            create_group::CreateGroup::read(create, situation).map(|c| settle(&c, situation))
        }
        Command::AddMembers(add) => add_members::AddMembers::read(add, situation).map(|c| settle(&c, situation)),
        Command::RemoveMember(remove) => {
            remove_member::RemoveMember::read(remove, situation).map(|c| settle(&c, situation))
        }
        Command::LeaveGroup(leave) => leave_group::LeaveGroup::read(leave, situation).map(|c| settle(&c, situation)),
        Command::SignIn(_) | Command::Pull(_) | Command::Sync(_) | Command::ListMembers(_) => {
            Err(Refusal::UNKNOWN_COMMAND)
        }
    };
    decided.unwrap_or_else(Decision::Refuse)
}

/// The rules that all commands share: repeat, conflict, order; then the command's own.
fn settle(command: &impl Mutation, situation: &Situation<'_>) -> Decision {
    let content_hash = command.content_hash();
    let client_id = command.client_id();
    if let Some(written) = situation.memory.written(&key(situation, client_id)) {
        if written.content_hash != content_hash && !planted("conflict_ignored") {
            return Decision::Refuse(Refusal::CONFLICT);
        }
        let Written { seq, ordinal, server_time_ms, .. } = *written;
        let place = Place { seq, ordinal, server_time_ms };
        return Decision::Repeat(command.answer(situation, place));
    }
    if let Some(after) = command.after()
        && situation.memory.written(&key(situation, after)).is_none()
        && !planted("after_ignored")
    {
        // Behind one that was refused for good a moment ago, and would be refused for good itself: it stores nothing, so it
        // need not wait until its sender has heard of the other. A pipeline of n would take n round trips.
        if situation.turned_away.get(&key(situation, after)) == Some(&ErrorClass::Final)
            && let Err(refusal) = command.judge(situation)
            && refusal.class() == ErrorClass::Final
            && !planted("refused_one_by_one")
        {
            return Decision::RefuseUnlessStored { client_id: client_id.clone(), refusal };
        }
        return Decision::Await { client_id: client_id.clone(), after: after.clone() };
    }
    match command.judge(situation) {
        Ok(Verdict::Write(content)) => {
            let place = situation.next_place(&content);
            let answer = command.answer(situation, place);
            let entry = entry(situation, place, client_id, content);
            Decision::Append(Append { client_id: client_id.clone(), content_hash, entry, answer })
        }
        Ok(Verdict::Nothing(answer)) => Decision::Answer(answer),
        Err(refusal) => Decision::RefuseUnlessStored { client_id: client_id.clone(), refusal },
    }
}

fn entry(situation: &Situation<'_>, place: Place, client_id: &ClientId, content: Content) -> client::Entry {
    client::Entry {
        seq: place.seq.0,
        ordinal: place.ordinal.0,
        server_time_ms: place.server_time_ms,
        sender_user_id: situation.sender.into(),
        client_id: client_id.into(),
        content: Some(content),
    }
}

fn key(situation: &Situation<'_>, client_id: &ClientId) -> CommandKey {
    CommandKey { log: situation.log.clone(), sender: situation.sender.clone(), client_id: client_id.clone() }
}

fn client_id(text: &str) -> Result<ClientId, Refusal> {
    ClientId::parse(text).map_err(|_| Refusal::invalid("the command's id is no id"))
}

fn user_id(text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|_| Refusal::invalid("a user id is no id"))
}

/// What `after` names, if anything.
fn after(text: &str, client_id: &ClientId) -> Result<Option<ClientId>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let after = ClientId::parse(text).map_err(|_| Refusal::invalid("`after` is no id"))?;
    if after == *client_id { Err(Refusal::invalid("`after` names the command itself")) } else { Ok(Some(after)) }
}

/// A group command's `after`: the same rule, with a planted fault of its own.
fn group_after(text: &str, client_id: &ClientId) -> Result<Option<ClientId>, Refusal> {
    Ok(after(text, client_id)?.filter(|_| !planted("group_after_ignored")))
}

/// The queue carried the command by the log it writes, or the sender could race itself on two partitions.
fn check_log(situation: &Situation<'_>, written: &str) -> Result<(), Refusal> {
    if situation.log.as_str() == written { Ok(()) } else { Err(WRONG_LOG) }
}

const WRONG_LOG: Refusal = Refusal::invalid("the command came by another log than it writes");

/// The answer of every group command.
fn command_ack(situation: &Situation<'_>, place: Place) -> Body {
    Body::CommandAck(client::CommandAck {
        conversation_id: situation.log.into(),
        epoch: situation.epoch.0,
        seq: place.seq.0,
        server_time_ms: place.server_time_ms,
        ordinal: place.ordinal.0,
    })
}

#[cfg(test)]
mod tests;
