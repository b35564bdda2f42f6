//! Clients that come and go at the worst moments leave nothing behind: no connection, no login, no descriptor.
//!
//! One test: descriptors are counted for the whole process.
#![allow(clippy::unwrap_used)]

mod kit;

use kit::{Client, EVERY, On, Server, config, numbered_push, push_with, send_to, sync};
use std::time::Duration;

const CLIENTS: usize = 400;

#[test]
fn nothing_is_left_behind_by_clients_or_by_a_core_that_panicked() {
    for on in EVERY {
        whatever_a_client_does_everything_of_it_is_given_back(on);
        a_core_that_panicked_leaves_no_descriptor_open(on);
    }
}

fn whatever_a_client_does_everything_of_it_is_given_back(on: On) {
    let server = Server::start(config(on));
    // The first connection of a core may open descriptors that stay.
    for n in 0..8 {
        server.sign_in(&format!("warm{n}"));
    }
    gone(&server);
    let before = descriptors();
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut open: Vec<(String, Client)> = Vec::new();
    for n in 0..CLIENTS {
        come(&server, &mut random, n, &mut open);
        if random.below(3) == 0 && !open.is_empty() {
            let at = random.below(open.len() as u64) as usize;
            go(&mut random, open.swap_remove(at).1);
        }
    }
    drop(open);
    gone(&server);
    let signed_in = server.logic.set(|s| s.connections.len());
    server.logic.wait("every login is signed out", |s| (s.signed_out.len() >= signed_in).then_some(()));
    settle_at(before);
    let metrics = server.handle.metrics();
    assert_eq!(metrics.sum(|c| c.connection_panics + c.core_restarts), 0);
}

fn a_core_that_panicked_leaves_no_descriptor_open(on: On) {
    let mut config = config(on);
    config.cores = 1;
    config.faults.core_panic_needle = Some(vec![0x77; 12]);
    let server = Server::start(config);
    let mut before = None;
    for restarts in 1..=3 {
        let mut clients: Vec<_> = (0..10).map(|n| server.sign_in(&format!("user{n}"))).collect();
        server.push(&push_with(1, vec![0x77; 12]), &[("user3", None)]);
        for client in &mut clients {
            assert_eq!(client.next(), None);
        }
        server.wait_for_metrics("the core is back", |m| m.sum(|c| c.core_restarts) == restarts);
        drop(clients);
        drop(server.sign_in_again("alice"));
        gone(&server);
        settle_at(*before.get_or_insert_with(descriptors));
    }
}

/// Descriptors are closed a moment after their connection is gone.
fn settle_at(before: usize) {
    let begun = std::time::Instant::now();
    while descriptors() > before {
        assert!(begun.elapsed() < kit::PATIENCE, "{} descriptors, {before} before", descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A client that gets to some point of a connection's life.
fn come(server: &Server, random: &mut Random, n: usize, open: &mut Vec<(String, Client)>) {
    let user = format!("user{n}");
    let mut client = server.connect();
    match random.below(8) {
        0 => {}
        1 => client.write(&[40, 8]),
        // Gone before the answer comes.
        2 => client.send_sign_in(&user),
        kind => {
            client.send_sign_in(&user);
            client.expect_signed_in();
            for id in 2..2 + random.below(40) {
                match kind {
                    3 => client.send(id, sync()),
                    4 => client.write(&[1]),
                    _ => client.send(id, send_to("bob", &format!("m{id}"), b"x")),
                }
            }
            let targets: Vec<_> = open.iter().map(|(user, _)| (user.as_str(), None)).collect();
            if !targets.is_empty() {
                server.push(&numbered_push(n as u64, 2_000), &targets);
            }
            open.push((user, client));
        }
    }
}

/// Ends it: in order, or with a reset.
fn go(random: &mut Random, client: Client) {
    if random.below(2) == 0 {
        let socket = socket2::SockRef::from(&client.socket);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn gone(server: &Server) {
    server.wait_for_metrics("nobody is left", |m| m.sum(|c| c.connections + c.signed_in) == 0);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
