//! Rows of the fault table that are no promise by themselves: F20 (away for long), F36 (no byte lost to a timeout), F38 (no
//! descriptor left; a limit that may be raised is none) and F39 (another version). F27 is in `clock_jumps` and with the sign-in rows, F28 and F29 in C2, F30 in C5.

use crate::harness::bystander::Bystanders;
use crate::harness::calls::{message_ids, unread};
use crate::harness::raw::{Got, Raw, send_to_conversation, send_to_user, within};
use crate::harness::server::{Server, Settings};
use futures_util::future::join_all;
use im_proto::client::client_frame::Command;
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ClientFrame};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

const TALKERS: usize = 10;
const GROUPS_OF_A_TALKER: usize = 50;
const MESSAGES_OF_A_GROUP: usize = 20;
const PAGE: u32 = 100;

/// Founds groups with bob and talks in each.
async fn talk(server: &Server, number: usize) {
    let mut talker = Raw::device(server, &format!("talker{number}"), "phone").await;
    for group in 0..GROUPS_OF_A_TALKER {
        let group = talker.create_group(&format!("create{group}"), &["bob"]).await.conversation_id;
        let message = |number| send_to_conversation(&group, &format!("{group}-{number}"), "x");
        let mut requests = Vec::new();
        for number in 0..MESSAGES_OF_A_GROUP {
            requests.push(talker.send(Command::Send(message(number))).await);
        }
        for (number, request) in requests.into_iter().enumerate() {
            if !matches!(talker.answer(request).await, Body::SendAck(_)) {
                talker.message(message(number)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_device_that_was_away_is_told_of_10_000_messages_in_500_conversations_page_by_page() {
    let server = Server::start(Settings::for_tests());
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut token = bob.sync().await.token;
    drop(bob);
    join_all((0..TALKERS).map(|number| talk(&server, number))).await;

    let mut bob = Raw::device(&server, "bob", "phone").await;
    let (mut moved, mut pages, mut epoch) = (BTreeMap::new(), 0, 0);
    loop {
        let sync = Command::Sync(client::Sync { token, limit: PAGE });
        let Body::Synced(page) = bob.call_until_settled(sync).await else { panic!("not synced") };
        assert!(page.conversations.len() <= PAGE as usize, "a page is bounded");
        moved.extend(page.conversations.into_iter().map(|state| (state.conversation_id.clone(), state)));
        (token, epoch, pages) = (page.token, page.epoch.max(epoch), pages + 1);
        if page.complete {
            break;
        }
    }
    assert_eq!(moved.len(), TALKERS * GROUPS_OF_A_TALKER);
    assert!(pages >= moved.len() / PAGE as usize);
    for (conversation, state) in moved {
        assert_eq!(unread(&state), MESSAGES_OF_A_GROUP as u64);
        let entries = bob.pull_all(&conversation, epoch, 1).await;
        assert_eq!(message_ids(&entries).len(), MESSAGES_OF_A_GROUP);
    }
}

/// Field 1000, a varint: what a later version may add to any message.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 0x01];

/// Field 3 of a frame, a message.
const SEND_FIELD: [u8; 1] = [0x1a];

/// Behind its length.
fn delimited(message: &[u8]) -> Vec<u8> {
    [&[u8::try_from(message.len()).unwrap()][..], message].concat()
}

#[tokio::test]
async fn f39_what_a_newer_client_adds_is_passed_over_and_its_message_arrives_byte_for_byte() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut send = send_to_user("bob", "m1", "x");
    let body = [&send.body[..], &UNKNOWN_FIELD].concat();
    send.body = body.clone().into();
    let command = [&send.encode_to_vec()[..], &UNKNOWN_FIELD].concat();
    let request = ClientFrame { request_id: 1000, ..Default::default() }.encode_to_vec();
    let frame = [&request[..], &SEND_FIELD, &delimited(&command), &UNKNOWN_FIELD].concat();
    ann.send_bytes(&delimited(&frame)).await;
    assert!(matches!(ann.answer(1000).await, Body::SendAck(ack) if ack.seq == 1));
    let pushed = bob.push(|body| match body {
        Body::Entry(client::EntryPushed { entry: Some(entry), .. }) => Some(entry.clone()),
        _ => None,
    });
    let Some(Content::Message(message)) = pushed.await.content else { panic!("no message") };
    assert_eq!(message.body, body);
}

/// Bytes dribble in around every deadline that the server has; each must be read once.
#[tokio::test]
async fn f36_no_byte_is_lost_to_a_timer_that_fires_while_bytes_arrive() {
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__HEARTBEAT_INTERVAL_MS", "20")
        // It sends no heartbeats, and the first acks of a young cluster take seconds.
        .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "20000")
        .with("IM_GATEWAY__FRAME_TIMEOUT_MS", "5000");
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 1..=24_u64 {
        let command = Command::Send(send_to_user("bob", &format!("m{number}"), &"x".repeat(64)));
        let frame = ClientFrame { request_id: 1000 + number, command: Some(command), ..Default::default() };
        let bytes = ann.encode(&[frame.encode_length_delimited_to_vec(), vec![0]].concat());
        let pieces = bytes.len().div_ceil(7);
        for (index, piece) in bytes.chunks(7).enumerate() {
            ann.send_encoded(piece).await;
            // Paces the pieces over some turns of the timer wheel; nothing is waited for.
            let pause_ms = if index == pieces / 2 { 4 + number } else { 1 };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        match ann.answer(1000 + number).await {
            Body::SendAck(ack) => assert_eq!(ack.seq, number),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_soft_limit_of_open_files_bounds_no_connections() {
    let server = Server::start(Settings::for_tests().soft_descriptors_max(96));
    let mut open = Vec::new();
    for number in 0..250 {
        open.push(Raw::device(&server, &format!("user{number}"), "phone").await);
    }
    for device in &mut open {
        device.sync().await;
    }
}

#[tokio::test]
async fn f38_when_descriptors_run_out_the_open_connections_are_served_and_new_ones_later() {
    let server = Server::start(Settings::for_tests().descriptors_max(96));
    let mut bystanders = Bystanders::new(&server).await;
    let mut open = Vec::new();
    for _ in 0..150 {
        // The kernel takes the connection even where the server cannot.
        open.push(Raw::connect(server.clients()).await);
    }
    bystanders.are_undisturbed().await;
    drop(open);
    let back = async {
        loop {
            let mut raw = Raw::connect(server.clients()).await;
            raw.send(crate::harness::raw::sign_in(&server.key.token("late"), "phone")).await;
            let answer = tokio::time::timeout(Duration::from_secs(2), raw.read_unhurried()).await;
            if matches!(answer, Ok(Got::Frame(frame)) if matches!(frame.body, Some(Body::SignedIn(_)))) {
                return;
            }
        }
    };
    within("new connections are served again", back).await;
    bystanders.are_undisturbed().await;
    let (status, _) = crate::harness::http::get(server.http, "/healthz");
    assert_eq!(status, 200);
}
