//! Who is let in: one server a port, bounded connections, bounded rate per address.

use crate::kit::{On, Server, config, listen_like};
use crate::on_every_transport_and_driver;
use im_gateway::{Gateway, StartError};
use im_proto::client::CloseCode;

on_every_transport_and_driver!(
    a_second_gateway_on_the_port_is_told_so,
    connections_beyond_the_bound_are_told_to_come_back_later,
    an_address_that_connects_too_fast_is_refused,
);

fn a_second_gateway_on_the_port_is_told_so(on: On) {
    let server = Server::start(config(on));
    let mut config = config(on);
    listen_like(&server, &mut config);
    let second = Gateway::start(config, server.logic.clone(), server.logic.clone());
    assert!(matches!(second, Err(StartError::AddressInUse { address }) if address == server.address()));
}

fn connections_beyond_the_bound_are_told_to_come_back_later(on: On) {
    let mut config = config(on);
    config.connections_max = 3;
    let server = Server::start(config);
    let held: Vec<_> = (0..3).map(|n| server.sign_in(&format!("user{n}"))).collect();
    server.expect_turned_away(CloseCode::Overloaded, 503);
    drop(held);
    server.wait_for_metrics("the places are free", |m| m.sum(|c| c.connections) == 0);
    server.sign_in("alice");
}

fn an_address_that_connects_too_fast_is_refused(on: On) {
    let mut config = config(on);
    (config.accept_rate_per_address_per_s, config.accept_burst_per_address) = (1, 2);
    let server = Server::start(config);
    let _held = [server.sign_in("alice"), server.sign_in("bob")];
    server.expect_turned_away(CloseCode::Overloaded, 503);
}
