//! A client that reads too slowly loses pushes, never answers; it is hinted when it drains, and closed when it takes
//! nothing at all (contract C6).

use crate::kit::{On, Server, config, numbered_push};
use crate::on_every_transport_and_driver;
use im_gateway::GatewayConfig;
use im_proto::client::{CloseCode, server_frame::Body};

on_every_transport_and_driver!(
    pushes_beyond_the_bound_are_left_out_and_one_hint_follows_the_rest,
    a_client_that_takes_nothing_is_closed_and_its_login_signed_out,
    a_dropped_push_is_not_given,
);

fn narrow(on: On) -> GatewayConfig {
    let mut config = config(on);
    config.send_buffer_bytes = Some(8 * 1024);
    config.output_bytes_max = 32 * 1024;
    config
}

/// Pushes until the client has lost some. Answers how many were pushed.
fn push_until_some_are_lost(server: &Server) -> u64 {
    let mut pushed = 0;
    while server.handle.metrics().sum(|c| c.pushes_dropped) < 10 {
        for _ in 0..50 {
            pushed += 1;
            server.push(&numbered_push(pushed, 1000), &[("alice", Some((pushed - 1, pushed)))]);
        }
        server.wait_for_metrics("all pushes have arrived", |m| m.sum(|c| c.pushes) == pushed);
    }
    pushed
}

fn pushes_beyond_the_bound_are_left_out_and_one_hint_follows_the_rest(on: On) {
    let server = Server::start(narrow(on));
    let mut alice = server.sign_in_over(server.connect_narrow(), "alice");
    let pushed = push_until_some_are_lost(&server);
    let mut last = 0;
    loop {
        match alice.next_body() {
            Body::Entry(entry) => {
                let number = entry.entry.unwrap().seq;
                assert_eq!(number, last + 1, "a push before the lost ones is missing");
                last = number;
            }
            Body::SyncHint(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(last < pushed);
    server.push(&numbered_push(7777, 10), &[("alice", None)]);
    assert_eq!(alice.expect_push(), 7777);
}

fn a_client_that_takes_nothing_is_closed_and_its_login_signed_out(on: On) {
    let mut config = narrow(on);
    config.stall_timeout_ms = 2_000;
    let server = Server::start(config);
    let _alice = server.sign_in_over(server.connect_narrow(), "alice");
    push_until_some_are_lost(&server);
    server.logic.wait("a sign-out", |s| s.signed_out.pop());
    server.wait_for_metrics("the connection is gone", |m| m.sum(|c| c.connections) == 0);
    assert_eq!(server.handle.metrics().closes(CloseCode::SlowConsumer), 1);
}

fn a_dropped_push_is_not_given(on: On) {
    let server = Server::start(narrow(on));
    let mut alice = server.sign_in_over(server.connect_narrow(), "alice");
    let pushed = push_until_some_are_lost(&server);
    while !matches!(alice.next_body(), Body::SyncHint(_)) {}
    server.logic.set(|s| s.versions.insert("alice".into(), pushed));
    alice.heartbeat();
    assert_eq!(alice.expect_hint(), pushed);
}
