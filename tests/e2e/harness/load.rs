//! Users who do everything at once, and the end of a run.
//!
//! In: a server, a seed. Out: apps that send, read, create groups, add, remove and leave at random until told to stop; then
//! the verdict of the checker. Always: what is done follows from the seed alone (when it happens does not), and a device
//! has a bounded number of commands without an answer.

use super::app::{App, Seen};
use super::checker::assert_contract_held;
use super::history::{Event, History, What};
use super::read_back::read_back;
use super::server::Server;
use im_proto::LogId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const USERS: [&str; 4] = ["ann", "bob", "cid", "dan"];
/// Ann has two devices: what she does on one must reach the other.
const DEVICES: [(&str, &str); 5] =
    [("ann", "phone"), ("ann", "tablet"), ("bob", "phone"), ("cid", "phone"), ("dan", "phone")];
const UNANSWERED_MAX: usize = 12;
const GROUPS_EACH_MAX: usize = 3;
/// Between two commands of a device: so many a second, not as many as the machine can.
const PACE_MS: std::ops::Range<u64> = 0..12;
/// A test that waits for a server does not wait for the growing delay of a client's backoff.
#[cfg(feature = "services")]
const REDIAL: Duration = Duration::from_secs(1);

/// Apps under load.
pub struct Load {
    history: History,
    stop: watch::Sender<bool>,
    users: Vec<JoinHandle<App>>,
    clients: Vec<im_client::tokio_transport::Client>,
    #[cfg_attr(not(feature = "services"), allow(dead_code, reason = "clusters and chaos need the services"))]
    seen: Vec<watch::Receiver<Seen>>,
}

impl Load {
    /// The group that everybody knows is ann's; it must exist before the others talk in it.
    pub async fn start(server: &Server, seed: u64) -> Self {
        let history = History::default();
        let stop = watch::Sender::new(false);
        let mut apps: Vec<App> =
            DEVICES.iter().map(|(user, device)| App::start(server, user, device, &history)).collect();
        let group = apps[0].create_group(&USERS[1..3]);
        apps[0].settled().await;
        let clients = apps.iter().map(|app| app.client.clone()).collect();
        let seen = apps.iter().map(App::subscribe).collect();
        let users = apps.into_iter().enumerate().map(|(number, app)| {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            let user = User { creates: number == 0, app, rng, groups: vec![group.clone()], created: 0 };
            tokio::spawn(user.act_until(stop.subscribe()))
        });
        Self { users: users.collect(), history, stop, clients, seen }
    }

    /// Everybody dials now instead of after a growing delay.
    pub async fn reconnect(&self) {
        for client in &self.clients {
            client.reconnect().await.unwrap();
        }
    }

    /// Waits until every device was answered a command that it gave after this call.
    #[cfg(feature = "services")]
    pub async fn is_answered(&self, deadline: Duration) {
        let wanted: Vec<u64> =
            self.seen.iter().map(|seen| seen.borrow().answered + UNANSWERED_MAX as u64 + 1).collect();
        let all = async {
            for (seen, wanted) in self.seen.iter().zip(wanted) {
                let mut seen = seen.clone();
                while seen.borrow_and_update().answered < wanted {
                    self.reconnect().await;
                    let _ = tokio::time::timeout(REDIAL, seen.wait_for(|seen| seen.answered >= wanted)).await;
                }
            }
        };
        let answered = tokio::time::timeout(deadline, all).await;
        assert!(answered.is_ok(), "somebody had no answer within {deadline:?}");
    }

    /// The stream of one device breaks.
    pub async fn cut_a_link(&self, rng: &mut StdRng) {
        self.clients.choose(rng).unwrap().cut_link().await.unwrap();
    }

    /// Nobody begins anything new; everything begun ends, everybody sees everything, and the contract held. Answers how many
    /// messages were acked.
    pub async fn finish(self, server: &Server) -> usize {
        self.stop.send_replace(true);
        self.reconnect().await;
        let mut apps = Vec::new();
        for user in self.users {
            apps.push(user.await.unwrap());
        }
        converge_and_check(server, &apps, &self.history).await;
        acked_messages(&self.history.lock().events)
    }
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

/// Waits for all answers and all heads, reads everything back and checks the whole history.
pub async fn converge_and_check(server: &Server, apps: &[App], history: &History) {
    for app in apps {
        app.settled().await;
    }
    let mut read_backs = Vec::new();
    for user in USERS {
        for device in ["fresh-1", "fresh-2"] {
            read_backs.push(read_back(server, user, device).await);
        }
    }
    for app in apps {
        let read = read_backs.iter().find(|read| read.user == app.device.user).unwrap();
        for conversation in &read.conversations {
            app.shows(&conversation.state.conversation_id, conversation.state.head_seq).await;
        }
    }
    let events = history.events();
    let entries: usize = read_backs.iter().flat_map(|read| &read.conversations).map(|c| c.entries.len()).sum();
    println!("{} events, {entries} entries read back", events.len());
    assert_contract_held(&events, &read_backs);
}

/// One device and whoever holds it.
struct User {
    app: App,
    rng: StdRng,
    /// May add and remove in the common group.
    creates: bool,
    groups: Vec<LogId>,
    created: usize,
}

impl User {
    async fn act_until(mut self, mut stop: watch::Receiver<bool>) -> App {
        while !*stop.borrow() {
            let pause = Duration::from_millis(self.rng.random_range(PACE_MS));
            let room = async {
                let mut unanswered = self.app.subscribe();
                let _ = unanswered.wait_for(|seen| seen.unanswered < UNANSWERED_MAX).await;
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
                let to = *USERS.choose(&mut self.rng).unwrap();
                self.app.send_to_user(to).await;
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
                let others: Vec<&str> = USERS.sample(&mut self.rng, 2).copied().collect();
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
        match self.rng.random_range(0..4) {
            0 => self.app.remove_member(&group, "dan"),
            1 => self.app.add_member(&group, "bob"),
            2 => self.app.add_member(&group, "cid"),
            _ => self.app.add_member(&group, "dan"),
        }
    }

    fn leave_or_return(&mut self) {
        let group = self.groups[0].clone();
        if !self.creates && self.app.device.user != "ann" {
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
