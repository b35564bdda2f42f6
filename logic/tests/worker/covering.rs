//! Covering, and read cursors on their way to the directory: messages wait for neither.

use crate::harness::*;
use im_logic::LogicConfig;
use im_proto::client::ErrorCode;
use im_proto::client::server_frame::Body;
use im_proto::{ClientId, LogId, Seq, UserId};
use std::sync::atomic::Ordering;

/// Covers all the time.
fn restless() -> LogicConfig {
    LogicConfig { cover_interval_ms: 5, claim_check_interval_ms: 5, ..generous() }
}

/// Returns when the directory knows that each of these has read up to its seq.
async fn known_to_have_read(world: &World, log: &LogId, reads: &[(UserId, u64)]) {
    let asked: Vec<_> = reads.iter().map(|(user, _)| (log.clone(), user.clone())).collect();
    let wanted: Vec<Seq> = reads.iter().map(|(_, seq)| Seq(*seq)).collect();
    let known = async {
        loop {
            let known: Vec<Seq> =
                world.ports.directory.reads(&asked).await.unwrap().iter().map(|read| read.seq).collect();
            if known == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.expect("the directory never heard of read cursors");
}

#[tokio::test]
async fn a_directory_that_never_answers_keeps_no_message_of_a_known_conversation_waiting() {
    let world = World::with(restless()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let log = LogId::direct(&a.user, &b.user);
    acked(&world.ask(&a, to_user("b", "first")).await);
    world.directory.set_silent(true);
    // One by one, so that the clock of covers goes off in between.
    for n in 2..=200 {
        assert_eq!(acked(&world.ask(&a, to_user("b", &format!("m{n}"))).await), n);
    }
    // It is not known what the cursor points at; the message behind it waits for no more than that.
    let told = world.produce(vec![(&b, mark_read(&world, &log, "r", 2)), (&a, to_user("b", "m201"))]);
    assert_eq!(acked(&world.answer(&a, told[1]).await.body), 201);
    assert_eq!(refused(&world.answer(&b, told[0]).await.body), ErrorCode::Unavailable);
    world.directory.set_silent(false);
    known_to_have_read(&world, &log, &[(a.user.clone(), 201)]).await;
}

#[tokio::test]
async fn read_cursors_that_the_directory_does_not_take_are_bounded_and_found_again_in_the_log() {
    let world = World::with(LogicConfig { reads_waiting_max: 4, ..restless() }).await;
    let a = world.phone("a", "1").await;
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    let names: Vec<String> = (0..12).map(|n| format!("u{n}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    acked(&world.ask(&a, create("g", &members)).await);
    world.directory.set_silent(true);
    let mut reads = Vec::new();
    for (name, seq) in names.iter().zip(2..) {
        let sender = world.phone(name, "1").await;
        assert_eq!(acked(&world.ask(&sender, to_log(&group, name)).await), seq);
        reads.push((sender.user, seq));
    }
    world.directory.set_silent(false);
    known_to_have_read(&world, &group, &reads).await;
}

#[tokio::test]
async fn who_gets_a_receipt_keeps_no_other_message_waiting_and_is_told_when_the_directory_says_it() {
    let world = World::with(restless()).await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    let log = LogId::direct(&a.user, &b.user);
    acked(&world.ask(&a, to_user("b", "first")).await);
    acked(&world.ask(&a, to_user("c", "first")).await);
    let caught_up = world.metrics.caught_up_entries.load(Ordering::Relaxed);
    let version = world.versions(&[&a]).await;
    world.directory.set_listing_none(true);
    let told = world.produce(vec![(&b, mark_read(&world, &log, "r", 1)), (&c, to_user("b", "second"))]);
    assert!(matches!(world.answer(&b, told[0]).await.body, Body::ReadMarked(_)));
    assert_eq!(acked(&world.answer(&c, told[1]).await.body), 1);
    // The inbox was never away: who wrote nothing is pushed to.
    world.pushes(&b, 2).await;
    assert_eq!(world.versions(&[&a]).await, version);
    world.directory.set_listing_none(false);
    let moved = async {
        while world.versions(&[&a]).await <= version {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("the receipt was forgotten");
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), caught_up, "nothing was repeated");
}

/// Somebody reads all the time, and the directory was slow once.
#[tokio::test]
async fn receipts_are_pushed_again_when_the_directory_is_back() {
    let world = World::with(restless()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let log = LogId::direct(&a.user, &b.user);
    world.directory.set_listing_none(true);
    let read = async |seq: u64| {
        assert_eq!(acked(&world.ask(&a, to_user("b", &format!("m{seq}"))).await), seq);
        let read = world.ask(&b, mark_read(&world, &log, &format!("r{seq}"), seq)).await;
        assert!(matches!(read, Body::ReadMarked(_)));
    };
    read(1).await;
    world.directory.set_listing_none(false);
    let pushed = async {
        for seq in 2.. {
            read(seq).await;
            if world.pushed_so_far(&a).iter().any(|told| matches!(told.body, Body::Receipt(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, pushed).await.expect("no receipt is pushed any more");
}
