//! Read cursors and pulls.

use crate::harness::*;
use im_proto::client::{self, ErrorCode, entry::Content, server_frame::Body};
use im_proto::{ClientId, LogId, Seq, internal};
use im_storage::ports::NewEntry;
use prost::Message as _;

#[track_caller]
fn marked(body: &Body) -> (u64, u64) {
    match body {
        Body::ReadMarked(marked) => (marked.read_seq, marked.read_ordinal),
        other => panic!("not marked: {other:?}"),
    }
}

#[tokio::test]
async fn a_moved_cursor_reaches_own_devices_as_an_entry_and_others_as_a_receipt() {
    let world = World::new().await;
    let (a, b1, b2) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("b", "2").await);
    for id in ["1", "2", "3"] {
        acked(&world.ask(&a, to_user("b", id)).await);
    }
    let log = LogId::direct(&a.user, &b1.user);
    let told = world.ask_told(&b1, mark_read(&world, &log, "r", 2)).await;
    assert_eq!(marked(&told.body), (2, 2));
    assert!(told.inbox.is_some());
    let own = LogId::user(&b1.user).as_str().to_owned();
    let pushed = world.pushes(&b2, 4).await;
    assert_eq!(entries_of(&pushed)[3], (own, 1));
    assert_eq!(pushed[3].inbox, told.inbox);
    let receipts = world.pushes(&a, 1).await;
    assert!(matches!(&receipts[0].body, Body::Receipt(receipt)
        if receipt.read_seq == 2 && receipt.user_id == "b" && receipt.conversation_id == log.as_str()));
    // A lost receipt is found by sync: the conversation moved for the other one too.
    assert!(receipts[0].inbox.is_some());
    let state = world.sync(&a, &Default::default(), 0).await.unwrap().conversations.remove(0);
    assert_eq!(state.peer_read_seq, 2);
    // The three messages, the receipt's touch aside, moved nobody's head.
    assert_eq!(state.head_seq, 3);
}

#[tokio::test]
async fn a_cursor_only_rises_and_an_equal_or_lower_one_writes_nothing() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    for id in ["1", "2", "3", "4"] {
        acked(&world.ask(&a, to_user("b", id)).await);
    }
    let log = LogId::direct(&a.user, &b.user);
    let mark = |id: &str, seq| (&b, mark_read(&world, &log, id, seq));
    // In one batch the cursor of the first must hold for the next, though the inbox has it only later.
    let answers = world.ask_all(vec![mark("r1", 3), mark("r2", 1), mark("r3", 3)]).await;
    assert_eq!(answers.iter().map(marked).collect::<Vec<_>>(), [(3, 3), (3, 3), (3, 3)]);
    assert_eq!(marked(&world.ask(&b, mark("r4", 2).1).await), (3, 3));
    assert_eq!(marked(&world.ask(&b, mark("r5", 0).1).await), (3, 3));
    assert_eq!(world.entries(&LogId::user(&b.user)).await.len(), 1);
    assert_eq!(marked(&world.ask(&b, mark("r6", 4).1).await), (4, 4));
    assert_eq!(world.entries(&LogId::user(&b.user)).await.len(), 2);
    // Sent again, also with what is by now a lower cursor.
    assert_eq!(marked(&world.ask(&b, mark("r1", 3).1).await), (4, 4));
}

#[tokio::test]
async fn a_cursor_above_the_head_or_of_another_epoch_is_reset() {
    let world = World::new().await;
    let (a, b, x) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("x", "1").await);
    acked(&world.ask(&a, to_user("b", "1")).await);
    let log = LogId::direct(&a.user, &b.user);
    assert_eq!(refused(&world.ask(&b, mark_read(&world, &log, "r1", 2)).await), ErrorCode::Reset);
    let im_proto::client::client_frame::Command::MarkRead(mut other) = mark_read(&world, &log, "r2", 1) else {
        unreachable!()
    };
    other.epoch += 1;
    let other = im_proto::client::client_frame::Command::MarkRead(other);
    assert_eq!(refused(&world.ask(&b, other).await), ErrorCode::Reset);
    for foreign in [log, LogId::direct(&x.user, &x.user), LogId::user(&x.user)] {
        let refusal = world.ask(&x, mark_read(&world, &foreign, "r", 1)).await;
        assert_eq!(refused(&refusal), ErrorCode::NotAllowed);
    }
}

#[tokio::test]
async fn a_pull_answers_every_seq_of_its_range() {
    let world = World::new().await;
    let (a, b, x) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("x", "1").await);
    let sends: Vec<_> = (1..=450).map(|n| (&a, to_user("b", &format!("m{n}")))).collect();
    world.ask_all(sends).await;
    let log = LogId::direct(&a.user, &b.user);
    let mut from = 1;
    while from <= 450 {
        let pulled = world.pull(&b, &log, from).await.unwrap();
        assert_eq!(pulled.head_seq, 450);
        for entry in pulled.entries {
            assert_eq!(entry.seq, from);
            assert_eq!(text_of(&entry).unwrap(), format!("m{from}"));
            from += 1;
        }
    }
    assert!(world.pull(&b, &log, 451).await.unwrap().entries.is_empty());
    assert_eq!(world.pull(&b, &log, 452).await.unwrap_err().code(), ErrorCode::Reset);
    assert_eq!(world.pull(&b, &log, 0).await.unwrap_err().code(), ErrorCode::InvalidArgument);
    assert_eq!(world.pull(&x, &log, 1).await.unwrap_err().code(), ErrorCode::NotAllowed);
    let own = LogId::user(&b.user);
    assert!(world.pull(&b, &own, 1).await.unwrap().entries.is_empty());
    assert_eq!(world.pull(&a, &own, 1).await.unwrap_err().code(), ErrorCode::NotAllowed);
}

#[tokio::test]
async fn a_pull_of_large_entries_stays_below_the_frame_limit() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let big = "x".repeat(16_000);
    for n in 0..30 {
        let im_proto::client::client_frame::Command::Send(mut send) = to_user("b", &format!("m{n}")) else {
            unreachable!()
        };
        send.body = body_of(&big);
        acked(&world.ask(&a, im_proto::client::client_frame::Command::Send(send)).await);
    }
    let pulled = world.pull(&b, &LogId::direct(&a.user, &b.user), 1).await.unwrap();
    assert!((5..30).contains(&pulled.entries.len()), "{}", pulled.entries.len());
    assert_eq!(pulled.head_seq, 30);
}

#[tokio::test]
async fn receipts_go_to_few_and_nobody_in_a_large_group() {
    let config = im_logic::LogicConfig { receipts_members_max: 2, ..generous() };
    let world = World::with(config).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    acked(&world.ask(&a, to_log(&group, "m")).await);
    let before = world.versions(&[&a]).await;
    assert_eq!(marked(&world.ask(&b, mark_read(&world, &group, "r", 2)).await), (2, 1));
    assert_eq!(world.versions(&[&a]).await, before);
    assert!(world.pushed_so_far(&a).is_empty());
}

#[tokio::test]
async fn a_member_whose_removal_is_stored_but_not_projected_reads_nothing_behind_it() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, create("g", &["b"])).await);
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    assert_eq!(world.pull(&b, &group, 1).await.unwrap().entries.len(), 1);
    // Another owner stores the removal and a message, and dies before the projections know.
    let content = |content| client::Entry {
        ordinal: 1,
        sender_user_id: "a".into(),
        content: Some(content),
        ..Default::default()
    };
    let removed = content(Content::MemberRemoved(client::MemberRemoved { user_id: "b".into() }));
    let message = content(Content::Message(client::Message { body: body_of("secret"), ..Default::default() }));
    let entries = [removed, message].into_iter().zip(2..).map(|(entry, seq)| {
        let entry = client::Entry { seq, ..entry }.encode_to_vec().into();
        let content_hash = vec![0; 16].into();
        let stored = internal::StoredEntry { entry, content_hash, members_seq: 2, members: 1, ..Default::default() };
        NewEntry {
            log: group.clone(),
            seq: Seq(seq),
            sender: a.user.clone(),
            client_id: ClientId::parse(&format!("foreign-{seq}")).unwrap(),
            stored: stored.encode_to_vec().into(),
        }
    });
    assert!(world.ports.log.append(entries.collect()).await.stop.is_none());
    for from_seq in [1, 2, 3] {
        let refusal = world.pull(&b, &group, from_seq).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::Unavailable, "from {from_seq}");
    }
    // The next owner repeats them; then the removed member reads up to its removal.
    let world = world.crash_and_restart().await;
    let pulled = world.pull(&b, &group, 1).await.unwrap();
    assert_eq!((pulled.entries.len(), pulled.head_seq), (2, 2));
}
