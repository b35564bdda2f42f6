//! Rows of the fault table that are no promise by themselves: F36 (no byte lost to a timeout) and F38 (no descriptor left).
//! F27 is in `clock_jumps` and with the sign-in rows, F28 and F29 in C2, F30 in C5.

use crate::harness::bystander::Bystanders;
use crate::harness::raw::{Got, Raw, send_to_user, within};
use crate::harness::server::{Server, Settings};
use im_proto::client::ClientFrame;
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use prost::Message as _;
use std::time::Duration;

/// Bytes dribble in around every deadline that the server has; each must be read once.
#[tokio::test]
async fn f36_no_byte_is_lost_to_a_timer_that_fires_while_bytes_arrive() {
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__HEARTBEAT_INTERVAL_MS", "20")
        .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "1000")
        .with("IM_GATEWAY__FRAME_TIMEOUT_MS", "5000");
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 1..=12_u64 {
        let command = Command::Send(send_to_user("bob", &format!("m{number}"), &"x".repeat(64)));
        let frame = ClientFrame { request_id: 1000 + number, command: Some(command), ..Default::default() };
        let bytes = ann.encode(&[frame.encode_length_delimited_to_vec(), vec![0]].concat());
        let pieces = bytes.len().div_ceil(7);
        for (index, piece) in bytes.chunks(7).enumerate() {
            ann.send_encoded(piece).await;
            // Paces the pieces over some turns of the timer wheel; nothing is waited for.
            let pause_ms = if index == pieces / 2 { 15 + number } else { 1 };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
        match ann.answer(1000 + number).await {
            Body::SendAck(ack) => assert_eq!(ack.seq, number),
            other => panic!("{other:?}"),
        }
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
