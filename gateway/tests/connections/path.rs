//! The path of a message through a real gateway: sign-in, commands, answers, pushes, kicks.

use crate::kit::{On, Server, config, numbered_push, send_to, sync};
use crate::on_every_transport_and_driver;
use im_codec::Incoming;
use im_proto::client::{CloseCode, server_frame::Body};
use im_proto::{LogId, UserId};

on_every_transport_and_driver!(
    a_send_reaches_the_queue_keyed_by_its_log_and_its_ack_comes_back,
    a_push_reaches_every_connection_it_names,
    pipelined_sends_reach_the_queue_in_their_order,
    a_kick_ends_exactly_the_login_it_names,
    a_refused_token_closes_with_its_code,
    a_login_is_signed_out_when_its_connection_ends,
    a_login_that_stands_after_its_client_left_is_taken_back,
    a_read_is_answered,
);

fn a_send_reaches_the_queue_keyed_by_its_log_and_its_ack_comes_back(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.send(2, send_to("bob", "m1", b"hello"));
    alice.expect_ack(2);
    let record = server.logic.wait("a record", |s| s.kept.pop());
    let [a, b] = ["alice", "bob"].map(|u| UserId::parse(u).unwrap());
    assert_eq!(record.log_id, LogId::direct(&a, &b).as_str());
    let origin = record.origin.unwrap();
    assert_eq!((origin.user_id.as_str(), origin.device_id.as_str(), origin.request_id), ("alice", "phone", 2));
    assert_eq!(origin.gateway_boot, server.handle.boot());
    assert_eq!(origin.connection_id, server.connection("alice").0);
}

fn a_push_reaches_every_connection_it_names(on: On) {
    let server = Server::start(config(on));
    let users: Vec<String> = (0..50).map(|n| format!("user{n}")).collect();
    let mut clients: Vec<_> = users.iter().map(|user| server.sign_in(user)).collect();
    let targets: Vec<_> = users.iter().map(|user| (user.as_str(), None)).collect();
    for number in 1..=20 {
        server.push(&numbered_push(number, 10), &targets);
    }
    for client in &mut clients {
        for number in 1..=20 {
            assert_eq!(client.expect_push(), number);
        }
    }
}

fn pipelined_sends_reach_the_queue_in_their_order(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    for number in 2..=250 {
        alice.send(number, send_to("bob", &format!("m{number}"), b"x"));
    }
    for number in 2..=250 {
        alice.expect_ack(number);
    }
    let order = server.logic.set(|s| s.kept.iter().map(|r| r.origin.as_ref().unwrap().request_id).collect::<Vec<_>>());
    assert_eq!(order, (2..=250).collect::<Vec<_>>());
}

fn a_kick_ends_exactly_the_login_it_names(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    let connection = server.connection("alice");
    server.kick(connection, 99);
    server.kick(connection, 1);
    match alice.next_body() {
        Body::Kicked(kicked) => assert_eq!(kicked.generation, 1),
        other => panic!("{other:?}"),
    }
    alice.expect_closed(CloseCode::ReplacedByNewer);
}

fn a_refused_token_closes_with_its_code(on: On) {
    let server = Server::start(config(on));
    let mut nobody = server.connect();
    nobody.send_sign_in("nobody");
    nobody.expect_closed(CloseCode::BadToken);
    assert_eq!(server.handle.metrics().closes(CloseCode::BadToken), 1);
}

fn a_login_is_signed_out_when_its_connection_ends(on: On) {
    let server = Server::start(config(on));
    let alice = server.sign_in("alice");
    let connection = server.connection("alice");
    drop(alice);
    let signed_out = server.logic.wait("a sign-out", |s| s.signed_out.pop());
    assert_eq!((signed_out.0, signed_out.1.0), (connection, 1));
    server.wait_for_metrics("no connection is left", |m| m.sum(|c| c.connections + c.signed_in) == 0);
}

fn a_login_that_stands_after_its_client_left_is_taken_back(on: On) {
    let mut config = config(on);
    config.session.sign_in_timeout_ms = 2_000;
    let server = Server::start(config);
    server.logic.set(|s| s.answers_sign_ins = false);
    let mut alice = server.connect();
    alice.send_sign_in("alice");
    alice.expect_closed(CloseCode::SignInTimeout);
    let (connection, _, lane) = server.logic.wait("a sign-in", |s| s.sign_ins.pop());
    server.logic.answer_sign_in(connection, "alice", &lane);
    assert_eq!(server.logic.wait("a sign-out", |s| s.signed_out.pop()).0, connection);
}

fn a_read_is_answered(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.send(2, sync());
    let frame = alice.next_frame();
    assert_eq!(frame.request_id, 2);
    assert!(matches!(frame.body, Some(Body::Synced(_))));
    alice.heartbeat();
    assert_eq!(alice.next(), Some(Incoming::Heartbeat));
}
