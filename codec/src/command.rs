//! The commands a signed-in client can send: one file and one arm of [`route`] each.
//!
//! In: a decoded command and the session's user. Out: where it goes, or an early refusal. Always: what passes has well
//! formed ids, lists within their limits and all its fields; whether the user may do it is for the logic to decide.

mod add_members;
mod create_group;
mod leave_group;
mod list_members;
mod mark_read;
mod pull;
mod remove_member;
mod send;
mod sync;

use crate::error::Refused;
use crate::limits::{SessionLimits, USER_IDS_MAX};
use im_proto::client::{self, client_frame::Command};
use im_proto::{ClientId, LogId, LogKind, UserId};

/// Where a command goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the queue, as the next entry of this log.
    Write(LogId),
    /// To the logic, which only reads.
    Read,
}

/// The one dispatch of commands. `None`: no command for here (a second sign-in).
pub fn route(user: &UserId, command: &Command, limits: &SessionLimits) -> Option<Result<Route, Refused>> {
    Some(match command {
        Command::SignIn(_) => return None,
        Command::Send(send) => send::route(user, send, limits),
        Command::Pull(pull) => pull::route(user, pull),
        Command::Sync(sync) => sync::route(sync),
        Command::MarkRead(mark_read) => mark_read::route(user, mark_read),
        Command::CreateGroup(create) => create_group::route(user, create),
        Command::AddMembers(add) => add_members::route(add),
        Command::RemoveMember(remove) => remove_member::route(remove),
        Command::LeaveGroup(leave) => leave_group::route(leave),
        Command::ListMembers(list) => list_members::route(list),
    })
}

/// A conversation: direct or group.
fn conversation(id: &str) -> Result<LogId, Refused> {
    match LogId::parse(id) {
        Ok(log) if matches!(log.kind(), Some(LogKind::Direct | LogKind::Group)) => Ok(log),
        _ => Err(Refused::invalid("conversation_id is not the id of a conversation")),
    }
}

fn group(id: &str) -> Result<LogId, Refused> {
    match LogId::parse(id) {
        Ok(log) if log.kind() == Some(LogKind::Group) => Ok(log),
        _ => Err(Refused::invalid("conversation_id is not the id of a group")),
    }
}

fn user(id: &str) -> Result<UserId, Refused> {
    UserId::parse(id).map_err(|_| Refused::invalid("a user id is not 1 to 64 characters of A-Z a-z 0-9 _ -"))
}

fn users(ids: &[String]) -> Result<(), Refused> {
    if ids.len() > USER_IDS_MAX {
        return Err(Refused::too_large("more user ids than one command may carry"));
    }
    ids.iter().try_for_each(|id| user(id).map(drop))
}

/// `after` names another command of the sender, or nothing.
fn after(after: &str, id: &ClientId) -> Result<(), Refused> {
    if !after.is_empty() && client_id(after)? == *id {
        return Err(Refused::invalid("a command cannot come after itself"));
    }
    Ok(())
}

fn client_id(id: &str) -> Result<ClientId, Refused> {
    ClientId::parse(id).map_err(|_| Refused::invalid("a client id is not 1 to 64 characters of A-Z a-z 0-9 _ -"))
}

/// What a sign-in must look like before the logic is asked. The code is why the connection is closed.
pub fn check_sign_in(sign_in: &client::SignIn) -> Result<(), (client::CloseCode, &'static str)> {
    use crate::limits::TOKEN_BYTES_MAX;
    use client::CloseCode;
    if sign_in.protocol_version != im_proto::PROTOCOL_VERSION {
        return Err((CloseCode::UnsupportedVersion, "this server speaks protocol version 1"));
    }
    if sign_in.token.is_empty() || sign_in.token.len() > TOKEN_BYTES_MAX {
        return Err((CloseCode::BadToken, "a token has 1 to 4096 bytes"));
    }
    if im_proto::DeviceId::parse(&sign_in.device_id).is_err() {
        return Err((CloseCode::ProtocolError, "device_id is not 1 to 64 characters of A-Z a-z 0-9 _ -"));
    }
    // A platform has the same alphabet as an id; a client may leave it out.
    if !sign_in.platform.is_empty() && im_proto::DeviceId::parse(&sign_in.platform).is_err() {
        return Err((CloseCode::ProtocolError, "platform is not 1 to 64 characters of A-Z a-z 0-9 _ -"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
