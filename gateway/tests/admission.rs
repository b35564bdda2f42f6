//! Who is let in: one server a port, bounded connections, bounded rate per address.

#![allow(clippy::unwrap_used)]

mod kit;

use im_gateway::{Driver, Gateway, StartError};
use im_proto::client::CloseCode;
use kit::{Server, config};

on_both_drivers!(
    a_second_gateway_on_the_port_is_told_so,
    connections_beyond_the_bound_are_told_to_come_back_later,
    an_address_that_connects_too_fast_is_refused,
);

fn a_second_gateway_on_the_port_is_told_so(driver: Driver) {
    let server = Server::start(config(driver));
    let mut config = config(driver);
    config.tcp = server.handle.tcp_address();
    let second = Gateway::start(config, server.logic.clone(), server.logic.clone());
    assert!(matches!(second, Err(StartError::AddressInUse { address }) if address == server.handle.tcp_address()));
}

fn connections_beyond_the_bound_are_told_to_come_back_later(driver: Driver) {
    let mut config = config(driver);
    config.connections_max = 3;
    let server = Server::start(config);
    let held: Vec<_> = (0..3).map(|n| server.sign_in(&format!("user{n}"))).collect();
    let closing = server.connect().expect_closed(CloseCode::Overloaded);
    assert!(closing.reconnect_after_ms > 0);
    drop(held);
    server.wait_for_metrics("the places are free", |m| m.sum(|c| c.connections) == 0);
    server.sign_in("alice");
}

fn an_address_that_connects_too_fast_is_refused(driver: Driver) {
    let mut config = config(driver);
    (config.accept_rate_per_address_per_s, config.accept_burst_per_address) = (1, 2);
    let server = Server::start(config);
    let _held = [server.sign_in("alice"), server.sign_in("bob")];
    server.connect().expect_closed(CloseCode::Overloaded);
}
