//! Another owner, lost results, stores that are away: the insert decides, and everybody ends with the same log.

use crate::harness::*;
use im_proto::LogId;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Barrier;

fn log_ab() -> LogId {
    LogId::direct(&user("a"), &user("b"))
}

/// Commands of two conversations, interleaved, each naming the one before it in its conversation.
fn pipeline(count: usize) -> Vec<(&'static str, String, String)> {
    let id = |n: usize| format!("m{n}");
    (0..count).map(|n| (["b", "c"][n % 2], id(n), if n >= 2 { id(n - 2) } else { String::new() })).collect()
}

/// Runs the pipeline as one batch under a fault, then checks everything a client could see.
async fn run(fault: Fault, count: usize) -> World {
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    // A conversation that is known, so that the head is cached when the fault comes.
    let sends = pipeline(count);
    let requests = world.produce(sends.iter().map(|(to, id, after)| (&a, to_user_after(to, id, after))).collect());
    world.log.fail(fault);
    world.start().await;
    let mut seqs = HashSet::new();
    for ((to, id, _), request) in sends.iter().zip(requests) {
        let seq = acked(&world.answer(&a, request).await.body);
        assert!(seqs.insert((*to, seq)), "a seq was given twice");
        let entry = &world.entries(&LogId::direct(&a.user, &user(to))).await[seq as usize - 1];
        assert_eq!((entry.client_id.as_str(), text_of(entry).as_ref()), (id.as_str(), Some(id)), "the ack's entry");
    }
    for to in ["b", "c"] {
        let own: Vec<String> = world
            .entries(&LogId::direct(&a.user, &user(to)))
            .await
            .into_iter()
            .map(|entry| entry.client_id)
            .filter(|id| !id.starts_with("zombie"))
            .collect();
        let sent: Vec<String> = sends.iter().filter(|(of, _, _)| *of == to).map(|(_, id, _)| id.clone()).collect();
        assert_eq!(own, sent, "stored once each, in the order of sending");
    }
    // The receiver was told of every entry, the foreign ones included, and its inbox knows the head.
    let head = world.entries(&log_ab()).await.len();
    let told: HashSet<_> = entries_of(&world.pushes(&b, head).await).into_iter().collect();
    assert_eq!(told.len(), head);
    let page = world.ports.inbox.since(&b.user, Default::default(), 10).await.unwrap();
    assert_eq!(page.rows[0].head.0 as usize, head);
    world
}

#[tokio::test]
async fn a_place_taken_by_another_owner_is_gone_around_at_every_index() {
    for at in 0..8 {
        let world = run(Fault::Zombie { at }, 8).await;
        assert!(world.metrics.foreign_entries.load(Ordering::Relaxed) > 0);
    }
}

#[tokio::test]
async fn a_batch_that_another_owner_stored_before_is_answered_and_not_stored_again() {
    for to in 1..=8 {
        run(Fault::WrittenBefore { to }, 8).await;
    }
}

/// Memory has forgotten the first of a batch: behind it everything is looked up. One after the other that would never end here,
/// and at a slow store take longer than the senders wait.
#[tokio::test]
async fn the_look_ups_of_a_batch_are_made_side_by_side() {
    const COUNT: usize = 9;
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    assert_eq!(acked(&world.ask(&a, to_user("b", "m0")).await), 1);
    let mut world = world.crash().await;
    let a = world.phone("a", "1").await;
    *world.log.look_ups_together.lock().unwrap() = Some(Arc::new(Barrier::new(COUNT)));
    let requests = world.produce((0..COUNT).map(|n| (&a, to_user("b", &format!("m{n}")))).collect());
    world.start().await;
    for (seq, request) in (1..).zip(requests) {
        assert_eq!(acked(&world.answer(&a, request).await.body), seq);
    }
    assert_eq!(world.log.look_ups.load(Ordering::Relaxed), COUNT as u64);
}

#[tokio::test]
async fn an_unknown_result_is_settled_by_reading_wherever_it_stopped() {
    for landed in [0, 1, 3, 8] {
        for told in [0, 1, 3].into_iter().filter(|told| *told <= landed) {
            run(Fault::Unknown { told, landed }, 8).await;
        }
    }
}

#[tokio::test]
async fn a_write_that_lands_late_is_stored_once() {
    run(Fault::LandsLater, 8).await;
}

#[tokio::test]
async fn stores_that_are_away_hold_the_batch_up_and_lose_nothing() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    world.log.reads_failing.store(3, Ordering::SeqCst);
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 1);
    assert!(world.metrics.store_errors.load(Ordering::Relaxed) >= 3);
    world.log.reads_failing.store(2, Ordering::SeqCst);
    world.log.fail(Fault::Unknown { told: 0, landed: 1 });
    assert_eq!(acked(&world.ask(&a, to_user("b", "n")).await), 2);
    assert_eq!(world.texts(&log_ab()).await, ["m", "n"]);
}

#[tokio::test]
async fn a_damaged_log_turns_away_its_own_commands_only() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    *world.log.damaged.lock().unwrap() = Some(log_ab());
    let answers = world.ask_all(vec![(&a, to_user("b", "1")), (&a, to_user("c", "2")), (&a, to_user("b", "3"))]).await;
    assert_eq!(acked(&answers[1]), 1);
    for turned_away in [&answers[0], &answers[2]] {
        assert_eq!(refused(turned_away), im_proto::client::ErrorCode::Unavailable);
    }
    assert!(world.pull(&a, &log_ab(), 1).await.is_err());
    *world.log.damaged.lock().unwrap() = None;
    assert_eq!(acked(&world.ask(&a, to_user("b", "1")).await), 1);
}

#[tokio::test]
async fn a_read_while_the_store_is_away_is_told_to_try_again() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, to_user("b", "m")).await);
    world.log.reads_failing.store(2, Ordering::SeqCst);
    for refusal in
        [world.pull(&a, &log_ab(), 1).await.unwrap_err(), world.sync(&a, &Default::default(), 0).await.unwrap_err()]
    {
        assert_eq!(refusal.class(), im_proto::client::ErrorClass::Retry);
    }
    assert!(world.pull(&a, &log_ab(), 1).await.is_ok());
}

#[tokio::test]
async fn a_worker_told_to_stop_while_a_store_is_away_stops() {
    let mut world = World::new().await;
    let a = world.phone("a", "1").await;
    world.log.reads_failing.store(u64::MAX, Ordering::SeqCst);
    world.produce(vec![(&a, to_user("b", "m"))]);
    while world.metrics.store_errors.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    world.worker.take().unwrap().stop().await.unwrap();
    assert!(world.entries(&log_ab()).await.is_empty());
}

#[tokio::test]
async fn a_command_that_never_finds_a_free_place_is_told_to_try_again() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    for _ in 0..9 {
        world.log.fail(Fault::Zombie { at: 0 });
    }
    let answer = world.ask(&a, to_user("b", "m")).await;
    assert_eq!(refused(&answer), im_proto::client::ErrorCode::Unavailable);
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 10);
}

#[tokio::test]
async fn a_refusal_is_checked_against_what_another_owner_wrote() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, create("g", &["c"])).await);
    let group = LogId::group(&a.user, &im_proto::ClientId::parse("g").unwrap());
    // Another worker adds "b"; this one still remembers the group without it.
    let other = im_logic::Logic::new(world.ports.clone(), generous());
    let (queue, mut consumers) = im_storage::embedded::EmbeddedQueue::new(1, 10);
    let mut worker = other.spawn_worker(Box::new(consumers.pop().unwrap()));
    assert!(worker.ready().await);
    let mut records = vec![record(&a, 77_001, add(&group, "add", &["b"]))];
    im_storage::ports::Queue::produce(&*queue, &mut records);
    assert_eq!(acked(&world.answer(&a, 77_001).await.body), 2);
    assert_eq!(acked(&world.ask(&b, to_log(&group, "m")).await), 3);
}
