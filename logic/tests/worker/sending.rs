//! Messages: order, repeats, refusals, and who is told.

use crate::harness::*;
use im_proto::client::{self, ErrorClass, ErrorCode, client_frame::Command, server_frame::Body};
use im_proto::{LogId, UserId};
use im_storage::ports::{Batch, Consumed, Consumer, EntryLog as _, Offset, Partition, Queued, Record, StoreError};
use std::sync::atomic::Ordering;

fn direct(a: &str, b: &str) -> LogId {
    LogId::direct(&user(a), &user(b))
}

#[tokio::test]
async fn a_message_is_stored_and_told_to_all_devices_but_the_sending_one() {
    let world = World::new().await;
    let (sending, other, receiver) =
        (world.phone("a", "1").await, world.phone("a", "2").await, world.phone("b", "1").await);
    let told = world.ask_told(&sending, to_user("b", "hello")).await;
    let log = direct("a", "b");
    assert!(matches!(&told.body, Body::SendAck(ack) if ack.seq == 1 && ack.ordinal == 1
        && ack.conversation_id == log.as_str() && ack.epoch == world.log.epoch().0));
    let expected = vec![(log.as_str().to_owned(), 1)];
    assert_eq!(entries_of(&world.pushes(&receiver, 1).await), expected);
    assert_eq!(entries_of(&world.pushes(&other, 1).await), expected);
    assert!(world.pushed_so_far(&sending).is_empty());
    // All three were told of their user's move; both devices of the sender of the same one.
    assert!(told.inbox.is_some());
    assert_eq!(world.pushed_so_far(&other)[0].inbox, told.inbox);
    assert!(world.pushed_so_far(&receiver)[0].inbox.is_some());
    assert_eq!(world.texts(&log).await, ["hello"]);
}

#[tokio::test]
async fn the_seqs_of_a_conversation_are_dense_in_the_order_of_the_queue() {
    let mut world = World::idle(generous()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let ids: Vec<String> = (0..50).map(|n| format!("m{n}")).collect();
    let commands =
        ids.iter().enumerate().map(|(n, id)| if n % 3 == 0 { (&b, to_user("a", id)) } else { (&a, to_user("b", id)) });
    let commands: Vec<_> = commands.collect();
    let phones: Vec<_> = commands.iter().map(|(phone, _)| (*phone).clone()).collect();
    let requests = world.produce(commands);
    world.start().await;
    for (at, (phone, request)) in phones.iter().zip(requests).enumerate() {
        assert_eq!(acked(&world.answer(phone, request).await.body), at as u64 + 1);
    }
    assert_eq!(world.texts(&direct("a", "b")).await, ids);
    assert_eq!(world.metrics.appends.load(Ordering::Relaxed), 1, "one batch, one append");
    // Entries of one batch are asked for in the order of their seqs.
    let asked = world.log.asked.lock().unwrap();
    assert!(asked[0].windows(2).all(|pair| pair[0].1 < pair[1].1));
}

#[tokio::test]
async fn a_resent_message_gets_the_same_ack_and_is_stored_once() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let first = world.ask(&a, to_user("b", "m")).await;
    // Again, from memory; from another device; and both at once.
    assert_eq!(world.ask(&a, to_user("b", "m")).await, first);
    let other = world.phone("a", "2").await;
    let both = world.ask_all(vec![(&a, to_user("b", "m")), (&other, to_user("b", "m"))]).await;
    assert_eq!(both, [first.clone(), first.clone()]);
    // After a restart only the store knows.
    drop((a, b, other));
    let world = world.crash_and_restart().await;
    let a = world.phone("a", "1").await;
    assert_eq!(world.ask(&a, to_user("b", "m")).await, first);
    assert_eq!(world.texts(&direct("a", "b")).await, ["m"]);
}

#[tokio::test]
async fn many_resends_after_a_restart_cost_few_appends() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let sends = || (0..100).map(|n| to_user("b", &format!("m{n}")));
    let first = world.ask_all(sends().map(|send| (&a, send)).collect()).await;
    let mut world = world.crash_and_restart().await;
    let a = world.phone("a", "1").await;
    let again = world.ask_all(sends().map(|send| (&a, send)).collect()).await;
    assert_eq!(again, first);
    assert!(world.metrics.appends.load(Ordering::Relaxed) <= 2);
    world.worker.take().unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_conflict() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 1);
    let other_body = |after: &str| {
        Command::Send(client::Send {
            to: Some(client::send::To::UserId("b".into())),
            client_message_id: "m".into(),
            after: after.into(),
            body: body_of("something else"),
        })
    };
    assert_eq!(refused(&world.ask(&a, other_body("")).await), ErrorCode::Conflict);
    // `after` is no part of the content.
    assert_eq!(acked(&world.ask(&a, to_user_after("b", "m", "never-sent")).await), 1);
    let world = world.crash_and_restart().await;
    let a = world.phone("a", "1").await;
    assert_eq!(refused(&world.ask(&a, other_body("")).await), ErrorCode::Conflict);
    // Within one batch, too.
    let both = world.ask_all(vec![
        (&a, to_user("c", "n")),
        (&a, {
            let Command::Send(mut send) = to_user("c", "n") else { unreachable!() };
            send.body = body_of("x");
            Command::Send(send)
        }),
    ]);
    let both = both.await;
    assert_eq!((acked(&both[0]), refused(&both[1])), (1, ErrorCode::Conflict));
    assert_eq!(world.texts(&direct("a", "b")).await, ["m"]);
}

#[tokio::test]
async fn a_send_waits_for_the_one_it_names() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let too_early = world.ask(&a, to_user_after("b", "m2", "m1")).await;
    assert_eq!(refused(&too_early), ErrorCode::OutOfOrder);
    assert!(matches!(&too_early, Body::Error(error) if error.class() == ErrorClass::Retry && error.retry_after_ms > 0));
    // Earlier in the same batch; stored; stored and forgotten.
    let both = world.ask_all(vec![(&a, to_user("b", "m1")), (&a, to_user_after("b", "m2", "m1"))]).await;
    assert_eq!(both.iter().map(acked).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(acked(&world.ask(&a, to_user_after("b", "m3", "m2")).await), 3);
    let world = world.crash_and_restart().await;
    let a = world.phone("a", "1").await;
    assert_eq!(acked(&world.ask(&a, to_user_after("b", "m4", "m3")).await), 4);
    assert_eq!(world.texts(&direct("a", "b")).await, ["m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_send_behind_a_refused_one_is_not_stored_before_its_sender_knows_of_the_refusal() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&b, create("g", &[])).await);
    let group = LogId::group(&user("b"), &im_proto::ClientId::parse("g").unwrap());
    // "a" is no member, then is one. m2 names the refused m1: were it stored, a sender that never heard of the refusal and
    // sends m1 again would have m1 behind m2.
    let after = |id: &str, after: &str| {
        let Command::Send(send) = to_log(&group, id) else { unreachable!() };
        Command::Send(client::Send { after: after.into(), ..send })
    };
    let bodies = world
        .ask_all(vec![(&a, to_log(&group, "m1")), (&b, add(&group, "add", &["a"])), (&a, after("m2", "m1"))])
        .await;
    assert_eq!(refused(&bodies[0]), ErrorCode::NotAllowed);
    assert_eq!(refused(&bodies[2]), ErrorCode::OutOfOrder);
    // Who heard of it names it no more; who did not sends both again.
    assert_eq!(acked(&world.ask(&a, to_log(&group, "m3")).await), 3);
    let again = world.ask_all(vec![(&a, to_log(&group, "m1")), (&a, after("m2", "m1"))]).await;
    assert_eq!(again.iter().map(acked).collect::<Vec<_>>(), [4, 5]);
}

#[tokio::test]
async fn a_pipeline_of_somebody_who_is_no_member_ends_at_once_and_costs_a_look_up_a_command() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&b, create("g", &[])).await);
    let group = LogId::group(&b.user, &im_proto::ClientId::parse("g").unwrap());
    let pipeline = |to: &LogId| {
        let ids = ["m1", "m2", "m3", "m4", "m5"];
        let behind = |(at, id): (usize, &&str)| {
            let Command::Send(send) = to_log(to, id) else { unreachable!() };
            let after = at.checked_sub(1).map(|before| ids[before].to_owned()).unwrap_or_default();
            Command::Send(client::Send { after, ..send })
        };
        ids.iter().enumerate().map(behind).map(|command| (&a, command)).collect::<Vec<_>>()
    };
    let looked_up = world.log.look_ups.load(Ordering::Relaxed);
    let answers = world.ask_all(pipeline(&group)).await;
    assert_eq!(answers.iter().map(refused).collect::<Vec<_>>(), [ErrorCode::NotAllowed; 5]);
    assert_eq!(world.log.look_ups.load(Ordering::Relaxed) - looked_up, 5);
    // What is behind a command that may still come is told to come again, and nothing of it is looked up.
    let missing = LogId::group(&a.user, &im_proto::ClientId::parse("not-yet").unwrap());
    let behind_a_creation = pipeline(&missing).into_iter().skip(1).collect();
    let looked_up = world.log.look_ups.load(Ordering::Relaxed);
    let answers = world.ask_all(behind_a_creation).await;
    assert_eq!(answers.iter().map(refused).collect::<Vec<_>>(), [ErrorCode::OutOfOrder; 4]);
    assert_eq!(world.log.look_ups.load(Ordering::Relaxed) - looked_up, 1);
}

#[tokio::test]
async fn what_is_absent_and_what_is_forbidden_are_refused_alike() {
    let world = World::new().await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    acked(&world.ask(&a, to_user("b", "m")).await);
    acked(&world.ask(&a, create("g", &["b"])).await);
    let group = LogId::group(&a.user, &im_proto::ClientId::parse("g").unwrap());
    let mut answers = Vec::new();
    for log in [direct("a", "b"), direct("a", "x"), group, LogId::user(&b.user), LogId::parse("nonsense").unwrap()] {
        answers.push(world.ask(&c, to_log(&log, "m")).await);
    }
    assert_eq!(refused(&answers[0]), ErrorCode::NotAllowed);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    // Addressed by its id, a direct conversation must have begun; its members then may write.
    assert_eq!(acked(&world.ask(&b, to_log(&direct("a", "b"), "n")).await), 2);
}

#[tokio::test]
async fn malformed_commands_are_refused_and_nothing_is_stored() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let send = |change: &dyn Fn(&mut client::Send)| {
        let Command::Send(mut send) = to_user("b", "m") else { unreachable!() };
        change(&mut send);
        Command::Send(send)
    };
    let cases = [
        (send(&|send| send.client_message_id = String::new()), ErrorCode::InvalidArgument),
        (send(&|send| send.client_message_id = "x".repeat(65)), ErrorCode::InvalidArgument),
        (send(&|send| send.after = "no id".into()), ErrorCode::InvalidArgument),
        (send(&|send| send.after = "m".into()), ErrorCode::InvalidArgument),
        (send(&|send| send.body = vec![0xff].into()), ErrorCode::InvalidArgument),
        // A text that is not UTF-8.
        (send(&|send| send.body = vec![0x0a, 1, 0xff].into()), ErrorCode::InvalidArgument),
        (send(&|send| send.body = vec![0; 16 * 1024 + 1].into()), ErrorCode::TooLarge),
    ];
    for (command, code) in cases {
        assert_eq!(refused(&world.ask(&a, command.clone()).await), code, "{command:?}");
    }
    assert!(world.entries(&direct("a", "b")).await.is_empty());
}

#[tokio::test]
async fn the_body_is_stored_as_the_very_bytes_that_came() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    // Fields this server does not know, and one written twice.
    let mut body = body_of("first").to_vec();
    body.extend(body_of("hi"));
    body.extend([0xfa, 0x3e, 3, 1, 2, 3]);
    let Command::Send(send) = to_user("b", "m") else { unreachable!() };
    acked(&world.ask(&a, Command::Send(client::Send { body: body.clone().into(), ..send })).await);
    let pushed = world.pushes(&b, 1).await;
    let Body::Entry(pushed) = &pushed[0].body else { panic!() };
    let pulled = world.pull(&b, &direct("a", "b"), 1).await.unwrap();
    for entry in [pushed.entry.as_ref().unwrap(), &pulled.entries[0]] {
        let Some(client::entry::Content::Message(message)) = &entry.content else { panic!() };
        assert_eq!(message.body, body);
    }
}

#[tokio::test]
async fn a_conversation_with_oneself_has_one_member_and_syncs_ones_devices() {
    let world = World::new().await;
    let (sending, other) = (world.phone("a", "1").await, world.phone("a", "2").await);
    assert_eq!(acked(&world.ask(&sending, to_user("a", "note")).await), 1);
    assert_eq!(entries_of(&world.pushes(&other, 1).await), [(direct("a", "a").as_str().to_owned(), 1)]);
    assert!(world.pushed_so_far(&sending).is_empty());
    let synced = world.sync(&other, &Default::default(), 0).await.unwrap();
    let state = &synced.conversations[0];
    assert_eq!((state.peer_user_id.as_str(), state.head_seq, state.read_seq), ("a", 1, 1));
}

#[tokio::test]
async fn ones_own_message_counts_as_read_and_the_others_does_not() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    for id in ["1", "2", "3"] {
        acked(&world.ask(&a, to_user("b", id)).await);
    }
    let unread = async |phone: &Phone| {
        let state = world.sync(phone, &Default::default(), 0).await.unwrap().conversations.remove(0);
        state.head_ordinal - state.read_ordinal.max(state.floor_ordinal)
    };
    assert_eq!((unread(&a).await, unread(&b).await), (0, 3));
    acked(&world.ask(&b, to_user("a", "4")).await);
    assert_eq!((unread(&a).await, unread(&b).await), (1, 0));
}

#[tokio::test]
async fn a_command_that_waited_too_long_is_not_stored() {
    let config = im_logic::LogicConfig { upstream_age_max_ms: 20, ..generous() };
    let mut world = World::idle(config).await;
    let a = world.phone("a", "1").await;
    let ids = world.produce(vec![(&a, to_user("b", "ghost"))]);
    tokio::time::sleep(std::time::Duration::from_millis(40)).await;
    world.start().await;
    let answer = world.answer(&a, ids[0]).await.body;
    assert!(matches!(&answer, Body::Error(error) if error.class() == ErrorClass::Retry));
    assert!(world.entries(&direct("a", "b")).await.is_empty());
}

#[tokio::test]
async fn a_user_that_writes_too_fast_is_told_when_to_go_on() {
    let config = im_logic::LogicConfig { send_rate_per_user_per_s: 1, send_burst_per_user: 2, ..generous() };
    let world = World::with(config).await;
    let (a, c) = (world.phone("a", "1").await, world.phone("c", "1").await);
    let sends = ["1", "2", "3"].map(|id| (&a, to_user("b", id)));
    let mut sends = Vec::from(sends);
    sends.push((&c, to_user("b", "4")));
    let answers = world.ask_all(sends).await;
    assert!(matches!(&answers[2], Body::Error(error)
        if error.class() == ErrorClass::Busy && error.code() == ErrorCode::RateLimited && error.retry_after_ms > 0));
    assert_eq!(acked(&answers[3]), 1);
    assert_eq!(world.texts(&direct("a", "b")).await, ["1", "2"]);
}

#[tokio::test]
async fn an_offset_is_committed_only_behind_the_answers() {
    // A queue that gives one batch, and looks at its commit what had been told by then.
    struct OneBatch {
        consumed: Vec<Consumed>,
        told_at_commit: tokio::sync::mpsc::UnboundedSender<u64>,
        answers: Box<dyn Fn() -> u64 + Send>,
    }
    #[async_trait::async_trait]
    impl Consumer for OneBatch {
        async fn next(&mut self, _records_max: usize) -> Result<Option<Consumed>, StoreError> {
            Ok(self.consumed.pop())
        }
        async fn commit(&mut self, _partition: Partition, _offset: Offset) -> Result<(), StoreError> {
            let _ = self.told_at_commit.send((self.answers)());
            Ok(())
        }
    }
    let mut world = World::idle(generous()).await;
    let a = world.phone("a", "1").await;
    let partition = Partition(0);
    let record = record(&a, 1, to_user("b", "m"));
    let records =
        vec![Queued { offset: Offset(4), record, since: std::time::Instant::now(), may_repeat: false, odd_key: None }];
    let (told_at_commit, mut committed) = tokio::sync::mpsc::unbounded_channel();
    let metrics = world.metrics.clone();
    let consumed = vec![Consumed::Records(Batch { partition, records }), Consumed::Gained(partition)];
    let answers = Box::new(move || metrics.answers.load(Ordering::Relaxed));
    let consumer = OneBatch { consumed, told_at_commit, answers };
    world.start_on(Box::new(consumer)).await;
    assert_eq!(committed.recv().await, Some(1), "committed before the answer was handed on");
}

#[tokio::test]
async fn an_ack_means_that_the_entry_is_stored() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    // The first append is lost without a trace: an answer before the second would be a lie.
    world.log.fail(Fault::Unknown { told: 0, landed: 0 });
    let ids = world.produce(vec![(&a, to_user("b", "m"))]);
    let answer = world.answer(&a, ids[0]).await;
    assert_eq!(acked(&answer.body), 1);
    assert_eq!(world.texts(&direct("a", "b")).await, ["m"]);
    assert_eq!(world.log.asked.lock().unwrap().len(), 2);
    let _: &UserId = &a.user;
}

/// F39: workers are restarted one after another, and so are gateways.
#[tokio::test]
async fn a_record_of_a_newer_gateway_is_worked_off_without_what_is_unknown_here() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let record = record(&a, 900, to_user("b", "1"));
    // Field 1000, a varint.
    let upstream = [&record.upstream[..], &[0xc0, 0x3e, 0x01]].concat();
    world.ports.queue.produce(&mut vec![Record { upstream: upstream.into(), ..record }]);
    assert_eq!(acked(&world.answer(&a, 900).await.body), 1);
    world.pushes(&b, 1).await;
}
