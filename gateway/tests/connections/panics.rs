//! A panic ends what it is in and nothing else: a connection, or a core that starts again.

use crate::kit::{On, Server, config, numbered_push, send_to};
use crate::on_every_transport_and_driver;
use im_proto::client::CloseCode;

on_every_transport_and_driver!(
    a_panicking_connection_is_closed_and_the_others_of_its_core_go_on,
    a_panicking_core_drops_its_connections_and_serves_again,
);

fn a_panicking_connection_is_closed_and_the_others_of_its_core_go_on(on: On) {
    let mut config = config(on);
    config.cores = 1;
    config.faults.connection_panic_needle = Some(b"panic-please".to_vec());
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    let mut bob = server.sign_in("bob");
    // The fault looks at the bytes on the wire.
    alice.send_unmasked();
    alice.send(2, send_to("bob", "m1", b"panic-please"));
    alice.expect_closed(CloseCode::Internal);
    bob.send(2, send_to("alice", "m1", b"calm"));
    bob.expect_ack(2);
    assert_eq!(server.logic.wait("a sign-out", |s| s.signed_out.pop()).1.0, 1);
    let metrics = server.handle.metrics();
    assert_eq!(metrics.sum(|c| c.connection_panics), 1);
    assert_eq!(metrics.sum(|c| c.core_restarts), 0);
}

fn a_panicking_core_drops_its_connections_and_serves_again(on: On) {
    let mut config = config(on);
    config.cores = 1;
    config.faults.core_panic_needle = Some(vec![0x77; 12]);
    let server = Server::start(config);
    for round in 1..=3 {
        let mut clients: Vec<_> = (0..10).map(|n| server.sign_in(&format!("user{n}"))).collect();
        let before = server.connection("user3");
        server.push(&crate::kit::push_with(1, vec![0x77; 12]), &[("user3", None)]);
        for client in &mut clients {
            assert_eq!(client.next(), None);
        }
        server.wait_for_metrics("the core is back", |m| {
            m.sum(|c| c.core_restarts) == round && m.sum(|c| c.connections + c.signed_in) == 0
        });
        let signed_out = server.logic.wait("every login is signed out", |s| {
            (s.signed_out.len() == 10).then(|| std::mem::take(&mut s.signed_out))
        });
        assert!(signed_out.iter().any(|(id, _)| *id == before));
        // The same gateway, with ids never used before.
        let mut alice = server.sign_in_again("alice");
        server.push(&numbered_push(1, 0), &[("alice", None)]);
        assert_eq!(alice.expect_push(), 1);
        assert!(server.connection("alice").0 > before.0);
        drop(alice);
        server.logic.wait("alice is signed out", |s| s.signed_out.pop());
    }
}
