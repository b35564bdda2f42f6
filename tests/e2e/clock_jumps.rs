//! F27: the wall clock jumps, as it does when somebody or a time service sets it. Nothing that matters rests on it.
//!
//! The server's one reading of the wall clock is moved by its fault points, so this needs the feature `fault-points`.

use crate::harness::calls::direct;
use crate::harness::load::{Load, seed};
use crate::harness::process::CLOCK_FILE;
use crate::harness::raw::{Raw, sign_in};
use crate::harness::server::{Folder, Server, Settings};
use crate::harness::tokens::now_s;
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, SignedIn};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::path::PathBuf;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The load goes on under each setting of the clock until so many more are acked.
const MESSAGES: u64 = 200;

struct Clock {
    file: PathBuf,
    offset_ms: i64,
}

impl Clock {
    fn jump(&mut self, by_ms: i64) {
        self.offset_ms += by_ms;
        // Whole at once: the server reads it at any moment.
        let unfinished = self.file.with_extension("new");
        std::fs::write(&unfinished, self.offset_ms.to_string()).unwrap();
        std::fs::rename(&unfinished, &self.file).unwrap();
    }

    /// Seconds since 1970 as the server has them.
    fn now_s(&self) -> i64 {
        now_s() + self.offset_ms / 1000
    }

    /// A token that is fresh by the server's clock.
    fn token(&self, server: &Server, user: &str) -> String {
        server.key.sign(&json!({ "sub": user, "exp": self.now_s() + 3600 }))
    }
}

/// One device that signs in again and again; each login must end the one before.
struct Logins {
    newest: (Raw, SignedIn),
}

impl Logins {
    async fn first(server: &Server, clock: &Clock) -> Self {
        Self { newest: Self::sign_in(server, clock).await }
    }

    async fn sign_in(server: &Server, clock: &Clock) -> (Raw, SignedIn) {
        let mut raw = Raw::connect(server.clients()).await;
        let signed_in = raw.sign_in(&clock.token(server, "gil"), "phone").await;
        (raw, signed_in)
    }

    async fn next(&mut self, server: &Server, clock: &Clock) {
        let next = Self::sign_in(server, clock).await;
        let (mut old, old_login) = std::mem::replace(&mut self.newest, next);
        assert!(self.newest.1.generation > old_login.generation, "a newer login has the higher generation");
        let ended = old.push(|body| if let Body::Kicked(kicked) = body { Some(kicked.generation) } else { None }).await;
        assert_eq!(ended, old_login.generation);
        old.closed_with(CloseCode::ReplacedByNewer).await;
        self.newest.0.is_alive().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_harms_nothing() {
    let folder = Folder::new();
    let mut clock = Clock { file: folder.path().join("clock"), offset_ms: 0 };
    let settings = Settings::for_tests().with(CLOCK_FILE, clock.file.to_str().unwrap());
    let mut server = Server::start_in(folder, settings);
    let mut rng = StdRng::seed_from_u64(seed());
    let load = Load::start(&server, rng.random()).await;
    let mut idle = Raw::device(&server, "ida", "phone").await;
    let mut sender = Raw::device(&server, "sam", "phone").await;
    let mut logins = Logins::first(&server, &clock).await;
    let hour_token = clock.token(&server, "eve");

    let mut sent = 0;
    for jump_ms in [HOUR_MS, -2 * HOUR_MS, DAY_MS, -DAY_MS - HOUR_MS, 2 * HOUR_MS] {
        load.goes_on(MESSAGES).await;
        clock.jump(jump_ms);
        sent += 1;
        let ack = sender.message_to_user("ida", &format!("m{sent}")).await;
        assert_eq!(ack.seq, sent, "order is of the log, not of the clock");
        // The stamp shows that the server's clock did jump; it is for display and may go back.
        assert!((ack.server_time_ms / 1000 - clock.now_s()).abs() < HOUR_MS / 2000, "{ack:?}");
        idle.is_alive().await;
        sender.is_alive().await;
        logins.next(&server, &clock).await;
        tokens_expire_by_the_clock(&server, &clock, &hour_token).await;
    }
    let server_closed = |code: &str| server.metric(&format!("im_gateway_closes_total{{code=\"CLOSE_CODE_{code}\"}}"));
    for code in ["IDLE_TIMEOUT", "SLOW_CONSUMER", "SIGN_IN_TIMEOUT", "INTERNAL", "GOING_AWAY"] {
        assert_eq!(server_closed(code), Some(0.0), "{code}: deadlines run on a clock that does not jump");
    }
    clock.jump(-clock.offset_ms);
    load.finish(&server).await;

    // A start under an earlier clock than the last run had.
    clock.jump(-2 * HOUR_MS);
    server.kill9();
    server.restart();
    let mut sam = Raw::device(&server, "sam", "phone").await;
    assert_eq!(sam.message_to_user("ida", "after").await.seq, sent + 1);
    let known = Raw::device(&server, "ida", "phone").await.sync().await;
    assert_eq!(known.conversation(&direct("ida", "sam")).head_seq, sent + 1);
}

/// Whoever holds a token that the jump has expired is told to fetch another, and that one works.
async fn tokens_expire_by_the_clock(server: &Server, clock: &Clock, token: &str) {
    // It was good for an hour, and a minute of leeway.
    if clock.offset_ms > HOUR_MS {
        let mut eve = Raw::connect(server.clients()).await;
        eve.send(sign_in(token, "phone")).await;
        eve.closed_with(CloseCode::TokenExpired).await;
    }
    let mut eve = Raw::connect(server.clients()).await;
    eve.sign_in(&clock.token(server, "eve"), "phone").await;
    eve.is_alive().await;
}
