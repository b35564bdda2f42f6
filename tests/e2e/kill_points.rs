//! The process ends before and after every port call, under every mutating command and while it recovers; then it starts
//! again, the apps repeat what has no answer, and the whole history is checked. Needs the feature `fault-points`.
//!
//! The points are those that the storage crate lists. For each call a table says where it must strike, or why none of it can
//! strike here: a call that is in neither fails, so does one that does not strike where it must.

use crate::harness::app::App;
use crate::harness::history::History;
use crate::harness::load::{converge_and_check, names};
use crate::harness::raw::{DEADLINE, Raw, sign_in, within};
use crate::harness::server::{Server, Settings};
use im_proto::LogId;
use im_proto::client::ClientFrame;
use prost::Message as _;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Where a point may strike and need not, the process gets this long behind the answers.
const BEHIND_THE_ANSWER: Duration = Duration::from_millis(40);
const POLL: Duration = Duration::from_millis(2);

const CREATE: &str = "create group";
const SEND: &str = "send";
const ADD: &str = "add members";
const READ: &str = "mark read";
const REMOVE: &str = "remove member";
const LEAVE: &str = "leave group";
/// Writes nothing into a log, and still calls ports that write.
const SIGN_IN: &str = "sign in and sync";
const RECOVERY: &str = "recovery";
const COMMANDS: [&str; 7] = [CREATE, SEND, ADD, READ, REMOVE, LEAVE, SIGN_IN];
const WRITES: [&str; 6] = [CREATE, SEND, ADD, READ, REMOVE, LEAVE];

/// Each call, and under what both of its points must strike. Elsewhere they may.
const STRIKES: [(&str, &[&str]); 33] = [
    ("entry_log.append", &WRITES),
    // Of a log that the worker has not met since its start: the group, the direct conversation, the reader's own log.
    ("entry_log.head", &[CREATE, SEND, READ, SIGN_IN]),
    ("entry_log.range", &[READ, SIGN_IN]),
    // A refusal is given only behind a look for the command itself.
    ("entry_log.find", &[LEAVE]),
    ("entry_log.end", &[SEND, RECOVERY]),
    ("entry_log.is_empty", &[RECOVERY]),
    ("entry_log.tail", &[RECOVERY]),
    ("entry_log.release", &[SEND, RECOVERY]),
    ("directory.conversation", &[SEND]),
    ("directory.memberships", &[READ]),
    ("directory.members", &[READ]),
    ("directory.large_conversations", &[SIGN_IN]),
    ("directory.apply", &[CREATE, ADD, REMOVE, LEAVE]),
    ("directory.record_reads", &[SEND, READ]),
    ("directory.furthest_read", &[CREATE, SEND]),
    ("directory.record_device", &[SIGN_IN]),
    ("directory.claim", &[RECOVERY]),
    ("directory.cover", &[SEND, RECOVERY]),
    ("inbox.bump", &WRITES),
    ("inbox.since", &[SIGN_IN]),
    ("inbox.versions", &[SIGN_IN]),
    ("inbox.reads", &[READ]),
    ("inbox.claim", &[RECOVERY]),
    ("inbox.cover", &[SEND, RECOVERY]),
    ("routes.register", &[SIGN_IN]),
    ("routes.unregister", &[SIGN_IN]),
    ("routes.renew_lease", &[RECOVERY]),
    ("routes.look_up", &WRITES),
    // By the heartbeats.
    ("routes.confirm", &[SIGN_IN]),
    ("queue.produce", &WRITES),
    ("delivery.deliver", &WRITES),
    ("consumer.next", &WRITES),
    ("consumer.commit", &WRITES),
];
/// Calls that no command here leads to. A recovery may: whoever is killed between the first covers of the two projections
/// finds an inbox that seems to have lost everything.
const NEVER: [(&str, &str); 8] = [
    ("entry_log.logs", "only when a projection has lost everything"),
    ("directory.conversations_of", "only while the inbox is away, or when it has lost everything"),
    ("directory.reads", "only while the inbox is away, or when it has lost everything"),
    ("directory.devices", "only for lists of devices, which standalone does not serve"),
    ("routes.gateways", "only for conversations with more than large_members_min members"),
    ("routes.end_lease", "only behind a SIGTERM, when nothing is under way any more"),
    ("queue.produce_and_wait", "nobody calls it"),
    ("queue.set_aside", "only for a record that cannot be decoded or stored"),
];

/// Three apps on a server that can be told to die at a point.
struct Scene {
    server: Server,
    history: History,
    apps: [App; 3],
    /// While this file exists, the point is counted.
    armed: PathBuf,
    /// Connections that signed in as a new device, and do nothing more.
    guests: Vec<Raw>,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(Settings::for_tests());
        let history = History::default();
        let apps = ["ann", "bob", "cid"].map(|user| App::start(&server, user, "phone", &history));
        let armed = server.folder().path().join("armed");
        Self { server, history, apps, armed, guests: Vec::new() }
    }

    async fn restart_with(&mut self, point: &str) {
        let settings = Settings::for_tests()
            .with("IM_FAULT_POINT", &format!("{point}:1"))
            .with("IM_FAULT_ARMED", &self.armed.display().to_string());
        self.server.set(settings);
        self.server.kill9();
        self.revive().await;
    }

    /// Starts the dead server and waits until every app has synced with it.
    async fn revive(&mut self) {
        let syncs = self.apps.each_ref().map(|app| app.seen().syncs);
        self.server.restart();
        for (app, before) in self.apps.iter().zip(syncs) {
            let synced = async {
                let mut seen = app.subscribe();
                while seen.borrow_and_update().syncs == before {
                    app.client.reconnect().await.unwrap();
                    // A change, or time to dial again: the app may not have noticed the end of its link before.
                    let _ = tokio::time::timeout(Duration::from_millis(20), seen.changed()).await;
                }
            };
            within("an app syncs after a restart", synced).await;
        }
    }

    /// Issues a command and tells whether the server died of it. If it must, that is waited for.
    async fn dies_under(&mut self, command: &str, must: bool, group: &mut LogId) -> bool {
        std::fs::write(&self.armed, "").unwrap();
        self.issue(command, group).await;
        let answered = async {
            for app in &self.apps {
                app.settled().await;
            }
            tokio::time::sleep(if must { DEADLINE } else { BEHIND_THE_ANSWER }).await;
        };
        tokio::select! {
            () = answered => {}
            () = died(&mut self.server) => {}
        }
        std::fs::remove_file(&self.armed).unwrap();
        if self.server.is_running() {
            return false;
        }
        assert!(aborted(self.server.wait()), "{command}: the server ended, but not at the point");
        self.revive().await;
        true
    }

    async fn issue(&mut self, command: &str, group: &mut LogId) {
        if command == SIGN_IN {
            self.guest_signs_in().await;
        }
        let [ann, bob, cid] = &mut self.apps;
        match command {
            CREATE => *group = ann.create_group(&["bob", "cid"]),
            SEND => {
                // Pipelined, and in two logs.
                bob.send_to(group).await;
                bob.send_to(group).await;
                bob.send_to_user("ann").await;
            }
            ADD => ann.add_member(group, "dan"),
            READ => {
                let seq = cid.seen().cursors.get(group.as_str()).copied().unwrap_or(1);
                cid.mark_read(group, seq);
            }
            REMOVE => ann.remove_member(group, "dan"),
            LEAVE => {
                cid.leave(group);
                // Refused.
                cid.leave(group);
            }
            SIGN_IN => {
                let before = bob.seen().disconnects;
                bob.client.cut_link().await.unwrap();
                bob.until("the link breaks", |seen| seen.disconnects > before).await;
                bob.client.reconnect().await.unwrap();
            }
            other => panic!("{other}"),
        }
    }

    async fn settled(&self) {
        for app in &self.apps {
            app.settled().await;
        }
    }

    /// The server may die of it.
    async fn guest_signs_in(&mut self) {
        let mut guest = Raw::connect(self.server.clients()).await;
        let command = sign_in(&self.server.key.token("eve"), &format!("device{}", self.guests.len()));
        let frame = ClientFrame { request_id: 1, command: Some(command), ..Default::default() };
        let _ = guest.try_send_bytes(&frame.encode_length_delimited_to_vec()).await;
        self.guests.push(guest);
    }

    /// The point strikes while the server starts: the end of a recovery, or what it leaves to be done soon after.
    async fn dies_in_recovery(&mut self, must: bool) -> bool {
        std::fs::write(&self.armed, "").unwrap();
        self.server.kill9();
        let struck = match self.server.try_restart() {
            Err(status) => aborted(status),
            Ok(()) if must => {
                let died = tokio::time::timeout(DEADLINE, died(&mut self.server)).await;
                died.is_ok() && aborted(self.server.wait())
            }
            Ok(()) => false,
        };
        std::fs::remove_file(&self.armed).unwrap();
        self.server.kill9();
        self.revive().await;
        struck
    }
}

async fn died(server: &mut Server) {
    while server.is_running() {
        tokio::time::sleep(POLL).await;
    }
}

/// The process died by a signal of its own making, as a point does.
fn aborted(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGABRT)
}

/// Under what this point must strike.
fn strikes(point: &str) -> &'static [&'static str] {
    let call = point.rsplit_once('.').unwrap().0;
    STRIKES.iter().find(|(known, _)| *known == call).map_or(&[], |(_, under)| *under)
}

/// Goes through the points of one side of every call, or with `IM_CALLS_EVERY` of every n-th.
async fn every_point_under_every_command(side: &str) {
    let every = std::env::var("IM_CALLS_EVERY").ok().map_or(1, |text| text.parse().unwrap());
    let points = im_storage::fault::names().into_iter().filter(|point| point.ends_with(side));
    let mut scene = Scene::new();
    let (mut struck, mut missed) = (BTreeSet::new(), Vec::new());
    for point in points.step_by(every) {
        let point: &str = point.as_ref();
        let must = strikes(point);
        scene.restart_with(point).await;
        let mut group = LogId::parse("none").unwrap();
        for command in COMMANDS {
            if scene.dies_under(command, must.contains(&command), &mut group).await {
                struck.insert((point.to_owned(), command));
            }
            scene.settled().await;
        }
        if scene.dies_in_recovery(must.contains(&RECOVERY)).await {
            struck.insert((point.to_owned(), RECOVERY));
        }
        println!("{point}");
        missed.extend(
            must.iter()
                .filter(|command| !struck.contains(&(point.to_owned(), **command)))
                .map(|command| format!("{point} under {command}")),
        );
        converge_and_check(&scene.server, &names(0), &scene.apps, &scene.history).await;
    }
    println!("kills at fault points {}", struck.len());
    for (point, command) in &struck {
        println!("  {point} under {command}");
        let is_never = NEVER.iter().any(|(call, _)| point.starts_with(&format!("{call}.")));
        assert!(!is_never || *command == RECOVERY, "{point} strikes: say in the table where it must");
    }
    assert!(missed.is_empty(), "did not strike: {missed:#?}");
}

#[test]
fn of_every_port_call_it_is_said_where_it_must_strike_or_why_it_cannot() {
    let said = STRIKES.iter().map(|(call, _)| *call).chain(NEVER.iter().map(|(call, _)| *call));
    let mut said: Vec<String> = said.flat_map(|call| [format!("{call}.before"), format!("{call}.after")]).collect();
    let mut names = im_storage::fault::names();
    said.sort();
    names.sort();
    assert_eq!(said, names);
    for (call, under) in STRIKES {
        assert!(!under.is_empty(), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_call_is_a_place_where_the_contract_breaks_before_it() {
    every_point_under_every_command(".before").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_call_is_a_place_where_the_contract_breaks_behind_it() {
    every_point_under_every_command(".after").await;
}
