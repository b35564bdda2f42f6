//! The frames a server sends: answers, pushes, and those at the bounds of the types.

use crate::Vector;
use bytes::Bytes;
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{
    CloseCode, Closing, CommandAck, ConversationState, Entry, EntryPushed, Error, ErrorClass, ErrorCode, GroupCreated,
    Kicked, Member, MemberLeft, MemberRemoved, Members, MembersAdded, Message, MessageBody, Pulled, ReadMarked,
    ReadMoved, ReceiptMoved, SendAck, SignedIn, SyncHint, Synced, Tombstone, kicked,
};
use prost::Message as _;

const DIRECT: &str = "d33w_sLOie8AiAh8jTYXhEA";
const GROUP: &str = "gAAAAAAAAAAAAAAAAAAAAAA";
const USER_LOG: &str = "uBBBBBBBBBBBBBBBBBBBBBA";
const NOW_MS: i64 = 1_790_000_000_123;
/// Above the largest whole number that a JavaScript number holds exactly.
const ABOVE_DOUBLE: u64 = (1 << 53) + 1;

pub fn vectors() -> Vec<Vector> {
    let mut vectors = vec![Vector::raw("heartbeat of the server", "server", [0])];
    vectors.extend(answers());
    vectors.extend(errors());
    vectors.extend(entries());
    vectors.extend(pushes());
    vectors.extend(bounds());
    vectors
}

fn entry(seq: u64, content: Content) -> Entry {
    Entry {
        seq,
        ordinal: seq,
        server_time_ms: NOW_MS,
        sender_user_id: "alice".to_owned(),
        client_id: format!("m-{seq}"),
        content: Some(content),
    }
}

fn message(text: &str) -> Content {
    let body = MessageBody { text: text.to_owned(), ..MessageBody::default() }.encode_to_vec().into();
    Content::Message(Message { body, to_user_id: "bob".to_owned() })
}

fn state() -> ConversationState {
    ConversationState {
        conversation_id: DIRECT.to_owned(),
        head_seq: 42,
        head_ordinal: 40,
        floor_seq: 1,
        read_seq: 30,
        read_ordinal: 29,
        peer_user_id: "bob".to_owned(),
        peer_read_seq: 41,
        member: true,
        ..ConversationState::default()
    }
}

fn answers() -> Vec<Vector> {
    let conversation_id = || DIRECT.to_owned();
    let signed_in = SignedIn {
        user_id: "alice".to_owned(),
        device_id: "phone-1".to_owned(),
        epoch: 0xfedc_ba98_7654_3210,
        generation: (NOW_MS as u64) << 16,
        inbox_version: 9,
        server_time_ms: NOW_MS,
        heartbeat_interval_ms: 30_000,
        frame_bytes_max: 65_536,
        pending_sends_max: 32,
        idle_timeout_ms: 90_000,
        user_log_id: USER_LOG.to_owned(),
    };
    let (epoch, server_time_ms) = (77, NOW_MS);
    let send_ack = SendAck { conversation_id: conversation_id(), epoch, seq: 42, server_time_ms, ordinal: 40 };
    let command_ack = CommandAck { conversation_id: GROUP.to_owned(), epoch, seq: 1, server_time_ms, ordinal: 0 };
    let read_marked = ReadMarked { conversation_id: conversation_id(), epoch, read_seq: 41, read_ordinal: 39 };
    let member = |user: &str, joined_seq| Member { user_id: user.to_owned(), joined_seq, read_seq: 0 };
    let members = Members {
        conversation_id: GROUP.to_owned(),
        members: vec![member("alice", 1), member("bob", 5)],
        complete: true,
        members_seq: 5,
        creator_user_id: "alice".to_owned(),
    };
    vec![
        Vector::from_server("signed in", 1, Body::SignedIn(signed_in)),
        Vector::from_server("send ack", 2, Body::SendAck(send_ack)),
        Vector::from_server("command ack", 15, Body::CommandAck(command_ack)),
        Vector::from_server("read marked", 12, Body::ReadMarked(read_marked)),
        Vector::from_server("members", 13, Body::Members(members)),
        Vector::from_server("pulled", 8, Body::Pulled(pulled(vec![entry(41, message("a")), entry(42, message("b"))]))),
        Vector::from_server("pulled, nothing there", 8, Body::Pulled(pulled(vec![]))),
        Vector::from_server("a page of a sync", 10, Body::Synced(synced(false))),
        Vector::from_server("the last page of a sync", 11, Body::Synced(synced(true))),
    ]
}

fn pulled(entries: Vec<Entry>) -> Pulled {
    Pulled { conversation_id: DIRECT.to_owned(), epoch: 77, head_seq: 42, floor_seq: 1, entries }
}

fn synced(complete: bool) -> Synced {
    let left = ConversationState {
        conversation_id: GROUP.to_owned(),
        head_seq: 7,
        group_name: "Friday ⚽".to_owned(),
        ..ConversationState::default()
    };
    let moved = ReadMoved { conversation_id: DIRECT.to_owned(), seq: 30, ordinal: 29 };
    Synced {
        token: Bytes::from_static(&[0, 1, 2, 0xfe, 0xff]),
        complete,
        epoch: 77,
        inbox_version: 12,
        conversations: vec![state(), left],
        user_entries: vec![Entry { ordinal: 0, ..entry(3, Content::ReadMoved(moved)) }],
        user_log_seq: 3,
    }
}

fn errors() -> Vec<Vector> {
    let error = |class: ErrorClass, code: ErrorCode, retry_after_ms, detail: &str| {
        Body::Error(Error { class: class.into(), code: code.into(), retry_after_ms, detail: detail.to_owned() })
    };
    let out_of_order = error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0, "");
    vec![
        Vector::from_server("final error", 2, error(ErrorClass::Final, ErrorCode::NotAllowed, 0, "not a member")),
        Vector::from_server("reset", 8, error(ErrorClass::Final, ErrorCode::Reset, 0, "another epoch")),
        Vector::from_server("retry", 3, out_of_order),
        Vector::from_server("busy", 4, error(ErrorClass::Busy, ErrorCode::RateLimited, 1_500, "too fast")),
        Vector::from_server("unknown", 5, error(ErrorClass::Unknown, ErrorCode::TimedOut, 0, "")),
    ]
}

fn entries() -> Vec<Vector> {
    let push = |name, conversation: &str, entry| {
        let pushed = EntryPushed { conversation_id: conversation.to_owned(), epoch: 77, entry: Some(entry) };
        Vector::from_server(name, 0, Body::Entry(pushed))
    };
    let users = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let created = GroupCreated { name: "Friday ⚽".to_owned(), user_ids: users(&["alice", "bob"]) };
    let added = MembersAdded { user_ids: users(&["cid"]) };
    let removed = MemberRemoved { user_id: "cid".to_owned() };
    let moved = ReadMoved { conversation_id: DIRECT.to_owned(), seq: 42, ordinal: 40 };
    let uncounted = |seq, content| Entry { ordinal: 0, ..entry(seq, content) };
    vec![
        push("a message", DIRECT, entry(42, message("hello"))),
        push("a message above 2^53", DIRECT, entry(ABOVE_DOUBLE, message("late"))),
        push("a group is created", GROUP, uncounted(1, Content::GroupCreated(created))),
        push("members are added", GROUP, uncounted(2, Content::MembersAdded(added))),
        push("nobody new is added", GROUP, uncounted(3, Content::MembersAdded(MembersAdded::default()))),
        push("a member is removed", GROUP, uncounted(4, Content::MemberRemoved(removed))),
        push("a member leaves", GROUP, uncounted(5, Content::MemberLeft(MemberLeft {}))),
        push("a tombstone", DIRECT, entry(6, Content::Tombstone(Tombstone {}))),
        push("the own cursor moves", USER_LOG, uncounted(3, Content::ReadMoved(moved))),
    ]
}

fn pushes() -> Vec<Vector> {
    let receipt =
        ReceiptMoved { conversation_id: DIRECT.to_owned(), user_id: "bob".to_owned(), read_seq: ABOVE_DOUBLE };
    let kicked = Kicked { reason: kicked::Reason::Replaced.into(), generation: 8 };
    let closing = |code: CloseCode, reconnect_after_ms, detail: &str| {
        Body::Closing(Closing { code: code.into(), reconnect_after_ms, detail: detail.to_owned() })
    };
    vec![
        Vector::from_server("a receipt", 0, Body::Receipt(receipt)),
        Vector::from_server("a sync hint", 0, Body::SyncHint(SyncHint { inbox_version: 13 })),
        Vector::from_server("a sync hint without a version: an empty push", 0, Body::SyncHint(SyncHint::default())),
        Vector::from_server("kicked", 0, Body::Kicked(kicked)),
        Vector::from_server("closing, to reconnect", 0, closing(CloseCode::GoingAway, 2_000, "drain")),
        Vector::from_server("closing, for good", 0, closing(CloseCode::BadToken, 0, "signature")),
    ]
}

fn bounds() -> Vec<Vector> {
    let most = SendAck {
        conversation_id: DIRECT.to_owned(),
        epoch: u64::MAX,
        seq: u64::MAX,
        server_time_ms: i64::MAX,
        ordinal: u64::MAX,
    };
    let before_1970 = SendAck { server_time_ms: -1, ..SendAck::default() };
    let later = Error { class: 9, code: 900, ..Error::default() };
    let later_code = Closing { code: 4_123, ..Closing::default() };
    let later_content = Entry { content: None, ..entry(7, message("")) };
    let pushed = EntryPushed { conversation_id: DIRECT.to_owned(), epoch: 77, entry: Some(later_content) };
    vec![
        Vector::from_server("the highest numbers", u64::MAX, Body::SendAck(most)),
        Vector::from_server("a negative time", 1, Body::SendAck(before_1970)),
        Vector::from_server("an error class and code of a later version", 2, Body::Error(later)),
        Vector::from_server("a close code of a later version", 0, Body::Closing(later_code)),
        Vector::from_server("an entry without content this version knows", 0, Body::Entry(pushed)),
        // Field 1000, length-delimited and empty.
        Vector::raw("a push of a later version", "server", [3, 0xc2, 0x3e, 0]),
        Vector::raw("an answer of a later version", "server", [5, 8, 1, 0xc2, 0x3e, 0]),
        // A sync hint {inbox_version 5, field 100: 7}.
        Vector::raw("an unknown field in a push", "server", [7, 0x62, 5, 8, 5, 0xa0, 6, 7]),
    ]
}
