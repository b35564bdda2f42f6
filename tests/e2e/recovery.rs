//! How long clients of a cluster wait when a role ends or is killed, and that they notice nothing else; two versions at once; what
//! an administrator took away.
//!
//! The deadlines are ten times the bounds of the design, so that a slow machine fails no test; what was measured is printed.

use crate::chaos::proxy::Proxy;
use crate::harness::app::{App, Seen};
use crate::harness::calls::{direct, message_ids, unread};
use crate::harness::deployment::PARTITIONS;
use crate::harness::endpoint::Endpoint;
use crate::harness::history::History;
use crate::harness::load::{Load, seed};
use crate::harness::process::Process;
use crate::harness::raw::{Raw, assert_final, send_to_conversation};
use crate::harness::server::{Server, Settings};
use im_proto::LogId;
use im_proto::client::ErrorCode;
use im_proto::client::client_frame::Command;
use im_proto::client::entry::Content;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// The bound is 12 s.
const REPLACED_DEADLINE: Duration = Duration::from_secs(120);
/// The bound is 5 s.
const SYNCED_DEADLINE: Duration = Duration::from_secs(50);
const DEVICES: usize = 100;
/// Of the exit code: a service lacks what a role needs.
const SERVICE: i32 = 6;
/// Acked between two steps of an upgrade.
const MESSAGES_A_STEP: u64 = 300;

fn roll(process: &mut Process) {
    process.terminate();
    let status = process.wait();
    assert!(status.success(), "{:?} ended with {status}\n{}", process.role(), process.tail());
    process.restart();
}

/// F39: in a run that has two versions (`scripts/upgrade`) both work on the same logs between the steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_every_role_is_hidden_from_clients() {
    let mut server = Server::start_cluster(Settings::for_tests().of_other_version());
    server.set(Settings::for_tests());
    let load = Load::start(&server, seed()).await;
    block_in_place(|| server.migrate(PARTITIONS));
    for number in 0..4 {
        load.goes_on(MESSAGES_A_STEP).await;
        let begun = Instant::now();
        let process = if number < 2 { server.worker(number) } else { server.gateway(number - 2) };
        let role = process.role();
        block_in_place(|| roll(process));
        let rolled = begun.elapsed();
        load.is_answered(REPLACED_DEADLINE).await;
        println!("{role:?}: a new process after {rolled:?}, everybody was answered after {:?}", begun.elapsed());
    }
    assert_eq!(load.refused_to_users(), 0, "nothing forbids a message to a user");
    load.finish(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_answered_again_when_a_worker_was_killed() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let load = Load::start(&server, seed()).await;
    load.is_answered(REPLACED_DEADLINE).await;
    block_in_place(|| server.worker(0).kill9());
    let killed = Instant::now();
    load.is_answered(REPLACED_DEADLINE).await;
    println!(
        "its partitions are another's, and everybody was answered, {:?} after a worker was killed",
        killed.elapsed()
    );
    block_in_place(|| server.worker(0).restart());
    load.finish(&server).await;
}

/// F43: an administrator, or a restored backup of MongoDB alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seqs_of_entries_that_were_deleted_from_the_end_are_not_given_again() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let log = LogId::parse(&direct("ann", "bob")).unwrap();
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for id in ["m1", "m2", "m3", "m4"] {
        ann.message_to_user("bob", id).await;
    }
    server.deployment().is_read_to(&log, 4).await;
    // In an orderly way: what Kafka would give again would be stored again.
    for number in 0..2 {
        let worker = server.worker(number);
        worker.terminate();
        assert!(block_in_place(|| worker.wait()).success());
    }
    for seq in [3, 4] {
        server.deployment().delete_entry(&log, seq).await;
    }
    for number in 0..2 {
        block_in_place(|| server.worker(number).restart());
    }
    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.message_to_user("ann", "m5").await.seq, 5);
    let epoch = bob.sync().await.epoch;
    let entries = bob.pull_all(log.as_str(), epoch, 1).await;
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(message_ids(&entries), ["m1", "m2", "m5"]);
    assert!(entries[2..4].iter().all(|entry| matches!(entry.content, Some(Content::Tombstone(_)))));
}

/// What `migrate` says, in an orderly end.
fn migrate(server: &Server, what: &str) -> String {
    let output = server.command(&["migrate", what]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "migrate {what}: {}\n{said}", output.status);
    said
}

/// Who goes back a version takes the newest migration back; who takes all back is as if MySQL were lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_taken_back_and_are_made_anew_are_filled_from_the_logs() {
    // Nobody sends a heartbeat while the workers are gone.
    let mut server = Server::start_cluster(Settings::for_tests().with("IM_GATEWAY__IDLE_TIMEOUT_MS", "300000"));
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &["bob", "cid"]).await.conversation_id;
    ann.add_members(&group, "add", &["dan"]).await;
    ann.remove_member(&group, "remove", "cid").await;
    ann.message_to(&group, "m4").await;
    let epoch = bob.sync().await.epoch;
    bob.mark_read(&group, epoch, 3, "read").await;
    let members = ann.members(&group).await;
    for number in 0..2 {
        let worker = server.worker(number);
        worker.terminate();
        assert!(block_in_place(|| worker.wait()).success());
    }
    // The newest first; one step each.
    let versions = migrate(&server, "status").matches(" applied, ").count();
    for left in (0..versions).rev() {
        assert_eq!(migrate(&server, "down").matches(" applied, ").count(), left);
    }
    assert_eq!(migrate(&server, "status").matches("not applied").count(), versions);
    let (status, said) = block_in_place(|| server.worker(0).begin_restart().refused());
    assert_eq!(status.code(), Some(SERVICE), "{said}");
    assert!(said.contains("im-server migrate up"), "{said}");
    assert_eq!(migrate(&server, "up").matches(" applied, ").count(), versions);
    for number in 0..2 {
        block_in_place(|| server.worker(number).restart());
    }
    server.is_caught_up().await;
    assert_eq!(ann.members(&group).await, members);
    let state = bob.sync().await.conversation(&group).clone();
    assert_eq!((state.head_seq, state.read_seq, unread(&state)), (4, 3, 1));
    assert_eq!(ann.message_to(&group, "m5").await.seq, 5);
    let mut cid = Raw::device(&server, "cid", "phone").await;
    let refused = cid.call_until_settled(Command::Send(send_to_conversation(&group, "m6", "x"))).await;
    assert_final(&refused, ErrorCode::NotAllowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_gateway_that_is_killed_are_synced_by_another() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let of = |process: &Process| Endpoint::of_this_run(process.addresses.tcp, process.addresses.websocket).socket();
    let gateways = [0, 1].map(|number| of(server.gateway(number)));
    let balancer = Proxy::start(vec![gateways[0]]).await;
    server.set_doors(vec![Endpoint::of_this_run(balancer.address, balancer.address)]);
    let history = History::default();
    let start = |number| App::start(&server, &format!("user-{number}"), "phone", &history);
    let apps: Vec<App> = (0..DEVICES).map(start).collect();
    for app in &apps {
        app.until("is synced", |seen| seen.syncs > 0).await;
    }
    balancer.lead_to(gateways.into());
    let before: Vec<Seen> = apps.iter().map(App::seen).collect();
    block_in_place(|| server.gateway(0).kill9());
    let killed = Instant::now();
    let synced = apps.iter().zip(before).map(|(app, before)| {
        let (mut seen, device) = (app.subscribe(), app.device.clone());
        tokio::spawn(async move {
            let again = seen.wait_for(|seen| seen.disconnects > before.disconnects && seen.syncs > before.syncs);
            assert!(tokio::time::timeout(SYNCED_DEADLINE, again).await.is_ok(), "{device:?} is not synced");
            killed.elapsed()
        })
    });
    let mut waited = Vec::new();
    for synced in synced.collect::<Vec<_>>() {
        waited.push(synced.await.unwrap());
    }
    waited.sort();
    println!("synced by another gateway: p50 {:?}, p99 {:?}", waited[DEVICES / 2], waited[DEVICES * 99 / 100]);
}
