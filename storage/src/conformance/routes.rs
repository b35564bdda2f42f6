//! The promises of the routes.

use super::{device, ok, user};
use crate::ports::{Dial, Gateway, GatewayBoot, Login, Registered, Routes};
use im_proto::{ConnectionId, Generation};
use std::time::Duration;

const NOW_MS: i64 = 1_700_000_000_000;
/// Of adapters for which time can be made to pass.
const LEASE: Duration = Duration::from_secs(30);
const GATEWAY: GatewayBoot = GatewayBoot(7);

async fn register(routes: &dyn Routes, name: &str, connection: u64, now_ms: i64) -> Registered {
    let connection = ConnectionId::new(0, connection);
    ok(routes.register(&user(name), &device("phone"), GATEWAY, connection, None, now_ms).await).expect("a login")
}

fn login(name: &str, connection: u64, generation: Generation) -> Login {
    Login {
        user: user(name),
        device: device("phone"),
        generation,
        gateway: GATEWAY,
        connection: ConnectionId::new(0, connection),
    }
}

async fn look_up(routes: &dyn Routes, name: &str) -> Vec<Login> {
    ok(routes.look_up(&[user(name)]).await).remove(0)
}

/// `advance` lets time pass for the adapter.
pub async fn routes(routes: &dyn Routes, advance: impl AsyncFn(Duration)) {
    routes_with_leases(routes, LEASE, advance).await;
}

/// The same with leases of `lease`, for adapters whose time is the real one. All checks but the last take less than one.
pub async fn routes_with_leases(routes: &dyn Routes, lease: Duration, advance: impl AsyncFn(Duration)) {
    renew(routes, GATEWAY, lease).await;
    a_later_login_replaces_an_earlier_one(routes).await;
    a_late_sign_in_replaces_no_later_one_of_the_same_client(routes).await;
    a_repeated_sign_in_of_one_connection_is_the_same_login(routes).await;
    an_old_login_takes_nothing_from_a_newer_one(routes).await;
    devices_and_users_are_answered_in_the_order_asked(routes).await;
    a_heartbeat_repairs_what_the_table_lost(routes).await;
    living_gateways_are_listed_with_their_endpoints(routes, lease).await;
    a_gateway_without_a_lease_has_no_logins(routes, lease, advance).await;
}

async fn renew(routes: &dyn Routes, boot: GatewayBoot, lease: Duration) {
    let gateway = Gateway { boot, endpoint: format!("http://gateway-{}", boot.0) };
    ok(routes.renew_lease(&gateway, lease.as_millis() as u32).await);
}

async fn a_heartbeat_repairs_what_the_table_lost(routes: &dyn Routes) {
    let old = register(routes, "fay", 1, NOW_MS).await;
    let new = register(routes, "fay", 2, NOW_MS).await;
    let (old, new) = (login("fay", 1, old.generation), login("fay", 2, new.generation));
    let lost = login("gus", 3, Generation(5));
    let confirmed = ok(routes.confirm(&[old.clone(), new.clone(), lost.clone()]).await);
    assert_eq!(confirmed, [false, true, true], "an old login learns that it was replaced");
    assert_eq!(look_up(routes, "fay").await, std::slice::from_ref(&new));
    assert_eq!(look_up(routes, "gus").await, std::slice::from_ref(&lost), "a lost login is put back");
    let next = register(routes, "gus", 4, 0).await;
    assert!(next.generation > lost.generation, "and counts");
    assert_eq!(next.replaced, Some(lost.clone()));
    assert_eq!(ok(routes.confirm(&[lost]).await), [false]);
    // The question was on its way while the device signed out.
    ok(routes.unregister(&new).await);
    ok(routes.confirm(&[new]).await);
    assert_eq!(look_up(routes, "fay").await, []);
    assert_eq!(ok(routes.confirm(&[]).await), [true; 0]);
}

async fn living_gateways_are_listed_with_their_endpoints(routes: &dyn Routes, lease: Duration) {
    let going = GatewayBoot(9);
    renew(routes, going, lease).await;
    ok(routes.register(&user("hal"), &device("web"), going, ConnectionId::new(0, 1), None, NOW_MS).await)
        .expect("a login");
    let listed = async || {
        let mut boots: Vec<_> = ok(routes.gateways().await).into_iter().map(|of| (of.boot.0, of.endpoint)).collect();
        boots.sort_unstable();
        boots
    };
    let of = |boot: u64| (boot, format!("http://gateway-{boot}"));
    assert_eq!(listed().await, [of(7), of(9)]);
    assert_eq!(look_up(routes, "hal").await.len(), 1);
    ok(routes.end_lease(going).await);
    ok(routes.end_lease(going).await);
    assert_eq!(listed().await, [of(7)]);
    assert_eq!(look_up(routes, "hal").await, [], "who is going holds nobody online");
}

async fn a_later_login_replaces_an_earlier_one(routes: &dyn Routes) {
    let first = register(routes, "ann", 1, NOW_MS).await;
    assert_eq!(first.replaced, None);
    assert!(first.generation.0 >= (NOW_MS as u64) << 16);
    let second = register(routes, "ann", 2, NOW_MS).await;
    assert_eq!(second.replaced, Some(login("ann", 1, first.generation)));
    assert!(second.generation > first.generation);
    assert_eq!(look_up(routes, "ann").await, [login("ann", 2, second.generation)]);
    let third = register(routes, "ann", 3, NOW_MS + 1_000).await;
    assert!(third.generation.0 >= ((NOW_MS + 1_000) as u64) << 16, "time goes before counting");
}

/// A phone that changes its network: the sign-in of the connection it left arrives behind that of the one it has.
async fn a_late_sign_in_replaces_no_later_one_of_the_same_client(routes: &dyn Routes) {
    let dialled = async |connection, run, number| {
        let (dial, connection) = (Some(Dial { run, number }), ConnectionId::new(0, connection));
        ok(routes.register(&user("jim"), &device("phone"), GATEWAY, connection, dial, NOW_MS).await)
    };
    let first = dialled(1, 70, 1).await.expect("a login");
    let later = dialled(3, 70, 3).await.expect("a login");
    assert_eq!(later.replaced, Some(login("jim", 1, first.generation)));
    let standing = login("jim", 3, later.generation);
    assert!(dialled(2, 70, 2).await.is_none(), "it replaced the later one");
    assert_eq!(look_up(routes, "jim").await, std::slice::from_ref(&standing));
    let again = dialled(3, 70, 3).await.expect("a login");
    assert_eq!((again.generation, again.replaced), (later.generation, None), "asked once more");
    // The client was started anew: its numbers are compared with nothing. One that says nothing is compared with nothing either.
    let restarted = dialled(4, 71, 1).await.expect("a login");
    assert_eq!(restarted.replaced, Some(standing));
    let silent = register(routes, "jim", 5, NOW_MS).await;
    assert_eq!(silent.replaced, Some(login("jim", 4, restarted.generation)));
    assert!(dialled(6, 71, 1).await.is_some());
    // One that has left meanwhile stays left.
    ok(routes.unregister(&login("jim", 6, look_up(routes, "jim").await[0].generation)).await);
    dialled(8, 71, 3).await.expect("a login");
    ok(routes.unregister(&look_up(routes, "jim").await[0]).await);
    assert!(dialled(7, 71, 2).await.is_none());
    assert_eq!(look_up(routes, "jim").await, []);
}

/// A gateway that gets no answer in time asks again, and another worker may do it a second time, and late.
async fn a_repeated_sign_in_of_one_connection_is_the_same_login(routes: &dyn Routes) {
    let first = register(routes, "ida", 1, NOW_MS).await;
    let again = register(routes, "ida", 1, NOW_MS + 60_000).await;
    assert_eq!((again.generation, again.replaced), (first.generation, None));
    let standing = login("ida", 1, first.generation);
    assert_eq!(ok(routes.confirm(std::slice::from_ref(&standing)).await), [true], "it was replaced by itself");
    assert_eq!(look_up(routes, "ida").await, std::slice::from_ref(&standing));
    // Another gateway counts its connections for itself.
    let elsewhere = GatewayBoot(GATEWAY.0 + 100);
    let connection = standing.connection;
    let other = ok(routes.register(&user("ida"), &device("phone"), elsewhere, connection, None, NOW_MS).await)
        .expect("a login");
    assert_eq!(other.replaced, Some(standing));
    assert!(other.generation > first.generation);
}

async fn an_old_login_takes_nothing_from_a_newer_one(routes: &dyn Routes) {
    let old = register(routes, "bob", 1, NOW_MS).await;
    let new = register(routes, "bob", 2, NOW_MS).await;
    ok(routes.unregister(&login("bob", 1, old.generation)).await);
    ok(routes.unregister(&login("bob", 2, old.generation)).await);
    ok(routes.unregister(&login("bob", 1, new.generation)).await);
    assert_eq!(look_up(routes, "bob").await, [login("bob", 2, new.generation)]);
    ok(routes.unregister(&login("bob", 2, new.generation)).await);
    ok(routes.unregister(&login("bob", 2, new.generation)).await);
    assert_eq!(look_up(routes, "bob").await, []);
    // A clock that went back: the next login is still the newest.
    let next = register(routes, "bob", 3, NOW_MS - 3_600_000).await;
    assert_eq!(next.replaced, None);
    assert!(next.generation > new.generation);
}

async fn devices_and_users_are_answered_in_the_order_asked(routes: &dyn Routes) {
    for (owner, id, connection) in [("cy", "a", 1), ("cy", "b", 2), ("dee", "a", 3)] {
        let connection = ConnectionId::new(1, connection);
        ok(routes.register(&user(owner), &device(id), GATEWAY, connection, None, NOW_MS).await).expect("a login");
    }
    let found = ok(routes.look_up(&[user("dee"), user("nobody"), user("cy")]).await);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 2]);
    assert_eq!(found[0][0].user, user("dee"));
}

async fn a_gateway_without_a_lease_has_no_logins(
    routes: &dyn Routes,
    lease: Duration,
    advance: impl AsyncFn(Duration),
) {
    let away = GatewayBoot(8);
    let connection = ConnectionId::new(0, 1);
    ok(routes.register(&user("eve"), &device("web"), away, connection, None, NOW_MS).await).expect("a login");
    assert_eq!(look_up(routes, "eve").await, [], "no lease was ever taken");
    renew(routes, away, lease).await;
    assert_eq!(look_up(routes, "eve").await.len(), 1);
    advance(lease / 2).await;
    renew(routes, away, lease).await;
    advance(lease * 3 / 4).await;
    assert_eq!(look_up(routes, "eve").await.len(), 1, "the lease was renewed");
    assert_eq!(look_up(routes, "ann").await, [], "the other one was not");
    advance(lease / 2).await;
    assert_eq!(look_up(routes, "eve").await, []);
    renew(routes, away, lease).await;
    assert_eq!(look_up(routes, "eve").await.len(), 1, "its logins are still known");
}
