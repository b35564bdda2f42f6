//! A gateway that drains tells every client when to come back, takes no new ones, and ends.

use crate::kit::{On, QueueMode, Server, config, listen_like, send_to};
use crate::on_every_transport_and_driver;
use im_proto::client::CloseCode;
use std::net::TcpStream;

on_every_transport_and_driver!(
    every_client_is_told_to_come_back_and_no_new_one_is_taken,
    an_answer_that_waits_is_written_before_the_end,
    a_gateway_that_was_shut_down_frees_its_port,
);

fn every_client_is_told_to_come_back_and_no_new_one_is_taken(on: On) {
    let server = Server::start(config(on));
    let mut clients: Vec<_> = (0..30).map(|n| server.sign_in(&format!("user{n}"))).collect();
    server.handle.drain(300);
    for client in &mut clients {
        assert!(client.expect_closed(CloseCode::GoingAway).reconnect_after_ms > 0);
    }
    server.wait_for_metrics("nobody is left", |_| server.handle.connections() == 0);
    server.logic.wait("every login is signed out", |s| (s.signed_out.len() == 30).then_some(()));
    if let Ok(socket) = TcpStream::connect(server.address()) {
        assert_eq!(crate::kit::read_to_end(socket), "");
    }
}

fn an_answer_that_waits_is_written_before_the_end(on: On) {
    let server = Server::start(config(on));
    server.logic.set(|s| s.queue = QueueMode::Keep);
    let mut alice = server.sign_in("alice");
    alice.send(2, send_to("bob", "m1", b"x"));
    server.logic.wait("a record", |s| (s.kept.len() == 1).then_some(()));
    server.ack_kept(1);
    server.handle.drain(0);
    alice.expect_ack(2);
    alice.expect_closed(CloseCode::GoingAway);
}

fn a_gateway_that_was_shut_down_frees_its_port(on: On) {
    let mut config = config(on);
    let server = Server::start(config.clone());
    let mut alice = server.sign_in("alice");
    listen_like(&server, &mut config);
    server.handle.shutdown();
    server.handle.join();
    assert_eq!(alice.next(), None);
    let again = Server::start(config);
    again.sign_in("alice");
}
