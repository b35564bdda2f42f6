//! A full upstream stops reading from the socket, and drops nothing (contract C6).

use crate::kit::{On, QueueMode, Server, TCP_URING, config, send_to, sync};
use crate::on_every_transport_and_driver;
use im_codec::limits::{FRAME_BYTES_CAP, PENDING_WRITES_MAX};
use im_proto::client::{ErrorClass, ErrorCode, server_frame::Body};

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

/// Of a core, as in `forward.rs`.
const BACKLOG_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// On one transport: behind the session all are the same.
#[test]
fn large_frames_wait_up_to_a_bound_in_bytes_and_the_rest_is_told_busy() {
    let mut config = config(TCP_URING);
    config.cores = 1;
    config.session.frame_bytes_max = FRAME_BYTES_CAP;
    config.session.body_bytes_max = FRAME_BYTES_CAP as usize - 1024;
    let body = vec![0; config.session.body_bytes_max];
    let count = BACKLOG_BYTES_MAX / body.len() as u64 + 20;
    let server = Server::start(config);
    let mut clients: Vec<_> = (0..count).map(|number| server.sign_in(&format!("user{number}"))).collect();

    server.logic.set(|s| s.queue = QueueMode::Full);
    clients.iter_mut().for_each(|client| client.send(2, send_to("bob", "m1", &body)));
    server.wait_for_metrics("every send waits or is refused", |m| {
        m.sum(|c| c.forward_backlog) + m.sum(|c| c.forward_refused) == count
    });
    let metrics = server.handle.metrics();
    assert!(metrics.sum(|c| c.forward_backlog_bytes) < BACKLOG_BYTES_MAX + u64::from(FRAME_BYTES_CAP));
    let refused = metrics.sum(|c| c.forward_refused);
    assert!(refused > 0 && refused <= 20, "{refused}");

    server.logic.set(|s| s.queue = QueueMode::Ack);
    let mut told = 0;
    for client in &mut clients {
        match client.next_frame().body {
            Some(Body::SendAck(_)) => {}
            Some(Body::Error(error)) => {
                assert_eq!((error.class(), error.code()), (ErrorClass::Busy, ErrorCode::Overload));
                told += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, refused);
    server.wait_for_metrics("nothing waits", |m| m.sum(|c| c.forward_backlog_bytes) == 0);
}
