//! B1 to B9: bytes that are no frame, or frames out of their place.

use crate::harness::bystander::Bystanders;
use crate::harness::raw::{Got, Raw, assert_final, send_to_user, sign_in, within};
use crate::harness::server::{Server, Settings};
use bytes::{BufMut as _, BytesMut};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ClientFrame, CloseCode, ErrorCode};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Wire types by number, for keys made by hand.
const LENGTH_DELIMITED: WireType = WireType::LengthDelimited;
const SEND_TAG: u32 = 3;
const SEND_BODY_TAG: u32 = 5;

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_varint(value, &mut bytes);
    bytes
}

fn delimited(frame: &[u8]) -> Vec<u8> {
    [varint(frame.len() as u64), frame.to_vec()].concat()
}

/// A `ClientFrame` with request id 7 whose `Send` holds these very bytes.
fn send_holding(inside: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x08, 7];
    encode_key(SEND_TAG, LENGTH_DELIMITED, &mut frame);
    encode_varint(inside.len() as u64, &mut frame);
    frame.extend_from_slice(inside);
    frame
}

fn valid_send(id: &str) -> Vec<u8> {
    send_to_user("bob", id, "hello").encode_to_vec()
}

/// Each input closes a signed-in connection with this code.
async fn closes(code: CloseCode, inputs: &[(&str, Vec<u8>)]) {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    for (name, bytes) in inputs {
        let mut raw = Raw::device(&server, "eve", "phone").await;
        raw.send_bytes(bytes).await;
        let closing = raw.closed().await;
        assert_eq!(closing.code(), code, "{name}: {closing:?}");
        bystanders.are_undisturbed().await;
    }
}

#[tokio::test]
async fn b1_a_length_above_the_limit_closes_before_a_byte_of_it_came() {
    let inputs =
        [("64 KiB and one", varint(65_537)), ("2^31", varint(1 << 31)), ("2^32-1", varint(u64::from(u32::MAX)))];
    closes(CloseCode::FrameTooLarge, &inputs).await;
}

#[tokio::test]
async fn b1_the_limit_before_sign_in_is_lower() {
    let server = Server::start(Settings::for_tests());
    let mut raw = Raw::connect(server.clients()).await;
    raw.send_bytes(&varint(8193)).await;
    raw.closed_with(CloseCode::FrameTooLarge).await;
}

#[tokio::test]
async fn b1_a_length_that_is_no_varint32_closes() {
    let inputs = [
        ("6 bytes", vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("above 2^32-1", vec![0xff, 0xff, 0xff, 0xff, 0x1f]),
        ("never ending", vec![0xff; 16]),
    ];
    closes(CloseCode::ProtocolError, &inputs).await;
}

#[tokio::test]
async fn b2_a_frame_that_stops_in_the_middle_closes_after_the_frame_deadline() {
    let server = Server::start(Settings::for_tests().with("IM_GATEWAY__FRAME_TIMEOUT_MS", "400"));
    let mut bystanders = Bystanders::new(&server).await;
    let mut raw = Raw::device(&server, "eve", "phone").await;
    raw.send_bytes(&[varint(60_000), vec![0x08]].concat()).await;
    raw.closed_with(CloseCode::ProtocolError).await;
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn b2_promised_lengths_cost_no_memory() {
    const CONNECTIONS: usize = 400;
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut raw = Raw::device(&server, &format!("eve{number}"), "phone").await;
        raw.is_alive().await;
        open.push(raw);
    }
    let before = server.resident_bytes();
    for raw in &mut open {
        raw.send_bytes(&[varint(65_000), vec![0x08]].concat()).await;
    }
    bystanders.are_undisturbed().await;
    let grown = server.resident_bytes().saturating_sub(before);
    let promised = CONNECTIONS as u64 * 65_000;
    assert!(grown < promised / 2, "{grown} bytes for {promised} promised");
}

#[tokio::test]
async fn b3_over_long_varints_inside_close() {
    let eleven_bytes = [vec![0x08], vec![0x80; 10], vec![0x01]].concat();
    let overflowing = [vec![0x08], vec![0xff; 9], vec![0x7f]].concat();
    let inputs = [("11 bytes", delimited(&eleven_bytes)), ("more than 64 bits", delimited(&overflowing))];
    closes(CloseCode::ProtocolError, &inputs).await;
}

#[tokio::test]
async fn b4_inner_lengths_beyond_the_frame_close() {
    let mut beyond = vec![0x08, 7];
    encode_key(SEND_TAG, LENGTH_DELIMITED, &mut beyond);
    encode_varint(1000, &mut beyond);
    let mut huge_body = Vec::new();
    encode_key(SEND_BODY_TAG, LENGTH_DELIMITED, &mut huge_body);
    encode_varint(u64::MAX >> 1, &mut huge_body);
    let inputs = [("of the command", delimited(&beyond)), ("of its body", delimited(&send_holding(&huge_body)))];
    closes(CloseCode::ProtocolError, &inputs).await;
}

#[tokio::test]
async fn b5_nesting_beyond_100_closes() {
    // Groups of an unknown field, each inside the last: the only nesting the schema leaves open.
    let mut nested = BytesMut::new();
    nested.put_slice(&[0x08, 7]);
    (0..1000).for_each(|_| encode_key(1000, WireType::StartGroup, &mut nested));
    (0..1000).for_each(|_| encode_key(1000, WireType::EndGroup, &mut nested));
    closes(CloseCode::ProtocolError, &[("1000 groups", delimited(&nested))]).await;
}

#[tokio::test]
async fn b6_unknown_fields_are_ignored_and_the_last_of_a_repeated_one_wins() {
    let server = Server::start(Settings::for_tests());
    let mut raw = Raw::device(&server, "ann", "phone").await;
    let mut inside = client::Send { client_message_id: "first".to_owned(), ..Default::default() }.encode_to_vec();
    inside.extend(valid_send("last"));
    encode_key(999, LENGTH_DELIMITED, &mut inside);
    inside.extend([3, 1, 2, 3]);
    raw.send_bytes(&delimited(&send_holding(&inside))).await;
    let Body::SendAck(ack) = raw.answer(7).await else { panic!("not stored") };
    let entries = raw.pull_all(&ack.conversation_id, ack.epoch, 1).await;
    assert_eq!(entries[0].client_id, "last");
}

#[tokio::test]
async fn b6_a_wrong_wire_type_closes() {
    let mut wrong = Vec::new();
    encode_key(SEND_BODY_TAG, WireType::Varint, &mut wrong);
    wrong.push(1);
    let request_id_as_text = vec![0x0a, 1, b'x'];
    let inputs = [("body", delimited(&send_holding(&wrong))), ("request_id", delimited(&request_id_as_text))];
    closes(CloseCode::ProtocolError, &inputs).await;
}

#[tokio::test]
async fn b6_a_command_of_the_future_is_refused_and_the_connection_kept() {
    let server = Server::start(Settings::for_tests());
    let mut raw = Raw::device(&server, "ann", "phone").await;
    let mut future = vec![0x08, 9];
    encode_key(200, LENGTH_DELIMITED, &mut future);
    future.extend([2, 0x08, 0x01]);
    raw.send_bytes(&delimited(&future)).await;
    assert_final(&raw.answer(9).await, ErrorCode::UnknownCommand);
    raw.send_frame(&ClientFrame { request_id: 10, command: None, ..Default::default() }).await;
    assert_final(&raw.answer(10).await, ErrorCode::UnknownCommand);
    raw.is_alive().await;
}

#[tokio::test]
async fn b7_text_that_is_not_utf8_closes() {
    let mut not_utf8 = Vec::new();
    encode_key(1, LENGTH_DELIMITED, &mut not_utf8);
    not_utf8.extend([2, 0xff, 0xfe]);
    closes(CloseCode::ProtocolError, &[("user_id", delimited(&send_holding(&not_utf8)))]).await;
}

#[tokio::test]
async fn b8_a_frame_in_one_byte_pieces_is_read_once() {
    let server = Server::start(Settings::for_tests());
    let mut raw = Raw::device(&server, "ann", "phone").await;
    for byte in delimited(&send_holding(&valid_send("m1"))) {
        raw.send_bytes(&[byte]).await;
    }
    assert!(matches!(raw.answer(7).await, Body::SendAck(ack) if ack.seq == 1));
    // Over WebSocket those were fragments; here its header comes in pieces too.
    for byte in raw.encode(&delimited(&send_holding(&valid_send("m2")))) {
        raw.send_encoded(&[byte]).await;
    }
    assert!(matches!(raw.answer(7).await, Body::SendAck(ack) if ack.seq == 2));
}

#[tokio::test]
async fn b8_a_frame_cut_off_by_the_clients_end_does_nothing() {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    let whole = delimited(&send_holding(&valid_send("m1")));
    for cut in 1.. {
        let mut raw = Raw::device(&server, "ann", &format!("phone{}", cut % 4)).await;
        let encoded = raw.encode(&whole);
        if cut == encoded.len() {
            break;
        }
        raw.send_encoded(&encoded[..cut]).await;
        raw.shut_down_sending().await;
        let ended = async { while raw.read().await != Got::End {} };
        within("the server ends too", ended).await;
    }
    bystanders.are_undisturbed().await;
    let mut ann = Raw::device(&server, "ann", "reader").await;
    assert!(ann.sync().await.conversations.is_empty());
}

#[tokio::test]
async fn b9_frames_out_of_their_place_close() {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    let token = server.key.token("ann");
    let send = || Command::Send(send_to_user("bob", "m1", "x"));

    let mut before_sign_in = Raw::connect(server.clients()).await;
    before_sign_in.send(send()).await;
    before_sign_in.closed_with(CloseCode::ProtocolError).await;

    let mut heartbeat_first = Raw::connect(server.clients()).await;
    heartbeat_first.send_bytes(&[0]).await;
    heartbeat_first.closed_with(CloseCode::ProtocolError).await;

    let mut twice = Raw::device(&server, "ann", "phone").await;
    twice.send(sign_in(&token, "phone")).await;
    twice.closed_with(CloseCode::ProtocolError).await;

    let mut pipelined_behind = Raw::connect(server.clients()).await;
    pipelined_behind.send(sign_in(&token, "phone")).await;
    pipelined_behind.send(sign_in(&server.key.token("bob"), "phone")).await;
    let closed = async { while !matches!(pipelined_behind.read().await, Got::End) {} };
    within("a second sign-in at once closes", closed).await;

    let mut zero = Raw::device(&server, "ann", "phone").await;
    zero.send_frame(&ClientFrame { request_id: 0, command: Some(send()), ..Default::default() }).await;
    zero.closed_with(CloseCode::ProtocolError).await;

    let mut reused = Raw::device(&server, "ann", "phone").await;
    let frame =
        ClientFrame { request_id: 5, command: Some(send()), ..Default::default() }.encode_length_delimited_to_vec();
    reused.send_bytes(&[frame.clone(), frame].concat()).await;
    reused.closed_with(CloseCode::ProtocolError).await;
    bystanders.are_undisturbed().await;
}
