//! C6: every queue is bounded and says so: a full upstream stops reading, a slow reader loses pushes but never answers, gets
//! one hint when it drains and is closed when it makes no progress; nobody else notices.

use crate::harness::bystander::Bystanders;
use crate::harness::calls::direct;
use crate::harness::raw::{Got, Raw, send_to_user, within};
use crate::harness::server::{Server, Settings, is_cluster};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, ServerFrame};

/// Fills any socket buffer soon, with few messages.
const LARGE_TEXT_BYTES: usize = 15_000;

#[tokio::test]
async fn a_sender_faster_than_the_store_is_slowed_down_and_every_send_is_acked() {
    const SENDS: usize = 3000;
    // Between gateway and logic: in one process our own queue, on a cluster what the producer holds.
    let settings = match is_cluster() {
        true => Settings::for_tests().with("IM_KAFKA__IN_FLIGHT_MAX", "100"),
        false => Settings::for_tests().with("IM_LOGIC__QUEUE_RECORDS_MAX", "4").with("IM_LOGIC__PARTITIONS", "1"),
    };
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut requests = Vec::new();
    for number in 0..SENDS {
        requests.push(ann.send(Command::Send(send_to_user("bob", &format!("m{number}"), "x"))).await);
    }
    for (number, request) in requests.into_iter().enumerate() {
        match ann.answer(request).await {
            Body::SendAck(ack) => assert_eq!(ack.seq, number as u64 + 1),
            other => panic!("{number}: {other:?}"),
        }
    }
}

/// Sends large messages to `bob` until the server says that it left a push out.
async fn flood_until_pushes_are_dropped(server: &Server, sender: &mut Raw) -> u64 {
    let text = "x".repeat(LARGE_TEXT_BYTES);
    let mut sent = 0;
    while server.metric("im_gateway_pushes_dropped_total").unwrap_or(0.0) == 0.0 {
        for _ in 0..16 {
            sent += 1;
            sender.message(send_to_user("bob", &format!("m{sent}"), &text)).await;
        }
        assert!(sent < 4000, "no push was dropped: the output of a connection has no bound");
    }
    sent
}

#[tokio::test]
async fn a_slow_reader_keeps_its_answers_and_gets_a_hint_when_it_drains() {
    let settings = Settings::for_tests().with("IM_GATEWAY__STALL_TIMEOUT_MS", "20000");
    let server = Server::start(settings);
    let mut slow = Raw::connect_narrow(server.clients()).await;
    slow.sign_in(&server.key.token("bob"), "phone").await;
    slow.sync().await;
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let sent = flood_until_pushes_are_dropped(&server, &mut ann).await;

    // Asked while its output is full; answered all the same once it reads.
    let ask = slow.send(Command::Send(send_to_user("cid", "asked", "x"))).await;
    let answer = slow.answer(ask).await;
    assert!(matches!(answer, Body::SendAck(_)), "{answer:?}");
    slow.push(|body| matches!(body, Body::SyncHint(_)).then_some(())).await;
    let known = slow.sync().await;
    assert_eq!(known.conversation(&direct("ann", "bob")).head_seq, sent);
    let entries = slow.pull_all(&direct("ann", "bob"), known.epoch, 1).await;
    assert_eq!(entries.len() as u64, sent, "the log has what the pushes lacked");
    assert!(!matches!(slow.heartbeat().await, Got::End));
}

#[tokio::test]
async fn a_reader_without_progress_is_closed_and_nobody_else_is_disturbed() {
    let settings = Settings::for_tests().with("IM_GATEWAY__STALL_TIMEOUT_MS", "1500");
    let server = Server::start(settings);
    let mut stalled = Raw::connect_narrow(server.clients()).await;
    stalled.sign_in(&server.key.token("bob"), "phone").await;
    let mut tablet = Raw::device(&server, "bob", "tablet").await;
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bystanders = Bystanders::new(&server).await;
    let before = server.resident_bytes();
    flood_until_pushes_are_dropped(&server, &mut ann).await;
    let closed = async {
        while server.metric("im_gateway_closes_total{code=\"CLOSE_CODE_SLOW_CONSUMER\"}").unwrap_or(0.0) < 1.0 {
            bystanders.are_undisturbed().await;
        }
    };
    within("the stalled reader is closed", closed).await;
    assert!(server.resident_bytes() < before + (64 << 20), "memory is bounded");
    ann.message_to_user("bob", "after").await;
    let pushed =
        |body: &Body| matches!(body, Body::Entry(e) if e.entry.as_ref().is_some_and(|e| e.client_id == "after"));
    tablet.push(|body| pushed(body).then_some(())).await;

    // What it had not read is still on its way; behind it comes the reason, if the way had room for it.
    let reason = within("the stream ends", async {
        let mut last = None;
        loop {
            match stalled.read().await {
                Got::Frame(ServerFrame { body: Some(Body::Closing(closing)), .. }) => last = Some(closing.code()),
                Got::End => break last,
                Got::Frame(_) | Got::Heartbeat => {}
            }
        }
    });
    assert!(matches!(reason.await, None | Some(CloseCode::SlowConsumer)));
}
