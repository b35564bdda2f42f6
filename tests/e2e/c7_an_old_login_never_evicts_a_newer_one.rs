//! C7: logins of a device carry a generation; the newer one wins, and a kick names exactly the login that ended.

use crate::harness::calls::direct;
use crate::harness::raw::{Got, Raw, sign_in};
use crate::harness::server::{Server, Settings};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, ServerFrame, SignIn, kicked};

/// Reads to the end of a replaced connection; the generation that its kick names.
pub async fn kicked_generation(raw: &mut Raw) -> u64 {
    let kicked = raw
        .push(|body| match body {
            Body::Kicked(kicked) => Some(*kicked),
            _ => None,
        })
        .await;
    assert_eq!(kicked.reason(), kicked::Reason::Replaced);
    raw.closed_with(CloseCode::ReplacedByNewer).await;
    kicked.generation
}

#[tokio::test]
async fn a_newer_login_of_a_device_ends_the_older_one_and_no_other() {
    let mut server = Server::start(Settings::for_tests());
    let token = server.key.token("ann");
    let mut tablet = Raw::device(&server, "ann", "tablet").await;
    let mut same_name = Raw::device(&server, "bob", "phone").await;
    let mut old = Raw::connect(server.clients()).await;
    let old_login = old.sign_in(&token, "phone").await;
    let mut new = Raw::connect(server.clients()).await;
    let new_login = new.sign_in(&token, "phone").await;
    assert!(new_login.generation > old_login.generation);
    assert_eq!(kicked_generation(&mut old).await, old_login.generation);
    for other in [&mut tablet, &mut same_name, &mut new] {
        other.is_alive().await;
    }

    server.kill9();
    server.restart();
    let mut after = Raw::connect(server.clients()).await;
    let after_login = after.sign_in(&token, "phone").await;
    assert!(after_login.generation > new_login.generation, "also after a restart that forgot every login");
}

/// A phone that changes its network: the sign-in on the connection that it has left may arrive last.
#[tokio::test]
async fn a_late_sign_in_of_a_client_does_not_replace_its_later_one() {
    let server = Server::start(Settings::for_tests());
    let token = server.key.token("ann");
    let dialled = |dial| match sign_in(&token, "phone") {
        Command::SignIn(sign_in) => Command::SignIn(SignIn { client_run: 7, dial, ..sign_in }),
        other => other,
    };
    let mut current = Raw::connect(server.clients()).await;
    let asked = current.send(dialled(2)).await;
    assert!(matches!(current.answer(asked).await, Body::SignedIn(_)));
    let mut late = Raw::connect(server.clients()).await;
    late.send(dialled(1)).await;
    late.closed_with(CloseCode::ReplacedByNewer).await;
    current.is_alive().await;
    let mut next = Raw::connect(server.clients()).await;
    let asked = next.send(dialled(3)).await;
    assert!(matches!(next.answer(asked).await, Body::SignedIn(_)));
    kicked_generation(&mut current).await;
}

#[tokio::test]
async fn the_end_of_an_old_connection_takes_no_route_from_the_new_one() {
    let server = Server::start(Settings::for_tests());
    let token = server.key.token("bob");
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let conversation = direct("ann", "bob");
    let mut current = Raw::device(&server, "bob", "phone").await;
    for round in 0..10 {
        let mut next = Raw::connect(server.clients()).await;
        next.sign_in(&token, "phone").await;
        kicked_generation(&mut current).await;
        drop(current);
        current = next;
        // Several messages: the end of the old connection may be noticed after the first.
        for number in 0..3 {
            let id = format!("m{round}-{number}");
            ann.message_to_user("bob", &id).await;
            let arrived = |body: &Body| {
                matches!(body, Body::Entry(pushed) if pushed.conversation_id == conversation
                    && pushed.entry.as_ref().is_some_and(|entry| entry.client_id == id))
            };
            current.push(|body| arrived(body).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn of_many_logins_at_once_only_the_newest_stays() {
    const LOGINS: usize = 16;
    let server = Server::start(Settings::for_tests());
    let token = server.key.token("ann");
    let mut connections = Vec::new();
    for _ in 0..LOGINS {
        let mut raw = Raw::connect(server.clients()).await;
        let request = raw.send(sign_in(&token, "phone")).await;
        connections.push((raw, request));
    }
    let mut logins = Vec::new();
    for (mut raw, request) in connections {
        match raw.answer(request).await {
            Body::SignedIn(login) => logins.push((login.generation, raw)),
            other => panic!("{other:?}"),
        }
    }
    logins.sort_by_key(|(generation, _)| *generation);
    let (_, mut newest) = logins.pop().unwrap();
    for (generation, mut older) in logins {
        assert_eq!(kicked_generation(&mut older).await, generation);
    }
    newest.is_alive().await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    bob.message_to_user("ann", "m1").await;
    newest.push(|body| matches!(body, Body::Entry(_)).then_some(())).await;
}

#[tokio::test]
async fn a_kicked_connection_is_told_nothing_more() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut old = Raw::device(&server, "bob", "phone").await;
    let _new = Raw::device(&server, "bob", "phone").await;
    for number in 0..20 {
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    let mut kicked = false;
    loop {
        match old.read().await {
            Got::End => break,
            Got::Frame(ServerFrame { body: Some(Body::Kicked(_)), .. }) => kicked = true,
            Got::Frame(ServerFrame { body: Some(Body::Entry(entry)), .. }) => panic!("{entry:?}"),
            Got::Frame(_) | Got::Heartbeat => {}
        }
    }
    assert!(kicked);
}
