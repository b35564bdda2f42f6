//! Sign-ins: tokens, devices, and the newer login that wins.

use crate::harness::*;
use im_proto::client::{self, CloseCode, kicked::Reason};
use im_proto::{ConnectionId, DeviceId, Generation};
use im_storage::ports::Login;

fn sign_in(token: String, device: &str) -> client::SignIn {
    client::SignIn {
        protocol_version: 1,
        token,
        device_id: device.into(),
        platform: "test".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_newer_login_of_a_device_kicks_exactly_the_older_one() {
    let world = World::new().await;
    let (first, second) = (ConnectionId::new(0, 101), ConnectionId::new(1, 102));
    let login = async |connection, device| {
        world.requests.sign_in(GATEWAY, connection, sign_in(world.token("a", 60_000), device)).await.unwrap()
    };
    let old = login(first, "phone").await;
    login(ConnectionId::new(0, 103), "tablet").await;
    assert!(world.kicks().is_empty(), "another device is not kicked");
    let new = login(second, "phone").await;
    assert!(new.generation > old.generation);
    let kicks = world.kicks();
    assert_eq!(kicks.len(), 1);
    assert_eq!((kicks[0].connection_id, kicks[0].generation), (first.0, old.generation.0));
    assert_eq!(kicks[0].reason, Reason::Replaced as u32);
    // The end of the old connection does not take the new route.
    world.requests.signed_out(GATEWAY, first, old.user.clone(), old.device, old.generation).await.unwrap();
    let logins = world.ports.routes.look_up(std::slice::from_ref(&old.user)).await.unwrap().remove(0);
    assert!(logins.iter().any(|login| login.connection == second));
    let devices = world.ports.directory.devices(&old.user).await.unwrap();
    assert_eq!(devices.len(), 2);
}

#[tokio::test]
async fn a_token_that_the_leeway_lets_in_is_not_over_at_once() {
    let world = World::new().await;
    let connection = ConnectionId::new(0, 1);
    let now_ms = now_ms();
    let just_over =
        world.requests.sign_in(GATEWAY, connection, sign_in(world.token("a", -30_000), "phone")).await.unwrap();
    assert!(just_over.token_expires_at_ms.is_some_and(|at_ms| at_ms > now_ms), "{:?}", just_over.token_expires_at_ms);
    let good = world.requests.sign_in(GATEWAY, connection, sign_in(world.token("a", 30_000), "phone")).await.unwrap();
    assert!(good.token_expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms + 31_000), "the leeway is no part of it");
}

#[tokio::test]
async fn a_heartbeat_puts_a_lost_route_back_and_tells_a_replaced_login() {
    let world = World::new().await;
    let a = world.phone("a", "phone").await;
    let login = |phone: &Phone, generation| Login {
        user: phone.user.clone(),
        device: phone.device.clone(),
        generation: Generation(generation),
        gateway: GATEWAY,
        connection: phone.connection,
    };
    let newest = world.ports.routes.look_up(std::slice::from_ref(&a.user)).await.unwrap().remove(0).remove(0);
    acked(&world.ask(&a, to_user("b", "m")).await);
    let lost = login(&Phone { user: user("b"), ..a.clone() }, 5);
    let versions = world.ports.inbox.versions(&[user("a"), user("b")]).await.unwrap();
    let answered = world.requests.heartbeats(&[newest, login(&a, 1), lost.clone()]).await.unwrap();
    assert_eq!(answered, [Ok(versions[0]), Err(Reason::Replaced), Ok(versions[1])]);
    assert_eq!(world.ports.routes.look_up(&[user("b")]).await.unwrap(), [[lost]]);
}

#[tokio::test]
async fn a_refused_sign_in_names_its_close_code_and_registers_nothing() {
    let world = World::new().await;
    let good = world.token("a", 60_000);
    let bound = {
        let (user, device) = (user("a"), DeviceId::parse("phone").unwrap());
        let new = im_logic::token::NewToken {
            user: &user,
            device: Some(&device),
            issuer: None,
            audience: None,
            expires_at_ms: now_ms() + 60_000,
        };
        im_logic::token::issue("default", &SECRET, &new).unwrap()
    };
    let mut old_version = sign_in(good.clone(), "phone");
    old_version.protocol_version = 2;
    let cases = [
        (old_version, CloseCode::UnsupportedVersion),
        (sign_in(world.token("a", -120_000), "phone"), CloseCode::TokenExpired),
        (sign_in(String::new(), "phone"), CloseCode::BadToken),
        (sign_in("x".repeat(5_000), "phone"), CloseCode::BadToken),
        (sign_in(good.clone(), "no device"), CloseCode::ProtocolError),
        (sign_in(bound.clone(), "tablet"), CloseCode::BadToken),
    ];
    for (sign_in, code) in cases {
        let refused = world.requests.sign_in(GATEWAY, ConnectionId::new(0, 1), sign_in).await.unwrap_err();
        assert_eq!(refused.code, code, "{}", refused.detail);
    }
    assert!(world.ports.routes.look_up(&[user("a")]).await.unwrap()[0].is_empty());
    assert!(world.requests.sign_in(GATEWAY, ConnectionId::new(0, 2), sign_in(bound, "phone")).await.is_ok());
}
