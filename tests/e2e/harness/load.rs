//! Users who do everything at once, and the end of a run.
//!
//! In: a server, a seed, a number of circles. Out: apps that send, read, create groups, add, remove and leave at random until
//! told to stop; then the verdict of the checker. Always: what is done follows from the seed and from what the device was shown
//! (when it happens does not); a device has a bounded number of commands without an answer; a circle knows nobody outside of it
//! and has a history of its own.

use super::app::{App, Seen};
use super::checker::{Tally, assert_contract_held};
use super::history::{Event, History, What};
use super::read_back::read_back;
use super::server::{Server, is_cluster};
use futures_util::{StreamExt as _, stream};
use im_proto::LogId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];
/// By the user's place among the names. Ann has two devices: what she does on one must reach the other.
const DEVICES: [(usize, &str); 5] = [(0, "phone"), (0, "tablet"), (1, "phone"), (2, "phone"), (3, "phone")];
/// Commands of a device without an answer, where the load is not to be heavier.
pub const UNANSWERED_MAX: usize = 12;
const GROUPS_EACH_MAX: usize = 3;
/// Between two commands of a device: so many a second, not as many as the machine can.
const PACE_MS: std::ops::Range<u64> = 0..12;
/// Circles whose stores are read back side by side.
const FINISHED_AT_ONCE: usize = 4;
const EVENTS_OF_A_LONG_HISTORY: usize = 50_000;
/// A cluster on a small machine acks some hundred messages a second.
const GOES_ON_DEADLINE: Duration = Duration::from_secs(60);
/// A test that waits for a server does not wait for the growing delay of a client's backoff.
#[cfg(feature = "services")]
const REDIAL: Duration = Duration::from_secs(1);

/// Apps under load: one circle, or as many as the load has to be heavy.
pub struct Load {
    circles: Vec<Circle>,
}

/// What a load came to.
#[derive(Default)]
#[cfg_attr(not(feature = "services"), allow(dead_code, reason = "only runs of chaos are records"))]
pub struct Finished {
    /// Messages.
    pub acked: usize,
    pub breaches: Tally,
    /// Everybody here is signed in once on each device, so nobody is to be replaced.
    pub sent_away: usize,
}

impl std::ops::AddAssign for Finished {
    fn add_assign(&mut self, more: Self) {
        self.acked += more.acked;
        self.breaches += more.breaches;
        self.sent_away += more.sent_away;
    }
}

/// Users who know each other and nobody else.
struct Circle {
    names: [String; 4],
    history: History,
    stop: watch::Sender<bool>,
    users: Vec<JoinHandle<App>>,
    clients: Vec<im_client::tokio_transport::Client>,
    seen: Vec<watch::Receiver<Seen>>,
}

impl Load {
    pub async fn start(server: &Server, seed: u64) -> Self {
        Self { circles: vec![Circle::start(server, seed, 0, UNANSWERED_MAX).await] }
    }

    #[cfg(feature = "services")]
    pub async fn start_circles(server: &Server, seed: u64, circles: usize, unanswered_max: usize) -> Self {
        let mut started = Vec::new();
        for number in 0..circles {
            started.push(Circle::start(server, seed, number, unanswered_max).await);
        }
        Self { circles: started }
    }

    /// Everybody dials now instead of after a growing delay.
    pub async fn reconnect(&self) {
        for circle in &self.circles {
            circle.reconnect().await;
        }
    }

    /// Waits until everything that is under way now has ended, and every device was answered a command that it gave after
    /// this call.
    #[cfg(feature = "services")]
    pub async fn is_answered(&self, deadline: Duration) {
        let devices = self.circles.iter().flat_map(|circle| &circle.seen);
        let devices: Vec<_> = devices.map(|seen| (seen.clone(), seen.borrow().clone())).collect();
        let all = async {
            for (mut seen, before) in devices {
                let answered = before.answered + before.open.len() as u64 + 1;
                let is_over = |seen: &Seen| seen.open.is_disjoint(&before.open) && seen.answered >= answered;
                while !is_over(&seen.borrow_and_update()) {
                    self.reconnect().await;
                    let _ = tokio::time::timeout(REDIAL, seen.wait_for(is_over)).await;
                }
            }
        };
        let answered = tokio::time::timeout(deadline, all).await;
        assert!(answered.is_ok(), "somebody had no answer within {deadline:?}");
    }

    /// Until so many messages more were acked that every promise was tried many times. A cluster needs many times longer for each,
    /// and is tried with more of them under chaos.
    pub async fn goes_on_for_long(&self) {
        self.goes_on(if is_cluster() { 300 } else { 1_000 }).await;
    }

    /// Until so many messages more were acked, however fast the machine is.
    pub async fn goes_on(&self, messages: u64) {
        let wanted = self.acked() + messages;
        // Whatever happens in a circle reaches this device.
        let mut first = self.circles[0].seen[0].clone();
        let goes_on = async {
            while self.acked() < wanted {
                first.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(GOES_ON_DEADLINE, goes_on).await;
        assert!(in_time.is_ok(), "no {messages} messages were acked within {GOES_ON_DEADLINE:?}");
    }

    /// How many messages were acked so far.
    pub fn acked(&self) -> u64 {
        self.circles.iter().flat_map(|circle| &circle.seen).map(|seen| seen.borrow().acked).sum()
    }

    /// How many messages to users were refused for good.
    #[cfg(feature = "services")]
    pub fn refused_to_users(&self) -> usize {
        self.circles.iter().map(|circle| refused_to_users(&circle.history.lock().events)).sum()
    }

    /// How much memory this load keeps: events of all histories.
    #[cfg(feature = "services")]
    pub fn events(&self) -> usize {
        self.circles.iter().map(|circle| circle.history.lock().events.len()).sum()
    }

    /// The stream of one device breaks.
    pub async fn cut_a_link(&self, rng: &mut StdRng) {
        let clients: Vec<_> = self.circles.iter().flat_map(|circle| &circle.clients).collect();
        clients.choose(rng).unwrap().cut_link().await.unwrap();
    }

    /// Nobody begins anything new; everything begun ends, everybody sees everything, and the contract held.
    pub async fn finish(self, server: &Server) -> Finished {
        for circle in &self.circles {
            circle.stop.send_replace(true);
        }
        self.reconnect().await;
        let finished =
            stream::iter(self.circles).map(|circle| circle.finish(server)).buffer_unordered(FINISHED_AT_ONCE);
        let sum = async |mut sum: Finished, of_circle| {
            sum += of_circle;
            sum
        };
        finished.fold(Finished::default(), sum).await
    }
}

impl Circle {
    /// The group that everybody knows is ann's; it must exist before the others talk in it.
    async fn start(server: &Server, seed: u64, number: usize, unanswered_max: usize) -> Self {
        let names = names(number);
        let history = History::default();
        let stop = watch::Sender::new(false);
        let start = |(user, device): &(usize, &str)| App::start(server, &names[*user], device, &history);
        let mut apps: Vec<App> = DEVICES.iter().map(start).collect();
        let group = apps[0].create_group(&[&names[1], &names[2]]);
        apps[0].settled().await;
        let clients = apps.iter().map(|app| app.client.clone()).collect();
        let seen = apps.iter().map(App::subscribe).collect();
        let mut users = Vec::new();
        for (device, app) in apps.into_iter().enumerate() {
            let rng = StdRng::seed_from_u64(seed.wrapping_add((number * DEVICES.len() + device) as u64));
            let (names, groups) = (names.clone(), vec![group.clone()]);
            let user = User { creates: device == 0, unanswered_max, app, rng, names, groups, created: 0 };
            users.push(tokio::spawn(user.act_until(stop.subscribe())));
        }
        Self { names, users, history, stop, clients, seen }
    }

    async fn reconnect(&self) {
        for client in &self.clients {
            client.reconnect().await.unwrap();
        }
    }

    async fn finish(self, server: &Server) -> Finished {
        let mut apps = Vec::new();
        for user in self.users {
            apps.push(user.await.unwrap());
        }
        let breaches = converge_and_check(server, &self.names, &apps, &self.history).await;
        let sent_away = apps.iter().map(|app| app.seen().sent_away).sum();
        Finished { acked: acked_messages(&self.history.lock().events), breaches, sent_away }
    }
}

/// The users of a circle; those of the first are called plainly.
pub fn names(circle: usize) -> [String; 4] {
    USERS.map(|user| if circle == 0 { user.to_owned() } else { format!("{user}-{circle}") })
}

fn acked_messages(events: &[Event]) -> usize {
    let mut messages = HashSet::new();
    for event in events {
        if let Event::Invoked { op, what: What::Message(_), .. } = event {
            messages.insert(*op);
        }
    }
    events.iter().filter(|event| matches!(event, Event::Stored { op, .. } if messages.contains(op))).count()
}

#[cfg(feature = "services")]
fn refused_to_users(events: &[Event]) -> usize {
    let mut to_users = HashSet::new();
    for event in events {
        if let Event::Invoked { op, log, what: What::Message(_), .. } = event
            && !log.starts_with('g')
        {
            to_users.insert(*op);
        }
    }
    events.iter().filter(|event| matches!(event, Event::Refused { op } if to_users.contains(op))).count()
}

/// Waits for all answers and all heads, reads everything back and checks the whole history.
pub async fn converge_and_check(server: &Server, users: &[String], apps: &[App], history: &History) -> Tally {
    for app in apps {
        app.settled().await;
    }
    // Before that a sync may lack what a worker that died left undone.
    server.is_caught_up().await;
    // Two devices of a user see the same, if they are not to read for minutes.
    let is_long = history.lock().events.len() > EVENTS_OF_A_LONG_HISTORY;
    let devices: &[&str] = if is_long { &["fresh-1"] } else { &["fresh-1", "fresh-2"] };
    let mut read_backs = Vec::new();
    for user in users {
        for device in devices {
            read_backs.push(read_back(server, user, device).await);
        }
    }
    for app in apps {
        let read = read_backs.iter().find(|read| read.user == app.device.user).unwrap();
        for conversation in &read.conversations {
            app.shows(&conversation.state.conversation_id, conversation.state.head_seq).await;
        }
    }
    // Not cloned: of a long run it is the most of the memory.
    let events = &history.lock().events;
    let entries: usize = read_backs.iter().flat_map(|read| &read.conversations).map(|c| c.entries.len()).sum();
    println!("{} events, {entries} entries read back", events.len());
    assert_contract_held(events, &read_backs)
}

/// One device and whoever holds it.
struct User {
    app: App,
    rng: StdRng,
    names: [String; 4],
    /// May add and remove in the common group.
    creates: bool,
    unanswered_max: usize,
    groups: Vec<LogId>,
    created: usize,
}

impl User {
    async fn act_until(mut self, mut stop: watch::Receiver<bool>) -> App {
        while !*stop.borrow() {
            let pause = Duration::from_millis(self.rng.random_range(PACE_MS));
            let room = async {
                let mut open = self.app.subscribe();
                let _ = open.wait_for(|seen| seen.open.len() < self.unanswered_max).await;
                // The pace of a hand; nothing is waited for.
                tokio::time::sleep(pause).await;
            };
            let stopped = async {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let goes_on = tokio::select! {
                () = room => true,
                () = stopped => false,
            };
            if goes_on {
                self.act().await;
            }
        }
        self.app
    }

    async fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => {
                let to = self.names.choose(&mut self.rng).unwrap();
                let conversation = self.app.conversation_with(to);
                // Where nobody has written yet the server knows of no such conversation.
                let by_conversation = self.rng.random_bool(0.4) && self.app.has_seen(&conversation);
                match by_conversation {
                    true => self.app.send_to(&conversation).await,
                    false => self.app.send_to_user(to).await,
                }
            }
            45..80 => {
                let group = self.groups.choose(&mut self.rng).unwrap().clone();
                self.app.send_to(&group).await;
            }
            80..92 => self.mark_something_read(),
            92..97 if self.creates => self.change_members(),
            97..98 => self.leave_or_return(),
            98..100 if self.created < GROUPS_EACH_MAX => {
                self.created += 1;
                let others: Vec<&str> = self.names.sample(&mut self.rng, 2).map(String::as_str).collect();
                let group = self.app.create_group(&others);
                self.groups.push(group);
            }
            _ => {}
        }
    }

    fn mark_something_read(&mut self) {
        let cursors: Vec<(String, u64)> = self.app.seen().cursors.into_iter().collect();
        let Some((conversation, seq)) = cursors.choose(&mut self.rng) else { return };
        // The user's own log is no conversation.
        if !conversation.starts_with('u') {
            self.app.mark_read(&LogId::parse(conversation).unwrap(), *seq);
        }
    }

    /// The common group: dan comes and goes, who left is asked back.
    fn change_members(&mut self) {
        let group = self.groups[0].clone();
        let [_, bob, cid, dan] = &self.names;
        match self.rng.random_range(0..4) {
            0 => self.app.remove_member(&group, dan),
            1 => self.app.add_member(&group, bob),
            2 => self.app.add_member(&group, cid),
            _ => self.app.add_member(&group, dan),
        }
    }

    fn leave_or_return(&mut self) {
        let group = self.groups[0].clone();
        if !self.creates && self.app.device.user != self.names[0] {
            self.app.leave(&group);
        }
    }
}

/// The seed of a run: `IM_SEED`, or a fresh one; printed, so that a failure can be run again.
pub fn seed() -> u64 {
    let seed = std::env::var("IM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed} (repeat with IM_SEED={seed})");
    seed
}
