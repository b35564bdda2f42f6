//! The frames a client sends, one of each command and those at its bounds.

use crate::Vector;
use bytes::Bytes;
use im_proto::client::client_frame::Command;
use im_proto::client::{
    AddMembers, CreateGroup, LeaveGroup, ListMembers, MarkRead, MessageBody, Pull, RemoveMember, Send, SignIn, Sync,
    send,
};
use prost::Message as _;

const DIRECT: &str = "d33w_sLOie8AiAh8jTYXhEA";
const GROUP: &str = "gAAAAAAAAAAAAAAAAAAAAAA";

fn text(text: &str) -> Bytes {
    MessageBody { text: text.to_owned(), ..MessageBody::default() }.encode_to_vec().into()
}

fn users(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sign_in() -> SignIn {
    SignIn {
        protocol_version: 1,
        token: "header.claims.signature".to_owned(),
        device_id: "phone-1".to_owned(),
        platform: "ios".to_owned(),
        ..Default::default()
    }
}

fn send(to: send::To, after: &str, body: Bytes) -> Command {
    Command::Send(Send { to: Some(to), client_message_id: "m-2".to_owned(), after: after.to_owned(), body })
}

pub fn vectors() -> Vec<Vector> {
    let mut vectors = vec![Vector::raw("heartbeat of the client", "client", [0])];
    vectors.push(Vector::from_client("sign in", 1, Command::SignIn(sign_in())));
    vectors.extend(sends());
    vectors.extend(reads());
    vectors.extend(groups());
    vectors.extend(bounds());
    vectors
}

fn sends() -> Vec<Vector> {
    let user = || send::To::UserId("bob".to_owned());
    let picture = MessageBody {
        text: "Grüße, 世界 👋".to_owned(),
        content_type: "image/png".to_owned(),
        data: Bytes::from_static(&[0x89, b'P', b'N', b'G', 0, 0xff]),
    };
    vec![
        Vector::from_client("send to a user", 2, send(user(), "", text("hello"))),
        Vector::from_client(
            "send to a conversation, behind an unanswered send",
            3,
            send(send::To::ConversationId(GROUP.to_owned()), "m-1", text("hello all")),
        ),
        Vector::from_client(
            "send with text of many bytes a character, and data",
            4,
            send(user(), "", picture.encode_to_vec().into()),
        ),
        Vector::from_client("send of an empty body", 5, send(user(), "", Bytes::new())),
        Vector::from_client("send to nobody", 6, Command::Send(Send::default())),
        Vector::from_client("send of 300 bytes: a length of two bytes", 7, send(user(), "", text(&"x".repeat(300)))),
    ]
}

fn reads() -> Vec<Vector> {
    let token = Bytes::from_static(&[0, 1, 2, 0xfe, 0xff]);
    let pull = |from_seq, limit| Pull { conversation_id: DIRECT.to_owned(), epoch: 77, from_seq, limit };
    let conversation_id = DIRECT.to_owned();
    let mark_read = MarkRead { conversation_id, epoch: 77, seq: 41, command_id: "r-1".to_owned() };
    let list =
        |after: &str, limit| ListMembers { conversation_id: GROUP.to_owned(), after_user_id: after.to_owned(), limit };
    vec![
        Vector::from_client("pull", 8, Command::Pull(pull(42, 200))),
        Vector::from_client("pull from above 2^53", 9, Command::Pull(pull((1 << 53) + 1, 0))),
        Vector::from_client("first sync: an empty command", 10, Command::Sync(Sync::default())),
        Vector::from_client("sync from a token", 11, Command::Sync(Sync { token, limit: 50 })),
        Vector::from_client("mark read", 12, Command::MarkRead(mark_read)),
        Vector::from_client("list members", 13, Command::ListMembers(list("", 0))),
        Vector::from_client("list members, the next page", 14, Command::ListMembers(list("bob", 100))),
    ]
}

fn groups() -> Vec<Vector> {
    let (conversation_id, command_id) = (GROUP.to_owned(), "c-1".to_owned());
    let create =
        CreateGroup { command_id: command_id.clone(), name: "Friday ⚽".to_owned(), user_ids: users(&["bob", "cid"]) };
    let add = AddMembers {
        command_id: command_id.clone(),
        conversation_id: conversation_id.clone(),
        user_ids: users(&["dan"]),
        after: String::new(),
    };
    let add_behind = AddMembers { after: "m-2".to_owned(), ..add.clone() };
    let remove = RemoveMember {
        command_id: command_id.clone(),
        conversation_id: conversation_id.clone(),
        user_id: "cid".to_owned(),
        after: String::new(),
    };
    let remove_behind = RemoveMember { after: "m-2".to_owned(), ..remove.clone() };
    let leave = LeaveGroup { command_id: command_id.clone(), conversation_id, after: String::new() };
    let leave_behind = LeaveGroup { after: "m-2".to_owned(), ..leave.clone() };
    let alone = CreateGroup { command_id, ..CreateGroup::default() };
    vec![
        Vector::from_client("create group", 15, Command::CreateGroup(create)),
        Vector::from_client("create group without a name, alone", 16, Command::CreateGroup(alone)),
        Vector::from_client("add members", 17, Command::AddMembers(add)),
        Vector::from_client("remove member", 18, Command::RemoveMember(remove)),
        Vector::from_client("leave group", 19, Command::LeaveGroup(leave)),
        Vector::from_client("add members behind another command", 20, Command::AddMembers(add_behind)),
        Vector::from_client("remove member behind another command", 21, Command::RemoveMember(remove_behind)),
        Vector::from_client("leave group behind another command", 22, Command::LeaveGroup(leave_behind)),
    ]
}

fn bounds() -> Vec<Vector> {
    vec![
        Vector::from_client("the highest request id", u64::MAX, Command::Sync(Sync::default())),
        // request_id 1, then field 100 (varint 7), then an empty sync.
        Vector::raw("an unknown field is ignored", "client", [7, 8, 1, 0xa0, 6, 7, 0x2a, 0]),
        // request_id 1, then field 1000, length-delimited: a command of a later version.
        Vector::raw("a command of a later version", "client", [5, 8, 1, 0xc2, 0x3e, 0]),
        // request_id 1 and then 2.
        Vector::raw("of a field given twice the last counts", "client", [6, 8, 1, 8, 2, 0x2a, 0]),
        // An empty sync, then request_id 1.
        Vector::raw("fields in any order", "client", [4, 0x2a, 0, 8, 1]),
        // request_id 1 in two bytes.
        Vector::raw("a number written longer than it needs", "client", [5, 8, 0x81, 0, 0x2a, 0]),
    ]
}
