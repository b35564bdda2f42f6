//! A queue that repeats what was decided: offsets were lost, or a worker died before it committed.

use crate::harness::*;
use im_proto::client::{ErrorClass, client_frame::Command, server_frame::Body};
use im_proto::{LogId, Seq};
use im_storage::ports::{Batch, Consumed, Consumer, NewEntry, Offset, Partition, Queued, StoreError};
use std::time::Instant;

const PARTITION: Partition = Partition(0);

/// Gives what it was given, the last first, and then ends.
struct Given(Vec<Consumed>);

#[async_trait::async_trait]
impl Consumer for Given {
    async fn next(&mut self, _records_max: usize) -> Result<Option<Consumed>, StoreError> {
        Ok(self.0.pop())
    }

    async fn commit(&mut self, _partition: Partition, _offset: Offset) -> Result<(), StoreError> {
        Ok(())
    }
}

fn batch(from: u64, may_repeat: bool, commands: &[(u64, &Phone, Command)]) -> Consumed {
    batch_of(PARTITION, from, may_repeat, commands)
}

fn batch_of(partition: Partition, from: u64, may_repeat: bool, commands: &[(u64, &Phone, Command)]) -> Consumed {
    let queued = |(offset, (request_id, phone, command)): (u64, &(u64, &Phone, Command))| {
        let record = record(phone, *request_id, command.clone());
        Queued { offset: Offset(offset), record, since: Instant::now(), may_repeat, odd_key: None }
    };
    Consumed::Records(Batch { partition, records: (from..).zip(commands).map(queued).collect() })
}

fn class(body: &Body) -> Option<ErrorClass> {
    if let Body::Error(error) = body { Some(error.class()) } else { None }
}

#[tokio::test]
async fn a_refused_command_that_the_queue_repeats_is_not_stored_when_it_would_be_allowed_now() {
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let group = LogId::group(&a.user, &im_proto::ClientId::parse("g").unwrap());
    let commands = |first: u64| {
        [
            (first, &a, create("g", &["c"])),
            (first + 1, &b, to_log(&group, "m")),
            (first + 2, &a, add(&group, "j", &["b"])),
        ]
    };
    let (once, again) = (batch(0, false, &commands(100)), batch(0, true, &commands(200)));
    // Its sender, who may not have heard, sends it again, and others send too.
    let afresh = batch(3, true, &[(300, &b, to_log(&group, "m")), (301, &a, to_log(&group, "n"))]);
    let gained = || Consumed::Gained(PARTITION);
    world.start_on(Box::new(Given(vec![afresh, again, gained(), once, gained()]))).await;

    assert_eq!(class(&world.answer(&b, 101).await.body), Some(ErrorClass::Final));
    assert_eq!(class(&world.answer(&b, 201).await.body), Some(ErrorClass::Retry));
    for (first, second) in [(100, 200), (102, 202)] {
        assert_eq!(world.answer(&a, first).await.body, world.answer(&a, second).await.body);
    }
    world.answer(&a, 301).await;
    assert_eq!(world.texts(&group).await, ["m", "n"]);
    assert_eq!(world.entries(&group).await.len(), 4);
}

/// More partitions were added: the log's records go another way since, and those in the old one come again.
#[tokio::test]
async fn a_refused_command_of_a_partition_that_the_log_has_left_is_not_stored_when_it_comes_again() {
    const NEW: Partition = Partition(1);
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let group = LogId::group(&a.user, &im_proto::ClientId::parse("g").unwrap());
    let old = |first: u64| [(first, &a, create("g", &["c"])), (first + 1, &b, to_log(&group, "m"))];
    let (once, again) = (batch(500, false, &old(100)), batch(500, true, &old(200)));
    let moved = batch_of(NEW, 0, false, &[(102, &a, add(&group, "j", &["b"]))]);
    // Whoever waits sends it again; by then it is new.
    let resent = batch_of(NEW, 1, false, &[(300, &b, to_log(&group, "m"))]);
    let gained = |partition| Consumed::Gained(partition);
    let given = vec![resent, again, gained(PARTITION), moved, gained(NEW), once, gained(PARTITION)];
    world.start_on(Box::new(Given(given))).await;

    assert_eq!(class(&world.answer(&b, 101).await.body), Some(ErrorClass::Final));
    assert_eq!(world.answer(&a, 100).await.body, world.answer(&a, 200).await.body);
    assert_eq!(class(&world.answer(&b, 201).await.body), Some(ErrorClass::Retry));
    assert_eq!(acked(&world.answer(&b, 300).await.body), 3);
    assert_eq!(world.texts(&group).await, ["m"]);
}

/// A topic that was made anew counts from 0 again.
#[tokio::test]
async fn a_new_command_below_the_offsets_of_old_ones_is_stored() {
    let mut world = World::idle(generous()).await;
    let a = world.phone("a", "1").await;
    let old = batch(1_000, false, &[(1, &a, to_user("b", "1"))]);
    let new = batch(0, false, &[(2, &a, to_user("b", "2"))]);
    // It waited already when the partition was gained, so it cannot be told from a repeated one: its sender repeats it.
    let doubtful = batch(1, true, &[(3, &a, to_user("c", "3")), (4, &a, to_user("b", "4"))]);
    let resent = batch(3, false, &[(5, &a, to_user("b", "4"))]);
    let gained = || Consumed::Gained(PARTITION);
    let older = batch(2_000, false, &[(6, &a, to_user("b", "0"))]);
    world.start_on(Box::new(Given(vec![resent, doubtful, gained(), older, new, old, gained()]))).await;
    assert_eq!(class(&world.answer(&a, 4).await.body), Some(ErrorClass::Retry));
    world.answer(&a, 5).await;
    assert_eq!(world.texts(&LogId::direct(&user("a"), &user("b"))).await, ["1", "2", "0", "4"]);
    assert_eq!(world.texts(&LogId::direct(&user("a"), &user("c"))).await, ["3"]);
}

/// Its writer was replaced, and died before it told anybody; it landed behind the new owner's catching up.
#[tokio::test]
async fn a_stored_entry_that_nobody_was_told_of_is_handed_on_when_it_is_found() {
    let log = LogId::direct(&user("a"), &user("b"));
    let other = World::new().await;
    let a = other.phone("a", "1").await;
    for id in ["1", "2"] {
        acked(&other.ask(&a, to_user("b", id)).await);
    }
    let row = other.log.inner.range(&log, Seq(2), 1, 0).await.unwrap().remove(0);

    let world = World::with(im_logic::LogicConfig { logs_cached_max: 1, ..generous() }).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, to_user("b", "1")).await);
    acked(&world.ask(&a, to_user("c", "other")).await);
    let late = NewEntry {
        log: log.clone(),
        seq: Seq(2),
        sender: a.user.clone(),
        client_id: im_proto::ClientId::parse("2").unwrap(),
        stored: row.stored,
    };
    assert!(world.log.inner.append(vec![late]).await.stop.is_none());
    assert_eq!(acked(&world.ask(&a, to_user("b", "2")).await), 2);
    let of = |seq| (log.as_str().to_owned(), seq);
    assert_eq!(entries_of(&world.pushes(&b, 2).await), [of(1), of(2)]);
    let row = &world.ports.inbox.since(&b.user, Default::default(), 10).await.unwrap().rows[0];
    assert_eq!(row.head, Seq(2));
}

/// They were counted when they came first, and may be stored without anybody having been told.
#[tokio::test]
async fn what_the_queue_repeats_is_not_too_fast() {
    let config = im_logic::LogicConfig { send_rate_per_user_per_s: 1, send_burst_per_user: 2, ..generous() };
    let mut world = World::idle(config).await;
    let a = world.phone("a", "1").await;
    let commands: Vec<_> = (1..=9).map(|id| (id, &a, to_user("b", &id.to_string()))).collect();
    world.start_on(Box::new(Given(vec![batch(0, true, &commands), Consumed::Gained(PARTITION)]))).await;
    for id in 1..=9 {
        assert_eq!(acked(&world.answer(&a, id).await.body), id);
    }
}
