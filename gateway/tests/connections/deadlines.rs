//! Whatever a connection waits for has an end.

use crate::kit::{On, Server, config};
use crate::on_every_transport_and_driver;
use im_proto::client::CloseCode;
use std::time::{SystemTime, UNIX_EPOCH};

on_every_transport_and_driver!(
    a_client_that_sends_nothing_is_closed,
    a_sign_in_that_comes_byte_by_byte_is_cut_off,
    a_silent_client_is_closed_as_idle,
    a_client_with_heartbeats_is_not_idle,
    a_frame_that_stops_in_the_middle_is_cut_off,
    a_login_ends_with_its_token,
);

fn a_client_that_sends_nothing_is_closed(on: On) {
    let mut config = config(on);
    config.session.first_byte_timeout_ms = 200;
    config.session.sign_in_timeout_ms = 60_000;
    let server = Server::start(config);
    server.expect_turned_away(CloseCode::SignInTimeout, 408);
}

fn a_sign_in_that_comes_byte_by_byte_is_cut_off(on: On) {
    let mut config = config(on);
    config.session.sign_in_timeout_ms = 2_000;
    let server = Server::start(config);
    let mut client = server.connect();
    client.write(&[40, 8, 1]);
    client.expect_closed(CloseCode::SignInTimeout);
}

fn a_silent_client_is_closed_as_idle(on: On) {
    let mut config = config(on);
    (config.session.heartbeat_interval_ms, config.session.idle_timeout_ms) = (100, 300);
    let server = Server::start(config);
    server.sign_in("alice").expect_closed(CloseCode::IdleTimeout);
    server.logic.wait("a sign-out", |s| s.signed_out.pop());
}

fn a_client_with_heartbeats_is_not_idle(on: On) {
    let mut config = config(on);
    (config.session.heartbeat_interval_ms, config.session.idle_timeout_ms) = (500, 3_000);
    let server = Server::start(config);
    let mut bob = server.sign_in("bob");
    let mut alice = server.sign_in("alice");
    // Alice outlives bob, who signed in before her and is silent.
    loop {
        alice.heartbeat();
        alice.expect_heartbeat();
        if server.handle.metrics().closes(CloseCode::IdleTimeout) == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    bob.expect_closed(CloseCode::IdleTimeout);
    alice.heartbeat();
    alice.expect_heartbeat();
}

fn a_frame_that_stops_in_the_middle_is_cut_off(on: On) {
    let mut config = config(on);
    config.session.frame_timeout_ms = 300;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    alice.write(&[100, 8, 2]);
    alice.expect_closed(CloseCode::ProtocolError);
}

fn a_login_ends_with_its_token(on: On) {
    let server = Server::start(config(on));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    server.logic.set(|s| s.token_expires_at_ms = Some(now_ms + 300));
    server.sign_in("alice").expect_closed(CloseCode::TokenExpired);
}
