//! Banned users: refused, kicked, and ended by their heartbeats where a kick was lost.

use crate::harness::*;
use async_trait::async_trait;
use im_logic::accounts::{self, AccountsHandle};
use im_logic::{Logic, Ports};
use im_proto::client::{self, CloseCode, kicked::Reason};
use im_proto::{ConnectionId, DeviceId, Generation, InboxVersion, UserId};
use im_storage::ports::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

fn sign_in(world: &World, name: &str, device: &str) -> client::SignIn {
    client::SignIn {
        protocol_version: 1,
        token: world.token(name, 60_000),
        device_id: device.into(),
        platform: "test".into(),
        ..Default::default()
    }
}

async fn ban(world: &World, name: &str) {
    accounts::ban(&*world.relations, &user(name), now_ms()).await.unwrap();
}

fn banned_kicks(world: &World) -> Vec<u64> {
    let kicks = world.kicks().into_iter().filter(|kick| kick.reason == Reason::Banned as u32);
    kicks.map(|kick| kick.connection_id).collect()
}

/// Nothing is written meanwhile: the store has a thread of its own, for which time does not pass faster.
async fn minutes_pass() {
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(120)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_ban_kicks_every_login_of_its_user_and_no_other() {
    let world = World::new().await;
    let (phone, tablet) = (world.phone("a", "phone").await, world.phone("a", "tablet").await);
    world.phone("b", "phone").await;
    ban(&world, "a").await;
    world.kicked(&[&phone, &tablet]).await;
    let mut wanted = vec![phone.connection.0, tablet.connection.0];
    // A kick is repeated while its login stands, so each may be there more than once.
    let mut kicked = banned_kicks(&world);
    for list in [&mut wanted, &mut kicked] {
        list.sort_unstable();
        list.dedup();
    }
    assert_eq!(kicked, wanted);
}

#[tokio::test]
async fn a_lost_kick_is_repeated_a_few_times() {
    let world = World::new().await;
    let phone = world.phone("a", "phone").await;
    ban(&world, "a").await;
    let times = |world: &World| banned_kicks(world).len();
    world.kicked(&[&phone]).await;
    let first = times(&world);
    // Nobody ends the connection: the kicks get lost.
    minutes_pass().await;
    assert!(times(&world) > first && times(&world) < 10, "{} kicks", times(&world));
}

#[tokio::test]
async fn bans_that_follow_at_once_take_none_of_the_repeated_kicks_of_the_first() {
    let world = World::new().await;
    let phone = world.phone("a", "phone").await;
    for (before, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        ban(&world, name).await;
        world.knows_banned(before as u64 + 1).await;
    }
    world.kicked(&[&phone]).await;
    let at_once = banned_kicks(&world).len();
    minutes_pass().await;
    assert!(banned_kicks(&world).len() > at_once, "{at_once} kicks at once, and none later");
}

#[tokio::test]
async fn what_a_newer_program_keeps_of_an_account_outlives_a_ban_and_its_end() {
    let world = World::new().await;
    let key = || RelationKey { kind: RelationKind::Account, user: user("a") };
    let newer = bytes::Bytes::from_static(&[0x18, 1]);
    world.relations.put(Relation { key: key(), value: Some(newer.clone()) }).await.unwrap();
    let kept = async || {
        let mut feed = world.relations.follow().await.unwrap();
        match feed.next().await {
            Followed::Kept(relation) => relation.value,
            Followed::CaughtUp => None,
        }
    };
    for _ in 0..2 {
        ban(&world, "a").await;
        world.knows_banned(1).await;
        assert!(kept().await.unwrap().starts_with(&newer));
        assert!(accounts::unban(&*world.relations, &user("a")).await.unwrap());
        assert_eq!(kept().await, Some(newer.clone()));
    }
    ban(&world, "b").await;
    accounts::unban(&*world.relations, &user("b")).await.unwrap();
    world.relations.put(Relation { key: key(), value: None }).await.unwrap();
    assert_eq!(kept().await, None, "nothing is kept of whom nothing is to be kept");
}

#[tokio::test]
async fn a_heartbeat_ends_a_banned_login_whose_kick_was_lost() {
    let world = World::new().await;
    let login = |name: &str| Login {
        user: user(name),
        device: DeviceId::parse("phone").unwrap(),
        generation: Generation(5),
        gateway: GATEWAY,
        connection: ConnectionId::new(0, 900),
    };
    ban(&world, "a").await;
    world.knows_banned(1).await;
    let answered = world.requests.heartbeats(&[login("b"), login("a")]).await.unwrap();
    assert_eq!(answered, [Ok(InboxVersion(0)), Err(Reason::Banned)]);
    accounts::unban(&*world.relations, &user("a")).await.unwrap();
    world.knows_banned(0).await;
    assert_eq!(world.requests.heartbeats(&[login("a")]).await.unwrap(), [Ok(InboxVersion(0))]);
}

#[tokio::test]
async fn a_banned_user_is_refused_by_a_valid_token_only_and_is_let_in_when_the_ban_ends() {
    let world = World::new().await;
    ban(&world, "a").await;
    world.knows_banned(1).await;
    let connection = ConnectionId::new(0, 1);
    let refused = world.requests.sign_in(GATEWAY, connection, sign_in(&world, "a", "phone")).await.unwrap_err();
    assert_eq!((refused.code, refused.reconnect_after_ms), (CloseCode::UserBanned, 0));
    assert!(world.ports.routes.look_up(&[user("a")]).await.unwrap()[0].is_empty(), "nothing is registered");
    // Whoever has no token learns nothing of the account.
    let forged = client::SignIn { token: world.token("a", -120_000), ..sign_in(&world, "a", "phone") };
    let refused = world.requests.sign_in(GATEWAY, connection, forged).await.unwrap_err();
    assert_eq!(refused.code, CloseCode::TokenExpired);
    assert!(world.requests.sign_in(GATEWAY, connection, sign_in(&world, "b", "phone")).await.is_ok());
    accounts::unban(&*world.relations, &user("a")).await.unwrap();
    world.knows_banned(0).await;
    assert!(world.requests.sign_in(GATEWAY, connection, sign_in(&world, "a", "phone")).await.is_ok());
}

/// The look for its logins fails, and the heartbeat gets no answer.
#[tokio::test]
async fn a_heartbeat_kicks_a_banned_login_though_the_routes_are_away() {
    let world = World::new().await;
    let phone = world.phone("a", "phone").await;
    let logins = world.ports.routes.look_up(&[user("a")]).await.unwrap().remove(0);
    let routes = Arc::new(OddRoutes { is_away: true, ..OddRoutes::over(world.ports.routes.clone()) });
    let logic = Logic::new(Ports { routes, ..world.ports.clone() }, generous());
    // Kept where the world's own logic, which has its routes, does not follow.
    let elsewhere = World::new().await;
    ban(&elsewhere, "a").await;
    let mut accounts = logic.follow_accounts(&*elsewhere.relations).await.unwrap();
    accounts.ready().await;
    assert!(logic.requests(keys()).heartbeats(&logins).await.is_err());
    world.kicked(&[&phone]).await;
}

/// Relations whose feed stands still at its beginning until it is let go.
struct Held {
    inner: Arc<dyn Relations>,
    go: Arc<Notify>,
}

struct HeldFeed {
    inner: Box<dyn RelationFeed>,
    go: Option<Arc<Notify>>,
}

#[async_trait]
impl Relations for Held {
    async fn put(&self, relation: Relation) -> Result<(), StoreError> {
        self.inner.put(relation).await
    }

    async fn follow(&self) -> Result<Box<dyn RelationFeed>, StoreError> {
        Ok(Box::new(HeldFeed { inner: self.inner.follow().await?, go: Some(self.go.clone()) }))
    }
}

#[async_trait]
impl RelationFeed for HeldFeed {
    async fn next(&mut self) -> Followed {
        if let Some(go) = &self.go {
            go.notified().await;
            self.go = None;
        }
        self.inner.next().await
    }
}

#[tokio::test]
async fn nobody_is_signed_in_before_it_is_known_who_is_banned() {
    let world = World::new().await;
    ban(&world, "a").await;
    let go = Arc::new(Notify::new());
    let logic = Logic::new(world.ports.clone(), generous());
    let held = Held { inner: world.relations.clone(), go: go.clone() };
    let mut accounts: AccountsHandle = logic.follow_accounts(&held).await.unwrap();
    let requests = logic.requests(keys());
    for name in ["a", "b"] {
        let refused =
            requests.sign_in(GATEWAY, ConnectionId::new(0, 1), sign_in(&world, name, "phone")).await.unwrap_err();
        assert_eq!(refused.code, CloseCode::Internal, "a code to come back for");
        assert!(refused.reconnect_after_ms > 0);
    }
    go.notify_one();
    accounts.ready().await;
    let refused = requests.sign_in(GATEWAY, ConnectionId::new(0, 1), sign_in(&world, "a", "phone")).await.unwrap_err();
    assert_eq!(refused.code, CloseCode::UserBanned);
    assert!(requests.sign_in(GATEWAY, ConnectionId::new(0, 2), sign_in(&world, "b", "phone")).await.is_ok());
}

/// Relations whose feed has a bug.
struct Broken;

#[async_trait]
impl Relations for Broken {
    async fn put(&self, _: Relation) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("broken".to_owned()))
    }

    async fn follow(&self) -> Result<Box<dyn RelationFeed>, StoreError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl RelationFeed for Broken {
    async fn next(&mut self) -> Followed {
        panic!("a bug of the feed, for a test")
    }
}

/// A process that knows of no later ban must not go on; it looks at this.
#[tokio::test]
async fn accounts_that_nobody_follows_any_more_are_seen_to_have_ended() {
    let world = World::new().await;
    let logic = Logic::new(world.ports.clone(), generous());
    let followed = logic.follow_accounts(&*world.relations).await.unwrap();
    let broken = logic.follow_accounts(&Broken).await.unwrap();
    let ended = async {
        while !broken.have_ended() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the follower has panicked");
    assert!(!followed.have_ended());
}

/// Routes that know nobody: asked too early, or away.
struct OddRoutes {
    inner: Arc<dyn Routes>,
    /// Questions get no answer.
    is_away: bool,
    /// Bans a user at the moment when a login of it is registered.
    bans: Option<Arc<dyn Relations>>,
    /// Looked at until it knows of the ban.
    knows: Mutex<Option<Arc<im_logic::LogicMetrics>>>,
}

impl OddRoutes {
    fn over(inner: Arc<dyn Routes>) -> Self {
        Self { inner, is_away: false, bans: None, knows: Mutex::default() }
    }

    fn asked(&self) -> Result<(), StoreError> {
        if self.is_away { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Routes for OddRoutes {
    async fn register(
        &self,
        user: &UserId,
        device: &DeviceId,
        gateway: GatewayBoot,
        connection: ConnectionId,
        dial: Option<Dial>,
        now_ms: i64,
    ) -> Result<Option<Registered>, StoreError> {
        if let Some(relations) = &self.bans {
            accounts::ban(&**relations, user, now_ms).await.unwrap();
        }
        if let Some(metrics) = &*self.knows.lock().await {
            knows_banned(metrics, 1).await;
        }
        self.inner.register(user, device, gateway, connection, dial, now_ms).await
    }

    async fn unregister(&self, login: &Login) -> Result<(), StoreError> {
        self.inner.unregister(login).await
    }

    /// Nothing: as it is before the registration.
    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        self.asked()?;
        Ok(vec![Vec::new(); users.len()])
    }

    async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
        self.asked()?;
        self.inner.confirm(logins).await
    }

    async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
        self.inner.renew_lease(gateway, lease_ms).await
    }

    async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError> {
        self.inner.end_lease(gateway).await
    }

    async fn gateways(&self) -> Result<Vec<Gateway>, StoreError> {
        self.inner.gateways().await
    }
}

#[tokio::test]
async fn a_ban_that_crosses_a_sign_in_refuses_it_and_takes_its_route_away() {
    let world = World::new().await;
    let inner = world.ports.routes.clone();
    let routes = OddRoutes { bans: Some(world.relations.clone()), ..OddRoutes::over(inner.clone()) };
    let routes = Arc::new(routes);
    let logic = Logic::new(Ports { routes: routes.clone(), ..world.ports.clone() }, generous());
    *routes.knows.lock().await = Some(logic.metrics());
    let mut accounts = logic.follow_accounts(&*world.relations).await.unwrap();
    accounts.ready().await;
    let requests = logic.requests(keys());
    let refused = requests.sign_in(GATEWAY, ConnectionId::new(0, 1), sign_in(&world, "a", "phone")).await.unwrap_err();
    assert_eq!(refused.code, CloseCode::UserBanned);
    assert!(inner.look_up(&[user("a")]).await.unwrap()[0].is_empty(), "its route is gone");
}
