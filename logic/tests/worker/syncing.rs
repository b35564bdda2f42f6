//! Sync: what moved, a page at a time, while things move.

use crate::harness::*;
use bytes::Bytes;
use im_proto::client::ErrorCode;
use im_proto::{InboxVersion, LogId};
use std::collections::HashMap;

#[tokio::test]
async fn pages_miss_nothing_while_conversations_move_between_them() {
    let world = World::new().await;
    let reader = world.phone("r", "1").await;
    let mut writers = Vec::new();
    for n in 0..30 {
        let writer = world.phone(&format!("w{n}"), "1").await;
        acked(&world.ask(&writer, to_user("r", "first")).await);
        writers.push(writer);
    }
    let mut heads: HashMap<String, u64> = HashMap::new();
    let mut token = Bytes::new();
    let mut pages = 0;
    loop {
        let synced = world.sync(&reader, &token, 7).await.unwrap();
        for state in synced.conversations {
            heads.insert(state.conversation_id, state.head_seq);
        }
        token = synced.token;
        if synced.complete {
            break;
        }
        // Some that were told, some that were not.
        for writer in [&writers[pages], &writers[29 - pages]] {
            acked(&world.ask(writer, to_user("r", &format!("again{pages}"))).await);
        }
        pages += 1;
    }
    for writer in &writers {
        let log = LogId::direct(&writer.user, &reader.user);
        assert_eq!(heads[log.as_str()] as usize, world.entries(&log).await.len(), "{}", writer.user);
    }
    // Nothing moved since: nothing is told, and the answer covers the present version.
    let (body, version) = world
        .read(&reader, im_proto::client::client_frame::Command::Sync(im_proto::client::Sync { token, limit: 0 }))
        .await;
    let im_proto::client::server_frame::Body::Synced(synced) = body else { panic!() };
    assert!(synced.complete && synced.conversations.is_empty() && synced.user_entries.is_empty());
    let present = world.versions(&[&reader]).await[0];
    assert_eq!((version, synced.inbox_version), (Some(present), present.0));
}

#[tokio::test]
async fn the_users_own_log_comes_as_entries_from_the_token_on() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, to_user("b", "1")).await);
    acked(&world.ask(&a, to_user("b", "2")).await);
    let log = LogId::direct(&a.user, &b.user);
    world.ask(&b, mark_read(&world, &log, "r1", 1)).await;
    // A fresh device gets the cursor in the state, not in the entries.
    let first = world.sync(&b, &Bytes::new(), 0).await.unwrap();
    assert_eq!((first.user_entries.len(), first.user_log_seq, first.conversations[0].read_seq), (0, 1, 1));
    assert_eq!(first.conversations.len(), 1, "the user's own log is no conversation");
    world.ask(&b, mark_read(&world, &log, "r2", 2)).await;
    let second = world.sync(&b, &first.token, 0).await.unwrap();
    assert_eq!((second.user_entries.len(), second.user_log_seq), (1, 2));
    assert_eq!(second.conversations[0].read_seq, 2);
}

#[tokio::test]
async fn a_token_of_another_history_is_reset() {
    use prost::Message as _;
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, to_user("b", "1")).await);
    let good = world.sync(&b, &Bytes::new(), 0).await.unwrap().token;
    let token = im_proto::internal::SyncToken::decode(good.clone()).unwrap();
    let changed = |change: &dyn Fn(&mut im_proto::internal::SyncToken)| {
        let mut token = token.clone();
        change(&mut token);
        Bytes::from(token.encode_to_vec())
    };
    let foreign = [
        changed(&|token| token.epoch += 1),
        changed(&|token| token.user_log_seq += 1),
        Bytes::from_static(b"\xff\xff"),
    ];
    for token in foreign {
        assert_eq!(world.sync(&b, &token, 0).await.unwrap_err().code(), ErrorCode::Reset, "{token:?}");
    }
    assert!(world.sync(&b, &good, 0).await.is_ok());
    // The log is the truth, not the inbox: one that fell behind the token tells everything again.
    let ahead = changed(&|token| token.inbox_version += 1_000_000);
    let again = world.sync(&b, &ahead, 0).await.unwrap();
    assert_eq!((again.conversations.len(), again.complete), (1, true));
    assert_eq!(again.token, good);
}

#[tokio::test]
async fn the_moves_told_on_a_connection_join_up_to_the_present_version() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let mut given = world.versions(&[&b]).await[0];
    assert_eq!(given, InboxVersion(0));
    let sends: Vec<_> = (0..40).map(|n| (&a, to_user(["b", "c", "a"][n % 3], &format!("m{n}")))).collect();
    world.ask_all(sends).await;
    world.ask(&b, mark_read(&world, &LogId::direct(&a.user, &b.user), "r", 1)).await;
    let log = LogId::group(&a.user, &im_proto::ClientId::parse("g").unwrap());
    acked(&world.ask(&a, create("g", &["b"])).await);
    acked(&world.ask(&a, to_log(&log, "x")).await);
    let mut moves: Vec<_> = world.pushed_so_far(&b).into_iter().filter_map(|told| told.inbox).collect();
    // The mark-read's own answer carries a move too; it is the one between.
    moves.sort_by_key(|inbox| inbox.previous);
    for inbox in moves {
        if inbox.previous == given.0 {
            given = InboxVersion(inbox.version);
        } else {
            given = InboxVersion(inbox.previous.max(given.0)).max(InboxVersion(inbox.version));
        }
    }
    assert_eq!(given, world.versions(&[&b]).await[0]);
}
