//! Commands as clients make them, records as a gateway does, and what answers say.

use crate::harness::{GATEWAY, Phone, Told, World, user};
use bytes::Bytes;
use im_proto::client::{self, client_frame::Command, server_frame::Body};
use im_proto::{ClientId, LogId, TraceId, UserId, internal};
use im_storage::ports::{EntryLog as _, Record};
use prost::Message as _;

pub fn record(phone: &Phone, request_id: u64, command: Command) -> Record {
    let log = log_of(&phone.user, &command);
    let frame = client::ClientFrame { request_id, command: Some(command), ..Default::default() }.encode_to_vec();
    let origin = internal::Origin {
        user_id: phone.user.as_str().into(),
        device_id: phone.device.as_str().into(),
        gateway_boot: GATEWAY.0,
        connection_id: phone.connection.0,
        request_id,
    };
    let trace = TraceId::from_halves(GATEWAY.0, request_id);
    let upstream = internal::Upstream {
        log_id: log.as_str().into(),
        origin: Some(origin),
        frame: frame.into(),
        trace: trace.map(TraceId::to_wire),
    };
    Record { log, upstream: upstream.encode_to_vec().into(), trace }
}

/// As the gateway computes it.
fn log_of(sender: &UserId, command: &Command) -> LogId {
    let conversation = |id: &str| LogId::parse(id).unwrap();
    match command {
        Command::Send(send) => match send.to.as_ref().unwrap() {
            client::send::To::UserId(to) => LogId::direct(sender, &user(to)),
            client::send::To::ConversationId(id) => conversation(id),
        },
        Command::MarkRead(_) => LogId::user(sender),
        Command::CreateGroup(create) => LogId::group(sender, &ClientId::parse(&create.command_id).unwrap()),
        Command::AddMembers(add) => conversation(&add.conversation_id),
        Command::RemoveMember(remove) => conversation(&remove.conversation_id),
        Command::LeaveGroup(leave) => conversation(&leave.conversation_id),
        other => panic!("{other:?} writes nothing"),
    }
}

pub fn body_of(text: &str) -> Bytes {
    client::MessageBody { text: text.into(), ..Default::default() }.encode_to_vec().into()
}

pub fn text_of(entry: &client::Entry) -> Option<String> {
    match &entry.content {
        Some(client::entry::Content::Message(message)) => {
            Some(client::MessageBody::decode(message.body.clone()).unwrap().text)
        }
        _ => None,
    }
}

/// A message to a user, whose id is its text.
pub fn to_user(to: &str, id: &str) -> Command {
    to_user_after(to, id, "")
}

pub fn send_text(to: &str, id: &str, text: &str) -> Command {
    let to = Some(client::send::To::UserId(to.into()));
    Command::Send(client::Send { to, client_message_id: id.into(), after: String::new(), body: body_of(text) })
}

pub fn to_user_after(to: &str, id: &str, after: &str) -> Command {
    let to = Some(client::send::To::UserId(to.into()));
    Command::Send(client::Send { to, client_message_id: id.into(), after: after.into(), body: body_of(id) })
}

pub fn to_log(log: &LogId, id: &str) -> Command {
    let to = Some(client::send::To::ConversationId(log.as_str().into()));
    Command::Send(client::Send { to, client_message_id: id.into(), after: String::new(), body: body_of(id) })
}

pub fn create(id: &str, users: &[&str]) -> Command {
    let user_ids = users.iter().map(|user| (*user).to_owned()).collect();
    Command::CreateGroup(client::CreateGroup { command_id: id.into(), name: "name".into(), user_ids })
}

pub fn add(log: &LogId, id: &str, users: &[&str]) -> Command {
    let user_ids = users.iter().map(|user| (*user).to_owned()).collect();
    Command::AddMembers(client::AddMembers {
        command_id: id.into(),
        conversation_id: log.as_str().into(),
        user_ids,
        ..Default::default()
    })
}

pub fn remove(log: &LogId, id: &str, user: &str) -> Command {
    Command::RemoveMember(client::RemoveMember {
        command_id: id.into(),
        conversation_id: log.as_str().into(),
        user_id: user.into(),
        ..Default::default()
    })
}

pub fn leave(log: &LogId, id: &str) -> Command {
    Command::LeaveGroup(client::LeaveGroup {
        command_id: id.into(),
        conversation_id: log.as_str().into(),
        ..Default::default()
    })
}

pub fn mark_read(world: &World, log: &LogId, id: &str, seq: u64) -> Command {
    Command::MarkRead(client::MarkRead {
        conversation_id: log.as_str().into(),
        epoch: world.log.epoch().0,
        seq,
        command_id: id.into(),
    })
}

/// The seq of an ack, of either kind.
#[track_caller]
pub fn acked(body: &Body) -> u64 {
    match body {
        Body::SendAck(ack) => ack.seq,
        Body::CommandAck(ack) => ack.seq,
        other => panic!("no ack: {other:?}"),
    }
}

#[track_caller]
pub fn refused(body: &Body) -> client::ErrorCode {
    match body {
        Body::Error(error) => error.code(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// The entries among pushes: conversation and seq.
pub fn entries_of(told: &[Told]) -> Vec<(String, u64)> {
    let entry = |told: &Told| match &told.body {
        Body::Entry(pushed) => Some((pushed.conversation_id.clone(), pushed.entry.as_ref().unwrap().seq)),
        _ => None,
    };
    told.iter().filter_map(entry).collect()
}
