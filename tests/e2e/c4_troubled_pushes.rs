//! C4, the other half: pushes are lost on purpose, all or some, or come twice and in another order, and every device reaches
//! the head all the same (F19).
//!
//! The gateway does it by its fault points, so this needs the feature `fault-points`.

use crate::harness::calls::direct;
use crate::harness::load::{Load, seed};
use crate::harness::raw::{Got, HEARTBEAT_INTERVAL, Raw, within};
use crate::harness::server::{Server, Settings};
use im_proto::client::ServerFrame;
use im_proto::client::server_frame::Body;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

fn hinted_version(got: Got) -> Option<u64> {
    match got {
        Got::Frame(ServerFrame { body: Some(Body::SyncHint(hint)), .. }) => Some(hint.inbox_version),
        _ => None,
    }
}

#[tokio::test]
async fn a_heartbeat_hints_when_every_push_was_lost_and_the_sync_brings_the_head() {
    let server = Server::start(Settings::for_tests().with("IM_FAULT_PUSHES", "lose:all"));
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let before = bob.sync().await;
    assert_eq!(hinted_version(bob.heartbeat().await), None, "nothing moved, so nothing is hinted");
    let ack = ann.message_to_user("bob", "m1").await;
    // Versions are read in batches: the answer to one heartbeat may be older than the message.
    let hinted = async {
        loop {
            if let Some(version) = hinted_version(bob.heartbeat().await) {
                return version;
            }
            bob.was_pushed_no_entry();
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        }
    };
    let version = within("a heartbeat hints", hinted).await;
    let known = bob.sync_from(before.token).await;
    assert!(known.inbox_version >= version);
    assert_eq!(known.conversation(&direct("ann", "bob")).head_seq, ack.seq);
    assert_eq!(hinted_version(bob.heartbeat().await), None, "after the sync the connection was told of everything");
}

/// Load with trouble on the way of pushes: `IM_FAULT_PUSHES` as the gateway reads it.
async fn converges_in_spite_of(fault: &str) {
    let mut rng = StdRng::seed_from_u64(seed());
    let server = Server::start(Settings::for_tests().with("IM_FAULT_PUSHES", fault));
    let load = Load::start(&server, rng.random()).await;
    load.goes_on_for_long().await;
    load.finish(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_converge_when_every_push_is_lost() {
    converges_in_spite_of("lose:all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_converge_when_single_pushes_are_lost_at_random() {
    converges_in_spite_of(&format!("lose:3:{}", seed())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_converge_when_pushes_come_twice_and_in_another_order() {
    converges_in_spite_of(&format!("stir:3:{}", seed())).await;
}
