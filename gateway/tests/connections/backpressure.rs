//! A full upstream stops reading from the socket, and drops nothing (contract C6).

use crate::kit::{On, QueueMode, Server, config, send_to, sync};
use crate::on_every_transport_and_driver;
use im_codec::limits::PENDING_WRITES_MAX;

on_every_transport_and_driver!(
    the_33rd_unanswered_send_waits_in_the_socket_until_an_answer_makes_room,
    a_full_queue_loses_nothing_and_keeps_the_order,
    a_full_queue_holds_up_nobody_who_does_not_write,
    a_client_that_takes_no_answers_is_not_read_and_gets_them_all_later,
);

fn the_33rd_unanswered_send_waits_in_the_socket_until_an_answer_makes_room(on: On) {
    let mut config = config(on);
    config.cores = 1;
    let server = Server::start(config);
    server.logic.set(|s| s.queue = QueueMode::Keep);
    let mut alice = server.sign_in("alice");
    let mut bob = server.sign_in("bob");
    let count = PENDING_WRITES_MAX as u64 + 8;
    for number in 0..count {
        alice.send(number + 2, send_to("bob", &format!("m{number}"), b"x"));
    }
    let mut answered = 0;
    while answered < count {
        let unanswered = (count - answered).min(PENDING_WRITES_MAX as u64) as usize;
        server.logic.wait("records in the queue", |s| (s.kept.len() >= unanswered).then_some(()));
        // Bob is on the same core and came later: what of alice was to be read has been.
        bob.send(answered + 2, sync());
        assert_eq!(bob.next_frame().request_id, answered + 2);
        assert_eq!(server.logic.set(|s| s.kept.len()), unanswered);
        server.ack_kept(1);
        alice.expect_ack(answered + 2);
        answered += 1;
    }
}

fn a_full_queue_loses_nothing_and_keeps_the_order(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    server.logic.set(|s| s.queue = QueueMode::Full);
    for number in 2..=200 {
        alice.send(number, send_to("bob", &format!("m{number}"), b"x"));
    }
    server.wait_for_metrics("records wait", |m| m.sum(|c| c.forward_backlog) > 0);
    server.logic.set(|s| s.queue = QueueMode::Ack);
    for number in 2..=200 {
        alice.expect_ack(number);
    }
    let order = server.logic.set(|s| s.kept.iter().map(|r| r.origin.as_ref().unwrap().request_id).collect::<Vec<_>>());
    assert_eq!(order, (2..=200).collect::<Vec<_>>());
}

fn a_full_queue_holds_up_nobody_who_does_not_write(on: On) {
    let mut config = config(on);
    config.cores = 1;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    let mut bob = server.sign_in("bob");
    server.logic.set(|s| s.queue = QueueMode::Full);
    alice.send(2, send_to("bob", "m1", b"x"));
    server.wait_for_metrics("a record waits", |m| m.sum(|c| c.forward_backlog) == 1);
    bob.heartbeat();
    bob.expect_heartbeat();
    bob.send(2, sync());
    assert_eq!(bob.next_frame().request_id, 2);
}

fn a_client_that_takes_no_answers_is_not_read_and_gets_them_all_later(on: On) {
    let mut config = config(on);
    config.send_buffer_bytes = Some(16 * 1024);
    config.output_bytes_max = 64 * 1024;
    let server = Server::start(config);
    server.logic.set(|s| s.read_padding = 30_000);
    let mut alice = server.sign_in_over(server.connect_narrow(), "alice");
    for number in 2..=200 {
        alice.send(number, sync());
    }
    for number in 2..=200 {
        assert_eq!(alice.next_frame().request_id, number);
    }
    assert_eq!(server.handle.metrics().sum(|c| c.pushes_dropped), 0);
}
