//! The process ends before and after every port call, under every mutating command and while it recovers; then it starts
//! again, the apps repeat what has no answer, and the whole history is checked. Needs the feature `fault-points`.
//!
//! The points are those that the storage crate lists, so a new port call is a new row here by itself.

use crate::harness::app::App;
use crate::harness::history::History;
use crate::harness::load::{converge_and_check, names};
use crate::harness::raw::within;
use crate::harness::server::{Server, Settings};
use im_proto::LogId;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Some points lie behind the answer; the process gets this long to reach them.
const BEHIND_THE_ANSWER: Duration = Duration::from_millis(40);
const POLL: Duration = Duration::from_millis(2);

const COMMANDS: [&str; 6] = ["create group", "send", "add members", "mark read", "remove member", "leave group"];
/// Writes nothing into a log, and still calls ports that write.
const SIGN_IN: &str = "sign in and sync";

/// Three apps on a server that can be told to die at a point.
struct Scene {
    server: Server,
    history: History,
    apps: [App; 3],
    /// While this file exists, the point is counted.
    armed: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(Settings::for_tests());
        let history = History::default();
        let apps = ["ann", "bob", "cid"].map(|user| App::start(&server, user, "phone", &history));
        let armed = server.folder().path().join("armed");
        Self { server, history, apps, armed }
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

    /// Issues a command and tells whether the server died of it.
    async fn dies_under(&mut self, command: &str, group: &mut LogId) -> bool {
        std::fs::write(&self.armed, "").unwrap();
        self.issue(command, group).await;
        let answered = async {
            for app in &self.apps {
                app.settled().await;
            }
            tokio::time::sleep(BEHIND_THE_ANSWER).await;
        };
        let server = &mut self.server;
        let died = async {
            while server.is_running() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = answered => {}
            () = died => {}
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
        let [ann, bob, cid] = &mut self.apps;
        match command {
            "create group" => *group = ann.create_group(&["bob", "cid"]),
            "send" => {
                // Pipelined, and in two logs.
                bob.send_to(group).await;
                bob.send_to(group).await;
                bob.send_to_user("ann").await;
            }
            "add members" => ann.add_member(group, "dan"),
            "mark read" => {
                let seq = cid.seen().cursors.get(group.as_str()).copied().unwrap_or(1);
                cid.mark_read(group, seq);
            }
            "remove member" => ann.remove_member(group, "dan"),
            "leave group" => cid.leave(group),
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

    /// The point strikes while the server starts: the end of a recovery.
    async fn dies_in_recovery(&mut self) -> bool {
        std::fs::write(&self.armed, "").unwrap();
        self.server.kill9();
        let died = self.server.try_restart().is_err_and(aborted);
        std::fs::remove_file(&self.armed).unwrap();
        self.server.kill9();
        self.revive().await;
        died
    }
}

/// The process died by a signal of its own making, as a point does.
fn aborted(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGABRT)
}

/// Goes through every `of`-th point.
async fn every_point_under_every_command(start: usize, of: usize) {
    let mut scene = Scene::new();
    let points = im_storage::fault::names();
    let mut struck = BTreeSet::new();
    for point in points.into_iter().skip(start).step_by(of) {
        let point: &str = point.as_ref();
        scene.restart_with(point).await;
        let mut group = LogId::parse("none").unwrap();
        for command in COMMANDS.into_iter().chain([SIGN_IN]) {
            if scene.dies_under(command, &mut group).await {
                struck.insert((point.to_owned(), command));
            }
            scene.settled().await;
        }
        if scene.dies_in_recovery().await {
            struck.insert((point.to_owned(), "recovery"));
        }
        println!("{point}");
        converge_and_check(&scene.server, &names(0), &scene.apps, &scene.history).await;
    }
    println!("kills at fault points {}", struck.len());
    for (point, command) in &struck {
        println!("  {point} under {command}");
    }
    for (point, command) in on_every_path(start, of) {
        assert!(struck.contains(&(point.clone(), command)), "{point} did not strike under {command}");
    }
}

/// The calls that no mutating command gets around: were one not struck, the test would test nothing.
fn on_every_path(start: usize, of: usize) -> Vec<(String, &'static str)> {
    const CALLS: [&str; 5] = ["queue.produce", "consumer.next", "entry_log.append", "inbox.bump", "delivery.deliver"];
    let is_one = |name: &String| name.rsplit_once('.').is_some_and(|(call, _)| CALLS.contains(&call));
    let mine = im_storage::fault::names().into_iter().skip(start).step_by(of).filter(is_one);
    mine.flat_map(|name| COMMANDS.map(|command| (name.to_string(), command))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_call_is_a_place_where_the_contract_breaks_even_points() {
    every_point_under_every_command(0, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_call_is_a_place_where_the_contract_breaks_odd_points() {
    every_point_under_every_command(1, 2).await;
}
