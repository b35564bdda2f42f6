//! C4: a push is a hint, the log is the truth: what a connection was not told of, a heartbeat hints and a sync brings; all
//! devices of a user converge.

use crate::harness::calls::{direct, message_ids, unread};
use crate::harness::raw::{Raw, send_to_conversation};
use crate::harness::server::{Server, Settings};
use im_proto::client::client_frame::Command;
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, Entry, EntryPushed};

fn entry_of(conversation: &str) -> impl FnMut(&Body) -> Option<EntryPushed> {
    move |body| match body {
        Body::Entry(pushed) if pushed.conversation_id == conversation => Some(pushed.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_reaches_every_device_of_both_users_and_the_sender_gets_its_ack_only() {
    let server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut ann_phone = Raw::device(&server, "ann", "phone").await;
    let mut ann_tablet = Raw::device(&server, "ann", "tablet").await;
    let mut bob_phone = Raw::device(&server, "bob", "phone").await;
    let mut bob_tablet = Raw::device(&server, "bob", "tablet").await;
    let ack = ann_phone.message_to_user("bob", "m1").await;
    let mut frames = Vec::new();
    for device in [&mut ann_tablet, &mut bob_phone, &mut bob_tablet] {
        frames.push(device.push(entry_of(&conversation)).await);
    }
    assert!(frames.iter().all(|frame| *frame == frames[0]), "every receiver gets the same frame");
    let entry = frames[0].entry.clone().unwrap();
    assert_eq!((entry.seq, entry.server_time_ms), (ack.seq, ack.server_time_ms));
    assert_eq!((entry.sender_user_id.as_str(), entry.client_id.as_str()), ("ann", "m1"));

    // Were the sender pushed its own message, it would come before what is sent to it next.
    bob_phone.message_to_user("ann", "m2").await;
    let next = ann_phone.push(entry_of(&conversation)).await;
    assert_eq!(next.entry.unwrap().client_id, "m2");
}

#[tokio::test]
async fn a_device_that_was_away_is_told_by_one_sync_what_moved_since_its_token() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    bob.message_to_user("cid", "early").await;
    ann.message_to_user("bob", "m1").await;
    let before = bob.sync().await;
    assert_eq!(before.conversations.len(), 2);
    drop(bob);

    for number in 2..=5 {
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let moved = bob.sync_from(before.token).await;
    let ids: Vec<&str> = moved.conversations.iter().map(|state| state.conversation_id.as_str()).collect();
    assert_eq!(ids, [direct("ann", "bob")], "only what moved");
    let state = moved.conversation(&direct("ann", "bob"));
    assert_eq!((state.head_seq, unread(state)), (5, 5));
    assert!(moved.inbox_version > before.inbox_version);
    assert!(bob.sync_from(moved.token).await.conversations.is_empty(), "nothing moved since");
}

#[tokio::test]
async fn a_token_from_before_a_crash_misses_nothing_after_it() {
    // Bob waits in silence while many messages are sent, which a slow machine takes its time for.
    let settings = Settings::for_tests().with("IM_GATEWAY__IDLE_TIMEOUT_MS", "300000");
    let mut server = Server::start(settings);
    let mut token = bytes::Bytes::new();
    for round in 0..3 {
        let mut ann = Raw::device(&server, "ann", "phone").await;
        let mut bob = Raw::device(&server, "bob", "phone").await;
        // Many moves of one conversation; those that repeat them after the crash are fewer.
        for number in 0..40 {
            ann.message_to_user("bob", &format!("m{round}-{number}")).await;
        }
        token = bob.sync_from(token).await.token;
        server.kill9();
        server.restart();

        let mut ann = Raw::device(&server, "ann", "phone").await;
        let mut cid = Raw::device(&server, "cid", "phone").await;
        let mut bob = Raw::device(&server, "bob", "phone").await;
        let head = cid.message_to_user("bob", &format!("c{round}")).await.seq;
        // So many moves behind it that the inbox is again past the token, wherever its versions went on.
        for number in 0..80 {
            ann.message_to_user("bob", &format!("n{round}-{number}")).await;
        }
        let moved = bob.sync_from(token).await;
        assert_eq!(moved.conversation(&direct("cid", "bob")).head_seq, head);
        token = moved.token;
    }
}

#[tokio::test]
async fn a_sync_of_many_conversations_comes_in_pages_and_says_when_it_is_complete() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 0..23 {
        ann.message_to_user(&format!("user{number}"), "m1").await;
    }
    let mut token = bytes::Bytes::new();
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let Body::Synced(page) = ann.call(Command::Sync(client::Sync { token, limit: 5 })).await else { panic!() };
        assert!(page.conversations.len() <= 5);
        assert!(page.complete || !page.conversations.is_empty(), "a page that is not the last brings something");
        seen.extend(page.conversations.into_iter().map(|state| state.conversation_id));
        token = page.token;
        if page.complete {
            break;
        }
    }
    assert_eq!(seen.len(), 23);
}

#[tokio::test]
async fn reading_on_one_device_moves_the_cursor_on_the_others_and_shows_the_peer_a_receipt() {
    let server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut phone = Raw::device(&server, "bob", "phone").await;
    let mut tablet = Raw::device(&server, "bob", "tablet").await;
    let mut epoch = 0;
    for number in 1..=4 {
        epoch = ann.message_to_user("bob", &format!("m{number}")).await.epoch;
    }
    assert_eq!(unread(phone.sync().await.conversation(&conversation)), 4);
    assert_eq!(unread(ann.sync().await.conversation(&conversation)), 0, "own sends count as read");

    let marked = phone.mark_read(&conversation, epoch, 3, "read").await;
    assert_eq!((marked.read_seq, marked.read_ordinal), (3, 3));
    let moved = tablet
        .push(|body| match body {
            Body::Entry(EntryPushed {
                entry: Some(Entry { content: Some(Content::ReadMoved(moved)), .. }), ..
            }) => Some(moved.clone()),
            _ => None,
        })
        .await;
    assert_eq!((moved.conversation_id.as_str(), moved.seq, moved.ordinal), (conversation.as_str(), 3, 3));
    let receipt = ann
        .push(|body| match body {
            Body::Receipt(receipt) => Some(receipt.clone()),
            _ => None,
        })
        .await;
    assert_eq!((receipt.user_id.as_str(), receipt.read_seq), ("bob", 3));

    for device in [&mut phone, &mut tablet] {
        let known = device.sync().await;
        assert_eq!(unread(known.conversation(&conversation)), 1);
    }
    assert_eq!(ann.sync().await.conversation(&conversation).peer_read_seq, 3);
    let members = ann.members(&conversation).await.members;
    let cursors: Vec<(&str, u64)> = members.iter().map(|m| (m.user_id.as_str(), m.read_seq)).collect();
    assert_eq!(cursors, [("ann", 4), ("bob", 3)]);
}

#[tokio::test]
async fn a_read_cursor_never_falls_and_one_command_moves_it_on_every_device_after_a_restart() {
    let mut server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    for number in 1..=5 {
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    let before = bob.sync().await;
    assert_eq!(bob.mark_read(&conversation, before.epoch, 4, "read4").await.read_seq, 4);
    assert_eq!(bob.mark_read(&conversation, before.epoch, 2, "read2").await.read_seq, 4, "the present one is answered");
    server.kill9();
    server.restart();
    let mut tablet = Raw::device(&server, "bob", "tablet").await;
    let known = tablet.sync_from(before.token).await;
    assert_eq!(known.conversation(&conversation).read_seq, 4);
    let cursors: Vec<_> = known.user_entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(cursors, [1], "one entry in the user's own log");
}

#[tokio::test]
async fn a_group_member_reads_from_its_joining_to_its_removal_both_included() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut cid = Raw::device(&server, "cid", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    ann.message_to(&group, "before").await; // 2
    ann.add_members(&group, "add", &["cid"]).await; // 3
    let joined = cid.push(entry_of(&group)).await;
    assert_eq!(joined.entry.unwrap().seq, 3, "who joins is told");
    ann.message_to(&group, "during").await; // 4
    ann.remove_member(&group, "remove", "cid").await; // 5
    let removed = loop {
        let entry = cid.push(entry_of(&group)).await.entry.unwrap();
        if let Some(Content::MemberRemoved(removed)) = entry.content {
            break removed;
        }
    };
    assert_eq!(removed.user_id, "cid", "who is removed is told");
    ann.message_to(&group, "after").await; // 6

    let known = cid.sync().await;
    let state = known.conversation(&group);
    assert_eq!((state.floor_seq, state.head_seq, state.member), (3, 5, false));
    let page = cid.pull(&group, known.epoch, 1).await;
    assert_eq!((page.floor_seq, page.head_seq), (3, 5));
    assert_eq!(page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5]);

    ann.add_members(&group, "again", &["cid"]).await; // 7
    ann.message_to(&group, "back").await; // 8
    let known = cid.sync().await;
    let state = known.conversation(&group);
    assert_eq!((state.floor_seq, state.head_seq, state.member), (7, 8, true), "reads from the new joining");
    assert_eq!(unread(state), 1);
    let entries = cid.pull_all(&group, known.epoch, 1).await;
    assert_eq!(message_ids(&entries), ["back"]);
    let pushed_after_removal =
        cid.pushes.iter().filter_map(|body| entry_of(&group)(body)).map(|p| p.entry.unwrap().seq);
    assert!(pushed_after_removal.into_iter().all(|seq| seq != 6), "a removed member is pushed nothing");
}

#[tokio::test]
async fn a_conversation_with_oneself_has_one_member_and_no_push_to_the_sender() {
    let server = Server::start(Settings::for_tests());
    let mut phone = Raw::device(&server, "ann", "phone").await;
    let mut tablet = Raw::device(&server, "ann", "tablet").await;
    let ack = phone.message_to_user("ann", "note").await;
    let pushed = tablet.push(entry_of(&ack.conversation_id)).await;
    assert_eq!(pushed.entry.unwrap().client_id, "note");
    let known = phone.sync().await;
    let state = known.conversation(&ack.conversation_id);
    assert_eq!((state.peer_user_id.as_str(), state.head_seq, unread(state)), ("ann", 1, 0));
    assert_eq!(phone.members(&ack.conversation_id).await.members.len(), 1);
    assert!(phone.pushes.iter().all(|push| !matches!(push, Body::Entry(_))), "{:?}", phone.pushes);
}

#[tokio::test]
async fn what_is_sent_between_sign_in_and_sync_is_in_the_sync_or_pushed() {
    let server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut ann = Raw::device(&server, "ann", "phone").await;
    ann.message_to_user("bob", "m0").await;
    for round in 1..=20 {
        let mut bob = Raw::device(&server, "bob", "phone").await;
        let send = send_to_conversation(&conversation, &format!("m{round}"), "x");
        let request = ann.send(Command::Send(send)).await;
        let synced = bob.sync().await.conversation(&conversation).head_seq;
        let Body::SendAck(ack) = ann.answer(request).await else { panic!() };
        if synced < ack.seq {
            let pushed = bob.push(entry_of(&conversation)).await;
            assert_eq!(pushed.entry.unwrap().seq, ack.seq);
        }
    }
}
