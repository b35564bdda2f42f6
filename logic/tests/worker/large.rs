//! Large conversations: one record a gateway, one row a writer, and a sync that asks the logs.

use crate::harness::*;
use bytes::Bytes;
use im_codec::SessionLimits;
use im_codec::command::{Route, route};
use im_logic::{LargeHead, LogicConfig};
use im_proto::client::{self, client_frame::Command, entry::Content};
use im_proto::{ClientId, LogId, Seq, internal};
use im_storage::ports::NewEntry;
use prost::Message as _;
use std::sync::atomic::Ordering;

fn config() -> LogicConfig {
    LogicConfig { large_members_min: 2, ..generous() }
}

fn group() -> LogId {
    LogId::group(&user("a"), &ClientId::parse("g").unwrap())
}

#[tokio::test]
async fn an_entry_goes_to_the_gateway_once_and_moves_its_senders_row_alone() {
    let world = World::with(config()).await;
    let (a, b, tablet) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("b", "2").await);
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    let before = world.versions(&[&a, &b]).await;
    let moves = world.metrics.moves.load(Ordering::Relaxed);
    let told = world.ask_told(&b, to_log(&group(), "m")).await;
    assert_eq!(acked(&told.body), 2);
    let after = world.versions(&[&a, &b]).await;
    assert_eq!((after[0], after[1] > before[1]), (before[0], true));
    assert_eq!(world.metrics.moves.load(Ordering::Relaxed) - moves, 1);
    let inbox = told.inbox.unwrap();
    assert_eq!((inbox.previous, inbox.version), (before[1].0, after[1].0), "the sender's answer carries its move");
    // Its other device has the entry by the record, and the move by an empty push.
    assert_eq!(world.moves_alone(&tablet, 1).await, [inbox]);
    assert!(world.pushed_so_far(&a).is_empty() && world.pushed_so_far(&b).is_empty());
    let large = world.large(2).await;
    let [created, message] = &large[..] else { panic!("{large:?}") };
    assert_eq!((created.seq, created.members_seq, created.members_seq_before), (1, 1, 0));
    assert_eq!((created.joined.join(" "), created.answered_connection_id), ("a b c".to_owned(), a.connection.0));
    assert_eq!((message.seq, message.members_seq, message.answered_connection_id), (2, 1, b.connection.0));
    assert!(message.joined.is_empty() && message.left.is_empty());
}

#[tokio::test]
async fn an_entry_that_changes_members_names_the_change_before_it() {
    let world = World::with(config()).await;
    let a = world.phone("a", "1").await;
    let commands = [
        create("g", &["b", "c"]),
        to_log(&group(), "m"),
        add(&group(), "add", &["d", "b"]),
        remove(&group(), "rm", "c"),
        add(&group(), "nobody", &["b"]),
    ];
    for command in commands {
        acked(&world.ask(&a, command).await);
    }
    let seqs = |push: &internal::LargePush| (push.seq, push.members_seq, push.members_seq_before);
    let large = world.large(5).await;
    assert_eq!(large.iter().map(seqs).collect::<Vec<_>>(), [(1, 1, 0), (2, 1, 0), (3, 3, 1), (4, 4, 3), (5, 4, 0)]);
    assert_eq!((large[2].joined.join(" "), large[3].left.join(" ")), ("d".to_owned(), "c".to_owned()));
    // Small now: addressed to its members, and the row of each moves.
    acked(&world.ask(&a, remove(&group(), "rm2", "d")).await);
    assert_eq!(world.large(5).await.len(), 5);
    let heads = world.requests.large_heads(&[group()]).await.unwrap();
    assert_eq!(heads, [LargeHead { log: group(), seq: Seq(6), is_large: false }]);
}

#[tokio::test]
async fn gateways_are_told_members_heads_and_whose_conversations_are_large() {
    let world = World::with(config()).await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    acked(&world.ask(&a, create("small", &["b"])).await);
    acked(&world.ask(&a, remove(&group(), "rm", "c")).await);
    acked(&world.ask(&a, add(&group(), "add", &["d"])).await);
    let known = world.requests.large_members(&group()).await.unwrap();
    let members: Vec<_> = known.members.iter().map(|(user, joined)| (user.as_str(), joined.0)).collect();
    assert_eq!((known.members_seq, members), (Seq(3), vec![("a", 1), ("b", 1), ("d", 3)]));
    let absent = LogId::group(&a.user, &ClientId::parse("absent").unwrap());
    assert_eq!(world.requests.large_members(&absent).await.unwrap().members_seq, Seq(0));
    let heads = world.requests.large_heads(&[absent, group()]).await.unwrap();
    assert_eq!(heads, [LargeHead { log: group(), seq: Seq(3), is_large: true }]);
    let of = world.requests.large_of_users(&[user("c"), user("d"), user("b")]).await.unwrap();
    let seqs: Vec<Vec<_>> =
        of.iter().map(|of| of.iter().map(|m| (m.joined_seq.0, m.members_seq.0)).collect()).collect();
    assert_eq!(seqs, [vec![], vec![(3, 3)], vec![(1, 3)]], "nothing of the small one, nothing of one that was left");
}

#[tokio::test]
async fn a_restart_moves_no_row_of_a_member_who_merely_received() {
    let world = World::with(config()).await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    let token = world.sync(&c, &Bytes::new(), 0).await.unwrap().token;
    for n in 0..3 {
        acked(&world.ask(&b, to_log(&group(), &format!("m{n}"))).await);
    }
    let rows = async |world: &World, phone: &Phone| {
        let page = world.ports.inbox.since(&phone.user, Default::default(), 10).await.unwrap();
        page.rows.iter().map(|row| (row.head.0, row.read.seq.0)).collect::<Vec<_>>()
    };
    let before = [rows(&world, &b).await, rows(&world, &c).await];
    assert_eq!(before, [vec![(4, 4)], vec![(1, 0)]], "the writer's, and that of the joining");
    let world = world.crash_and_restart().await;
    // Repeated as one page, in which all of them join.
    assert_eq!(rows(&world, &b).await, [(4, 4)]);
    let synced = world.sync(&c, &token, 0).await.unwrap();
    assert_eq!((synced.conversations.len(), synced.conversations[0].head_seq), (1, 4));
    let again = world.sync(&c, &synced.token, 0).await.unwrap();
    assert!(again.complete && again.conversations.is_empty());
}

/// A token of more than 18 large conversations was refused by gateways once.
#[tokio::test]
async fn a_user_in_many_large_conversations_syncs_on_with_the_token_it_was_given() {
    const GROUPS: usize = 40;
    let world = World::with(config()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    for n in 0..GROUPS {
        acked(&world.ask(&a, create(&format!("g{n}"), &["b", "c"])).await);
    }
    let synced = world.sync(&b, &Bytes::new(), 0).await.unwrap();
    assert_eq!((synced.conversations.len(), synced.complete), (GROUPS, true));
    let moved = LogId::group(&a.user, &ClientId::parse("g7").unwrap());
    acked(&world.ask(&a, to_log(&moved, "m")).await);
    let command = Command::Sync(client::Sync { token: synced.token.clone(), limit: 0 });
    assert_eq!(route(&b.user, &command, &SessionLimits::default()), Some(Ok(Route::Read)));
    let again = world.sync(&b, &synced.token, 0).await.unwrap();
    let moves: Vec<_> = again.conversations.iter().map(|of| (of.conversation_id.as_str(), of.head_seq)).collect();
    assert_eq!(moves, [(moved.as_str(), 2)]);
}

#[tokio::test]
async fn a_head_behind_a_removal_that_is_not_projected_is_not_told() {
    let world = World::with(config()).await;
    let (a, d) = (world.phone("a", "1").await, world.phone("d", "1").await);
    acked(&world.ask(&a, create("g", &["b", "c", "d"])).await);
    let token = world.sync(&d, &Bytes::new(), 0).await.unwrap().token;
    // Another owner stores the removal and a message, and dies before the projections know.
    let removed = Content::MemberRemoved(client::MemberRemoved { user_id: "d".into() });
    let message = Content::Message(client::Message { body: body_of("secret"), ..Default::default() });
    let entries = [removed, message].into_iter().zip(2..).map(|(content, seq)| {
        let content = Some(content);
        let entry = client::Entry { seq, ordinal: 1, sender_user_id: "a".into(), content, ..Default::default() };
        let (entry, content_hash) = (entry.encode_to_vec().into(), vec![0; 16].into());
        let stored = internal::StoredEntry { entry, content_hash, members_seq: 2, members: 3, ..Default::default() };
        NewEntry {
            log: group(),
            seq: Seq(seq),
            sender: a.user.clone(),
            client_id: ClientId::parse(&format!("foreign-{seq}")).unwrap(),
            stored: stored.encode_to_vec().into(),
        }
    });
    assert!(world.ports.log.append(entries.collect()).await.stop.is_none());
    let synced = world.sync(&d, &token, 0).await.unwrap();
    assert!(synced.complete && synced.conversations.is_empty(), "{:?}", synced.conversations);
    let world = world.crash_and_restart().await;
    let state = world.sync(&d, &synced.token, 0).await.unwrap().conversations.remove(0);
    assert_eq!((state.head_seq, state.member), (2, false));
}
