//! What a client may not send: it is closed with the code that proto/README.md names, and nobody else notices.

use crate::kit::{On, Server, config, send_to, sync};
use crate::on_every_transport_and_driver;
use im_codec::encode_delimited;
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode};
use std::time::Instant;

on_every_transport_and_driver!(
    a_length_above_the_limit_is_refused_before_its_bytes,
    a_length_that_is_no_varint_of_32_bits_is_refused,
    the_limit_of_a_frame_is_small_before_sign_in,
    anything_but_a_sign_in_first_is_refused,
    a_second_sign_in_and_a_request_id_in_use_are_refused,
    a_frame_that_is_no_message_is_refused,
    an_unknown_command_is_answered_and_the_connection_goes_on,
    a_flood_of_heartbeats_is_closed,
    a_flood_of_commands_is_answered_busy,
    a_frame_in_single_bytes_is_read_once,
);

fn a_length_above_the_limit_is_refused_before_its_bytes(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    // 65,537
    alice.write(&[0x81, 0x80, 0x04]);
    alice.expect_closed(CloseCode::FrameTooLarge);
}

fn a_length_that_is_no_varint_of_32_bits_is_refused(on: On) {
    let server = Server::start(config(on));
    for bad in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80, 0x00]] {
        let mut client = server.connect();
        client.write(bad);
        client.expect_closed(CloseCode::ProtocolError);
    }
}

fn the_limit_of_a_frame_is_small_before_sign_in(on: On) {
    let server = Server::start(config(on));
    let mut client = server.connect();
    // 8,193
    client.write(&[0x81, 0x40]);
    client.expect_closed(CloseCode::FrameTooLarge);
}

fn anything_but_a_sign_in_first_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut client = server.connect();
    client.send(1, sync());
    client.expect_closed(CloseCode::ProtocolError);
    let mut client = server.connect();
    client.heartbeat();
    client.expect_closed(CloseCode::ProtocolError);
}

fn a_second_sign_in_and_a_request_id_in_use_are_refused(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.send_sign_in("alice");
    alice.expect_closed(CloseCode::ProtocolError);
    let mut bob = server.sign_in("bob");
    server.logic.set(|s| s.answers_reads = false);
    bob.send(2, sync());
    bob.send(2, sync());
    bob.expect_closed(CloseCode::ProtocolError);
}

fn a_frame_that_is_no_message_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    // Field 1 with a wire type that no field has.
    alice.write(&[1, 0x0f]);
    alice.expect_closed(CloseCode::ProtocolError);
}

fn an_unknown_command_is_answered_and_the_connection_goes_on(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.write(&encode_delimited(&client::ClientFrame { request_id: 9, command: None, ..Default::default() }));
    let (request_id, error) = alice.expect_error();
    assert_eq!((request_id, error.class(), error.code()), (9, ErrorClass::Final, ErrorCode::UnknownCommand));
    alice.heartbeat();
    alice.expect_heartbeat();
}

fn a_flood_of_heartbeats_is_closed(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.write(&[0; 100]);
    alice.expect_closed(CloseCode::Overloaded);
}

fn a_flood_of_commands_is_answered_busy(on: On) {
    let mut config = config(on);
    (config.session.command_rate_per_s, config.session.command_burst) = (1, 5);
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    // Another command is let through for each second that this takes.
    let begun = Instant::now();
    for number in 2..=30 {
        alice.send(number, send_to("bob", &format!("m{number}"), b"x"));
    }
    loop {
        let frame = alice.next_frame();
        match frame.body {
            Some(client::server_frame::Body::SendAck(_)) => {}
            Some(client::server_frame::Body::Error(error)) => {
                assert_eq!((error.class(), error.code()), (ErrorClass::Busy, ErrorCode::RateLimited));
                let let_through = 5 + begun.elapsed().as_secs() + 1;
                assert!((7..=2 + let_through).contains(&frame.request_id), "{}", frame.request_id);
                assert!(error.retry_after_ms > 0, "{error:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a_frame_in_single_bytes_is_read_once(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    let command = Some(send_to("bob", "m1", b"x"));
    for byte in encode_delimited(&client::ClientFrame { request_id: 2, command, ..Default::default() }).iter() {
        alice.write(&[*byte]);
    }
    alice.expect_ack(2);
    assert_eq!(server.logic.set(|s| s.kept.len()), 1);
}
