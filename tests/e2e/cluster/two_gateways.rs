//! F24, F25: the same device at two gateways, and routes that lead to a gateway that is gone.

use crate::c7_an_old_login_never_evicts_a_newer_one::kicked_generation;
use crate::harness::calls::direct;
use crate::harness::endpoint::Endpoint;
use crate::harness::raw::{Raw, sign_in};
use crate::harness::server::{Server, Settings};
use im_proto::client::server_frame::Body;
use tokio::task::block_in_place;

const ROUNDS: usize = 6;
/// As many as meet every core of a gateway.
const STRANGERS: usize = 8;

fn doors(server: &mut Server) -> [Endpoint; 2] {
    [0, 1].map(|gateway| server.door_of(gateway))
}

/// A device that signs in anew, and its login's generation.
async fn login(server: &Server, door: Endpoint, user: &str, device: &str) -> (Raw, u64) {
    let mut raw = Raw::connect(door).await;
    let generation = raw.sign_in(&server.key.token(user), device).await.generation;
    (raw, generation)
}

/// The next message that is pushed: its conversation and its id.
async fn message(raw: &mut Raw) -> (String, String) {
    let entry = |body: &Body| match body {
        Body::Entry(pushed) => Some((pushed.conversation_id.clone(), pushed.entry.clone().unwrap().client_id)),
        _ => None,
    };
    raw.push(entry).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_signs_in_at_another_gateway_replaces_exactly_its_older_login() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let doors = doors(&mut server);
    let conversation = direct("ann", "bob");
    let mut ann = Raw::device_over(&server, doors[0], "ann", "phone").await;
    let mut tablets = Vec::new();
    for door in doors {
        tablets.push(Raw::device_over(&server, door, "bob", if door == doors[0] { "tablet" } else { "desk" }).await);
    }
    let mut same_name = Raw::device_over(&server, doors[0], "cid", "phone").await;
    let (mut current, mut generation) = login(&server, doors[1], "bob", "phone").await;
    for round in 0..ROUNDS {
        let (next, newer) = login(&server, doors[round % 2], "bob", "phone").await;
        assert!(newer > generation, "{newer} behind {generation}");
        assert_eq!(kicked_generation(&mut current).await, generation);
        (current, generation) = (next, newer);
        let id = format!("m{round}");
        ann.message_to_user("bob", &id).await;
        for device in tablets.iter_mut().chain([&mut current]) {
            assert_eq!(message(device).await, (conversation.clone(), id.clone()));
        }
    }
    for other in tablets.iter_mut().chain([&mut ann, &mut same_name, &mut current]) {
        other.is_alive().await;
        assert!(other.pushes.iter().all(|push| !matches!(push, Body::Kicked(_))), "{:?}", other.pushes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_logins_at_two_gateways_at_once_the_newer_one_stays() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let doors = doors(&mut server);
    let token = server.key.token("bob");
    let mut ann = Raw::device_over(&server, doors[0], "ann", "phone").await;
    let mut current: Option<(Raw, u64)> = None;
    for round in 0..ROUNDS {
        let mut logins = Vec::new();
        for door in doors {
            let mut raw = Raw::connect(door).await;
            let request = raw.send(sign_in(&token, "phone")).await;
            logins.push((raw, request));
        }
        let mut rivals: Vec<(Raw, u64)> = current.take().into_iter().collect();
        for (mut raw, request) in logins {
            let Body::SignedIn(login) = raw.answer(request).await else { panic!("a login was refused") };
            rivals.push((raw, login.generation));
        }
        rivals.sort_by_key(|(_, generation)| *generation);
        let (mut newest, newest_generation) = rivals.pop().unwrap();
        for (mut older, generation) in rivals {
            assert!(generation < newest_generation, "two logins of one generation");
            assert_eq!(kicked_generation(&mut older).await, generation);
        }
        let id = format!("m{round}");
        ann.message_to_user("bob", &id).await;
        assert_eq!(message(&mut newest).await.1, id);
        current = Some((newest, newest_generation));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_a_device_of_a_gateway_that_died_reaches_nobody_else_and_is_not_lost() {
    // Who waits for its message says nothing meanwhile.
    let settings = Settings::for_tests().with("IM_GATEWAY__IDLE_TIMEOUT_MS", "300000");
    let mut server = Server::start_cluster(settings);
    let doors = doors(&mut server);
    let mut ann = Raw::device_over(&server, doors[1], "ann", "phone").await;
    let names = |of: &str, round: usize| (0..STRANGERS).map(|n| format!("{of}-{round}-{n}")).collect::<Vec<_>>();
    for round in 0..2 {
        let (gone, strangers) = (names("gone", round), names("stranger", round));
        let mut lost = Vec::new();
        for user in &gone {
            lost.push(Raw::device_over(&server, doors[0], user, "phone").await);
        }
        block_in_place(|| {
            server.gateway(0).kill9();
            server.gateway(0).restart();
        });
        drop(lost);
        // The routes still name the run that died; the new one gives out its connections from the first again.
        let mut here = Vec::new();
        for user in &strangers {
            here.push(Raw::device_over(&server, doors[0], user, "phone").await);
        }
        for user in gone.iter().chain(&strangers) {
            ann.message_to_user(user, "m").await;
        }
        for (raw, user) in here.iter_mut().zip(&strangers) {
            assert_eq!(message(raw).await.0, direct("ann", user));
        }
        for user in &gone {
            let mut again = Raw::device_over(&server, doors[0], user, "phone").await;
            assert_eq!(again.sync().await.conversation(&direct("ann", user)).head_seq, 1);
        }
        for raw in &mut here {
            raw.is_alive().await;
            assert!(raw.pushes.iter().all(|push| !matches!(push, Body::Entry(_))), "another's: {:?}", raw.pushes);
        }
    }
}
