//! A device that stays connected learns by its next heartbeat that its inbox moved, even if every push was lost (C4).

use crate::kit::{On, Server, config, numbered_push, sync};
use crate::on_every_transport_and_driver;
use im_gateway::PushFault;
use im_proto::client::{kicked::Reason, server_frame::Body};
use im_proto::internal;
use std::time::Duration;

on_every_transport_and_driver!(
    a_heartbeat_is_answered_by_one_unless_the_inbox_moved,
    lost_pushes_are_hinted_by_the_next_heartbeat,
    a_fault_gives_pushes_twice_and_in_another_order,
    a_push_that_does_not_join_is_not_given,
    a_sync_answer_gives_what_it_covers,
    a_heartbeat_is_answered_though_the_logic_is_silent,
    a_break_in_the_batch_numbers_hints_every_connection,
    a_login_whose_kick_was_lost_ends_with_its_heartbeat,
    a_login_whose_kick_was_lost_ends_though_it_sends_commands_and_no_heartbeat,
);

fn a_login_whose_kick_was_lost_ends_with_its_heartbeat(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    let mut bob = server.sign_in("bob");
    let mut carol = server.sign_in("carol");
    server.logic.set(|s| s.ended.extend([("alice".into(), Reason::Replaced), ("carol".into(), Reason::Banned)]));
    alice.heartbeat();
    bob.heartbeat();
    carol.heartbeat();
    assert_eq!(alice.expect_kicked(), Reason::Replaced);
    assert_eq!(carol.expect_kicked(), Reason::Banned);
    bob.expect_heartbeat();
}

/// Whoever is never silent is never idle, and must not outlive its end by that.
fn a_login_whose_kick_was_lost_ends_though_it_sends_commands_and_no_heartbeat(on: On) {
    let mut config = config(on);
    config.session.heartbeat_interval_ms = 100;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    server.logic.set(|s| s.ended.insert("alice".into(), Reason::Banned));
    for request_id in 2..2_000 {
        alice.send(request_id, sync());
        match alice.next_body() {
            Body::Synced(_) => std::thread::sleep(Duration::from_millis(10)), // the pace of its commands
            Body::Kicked(kicked) => {
                return assert_eq!(kicked.reason(), Reason::Banned);
            }
            other => panic!("{other:?} instead of an answer or a kick"),
        }
    }
    panic!("nobody asked whether the login stands");
}

fn a_heartbeat_is_answered_by_one_unless_the_inbox_moved(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    server.push(&numbered_push(1, 0), &[("alice", Some((0, 1)))]);
    assert_eq!(alice.expect_push(), 1);
    server.logic.set(|s| s.versions.insert("alice".into(), 1));
    alice.heartbeat();
    alice.expect_heartbeat();
}

fn lost_pushes_are_hinted_by_the_next_heartbeat(on: On) {
    let mut config = config(on);
    config.faults.pushes = PushFault::LoseAll;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    server.push(&numbered_push(1, 0), &[("alice", Some((0, 1)))]);
    server.logic.set(|s| s.versions.insert("alice".into(), 1));
    alice.heartbeat();
    assert_eq!(alice.expect_hint(), 1);
}

/// What the tests of clients under troubled pushes rely on.
fn a_fault_gives_pushes_twice_and_in_another_order(on: On) {
    let mut config = config(on);
    config.faults.pushes = PushFault::Stir { n: 1, seed: 1 };
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    for number in 1..=4 {
        server.push(&numbered_push(number, 0), &[("alice", None)]);
    }
    assert_eq!([(); 6].map(|()| alice.expect_push()), [2, 2, 1, 4, 4, 3]);
}

fn a_push_that_does_not_join_is_not_given(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    server.push(&numbered_push(2, 0), &[("alice", Some((1, 2)))]);
    assert_eq!(alice.expect_push(), 2);
    server.logic.set(|s| s.versions.insert("alice".into(), 2));
    alice.heartbeat();
    assert_eq!(alice.expect_hint(), 2);
}

fn a_sync_answer_gives_what_it_covers(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    server.logic.set(|s| s.versions.insert("alice".into(), 5));
    alice.heartbeat();
    assert_eq!(alice.expect_hint(), 5);
    alice.send(2, sync());
    assert_eq!(alice.next_frame().request_id, 2);
    alice.heartbeat();
    alice.expect_heartbeat();
}

fn a_heartbeat_is_answered_though_the_logic_is_silent(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    server.logic.set(|s| s.answers_versions = false);
    alice.heartbeat();
    alice.expect_heartbeat();
}

fn a_break_in_the_batch_numbers_hints_every_connection(on: On) {
    let mut config = config(on);
    config.hint_spread_ms = 100;
    let server = Server::start(config);
    let mut clients: Vec<_> = (0..20).map(|n| server.sign_in(&format!("user{n}"))).collect();
    let batch = |number| internal::DeliveryBatch {
        gateway_boot: server.handle.boot(),
        worker_boot: 5,
        number,
        deliveries: vec![],
    };
    server.handle.deliver_batch(batch(1));
    server.handle.deliver_batch(batch(2));
    assert_eq!(server.handle.metrics().delivery_breaks, 0);
    server.handle.deliver_batch(batch(4));
    for client in &mut clients {
        assert_eq!(client.expect_hint(), 0);
    }
}
