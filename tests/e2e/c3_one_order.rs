//! C3: in a conversation seq is 1, 2, 3 …, the same for everyone; a pull answers every seq; pipelined sends keep their order;
//! a cursor of another history gets RESET.

use crate::harness::calls::{add_members, direct, leave_group, message_ids, pull, remove_member};
use crate::harness::load::{Load, seed};
use crate::harness::raw::{Raw, assert_error, assert_final, send_to_conversation, send_to_user};
use crate::harness::server::{Server, Settings};
use im_proto::client::client_frame::Command;
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ErrorClass, ErrorCode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Duration;

#[tokio::test]
async fn the_seqs_of_many_senders_at_once_have_no_gap_and_no_double() {
    const SENDERS: usize = 4;
    const EACH: usize = 60;
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "creator").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    let mut devices = Vec::new();
    for number in 0..SENDERS {
        let user = if number % 2 == 0 { "ann" } else { "bob" };
        devices.push(Raw::device(&server, user, &format!("device{number}")).await);
    }
    let mut requests = Vec::new();
    for message in 0..EACH {
        for (number, device) in devices.iter_mut().enumerate() {
            let send = send_to_conversation(&group, &format!("m{number}-{message}"), "x");
            requests.push((number, device.send(Command::Send(send)).await));
        }
    }
    let mut seqs = vec![1];
    for (number, request) in requests {
        match devices[number].answer(request).await {
            Body::SendAck(ack) => seqs.push(ack.seq),
            other => panic!("{other:?}"),
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=(SENDERS * EACH) as u64 + 1).collect::<Vec<_>>());
    let epoch = ann.sync().await.epoch;
    let seen_by_ann = ann.pull_all(&group, epoch, 1).await;
    let mut bob = Raw::device(&server, "bob", "fresh").await;
    assert_eq!(bob.pull_all(&group, epoch, 1).await, seen_by_ann);
    for number in 0..SENDERS {
        let own = message_ids(&seen_by_ann).into_iter().filter(|id| id.starts_with(&format!("m{number}-")));
        let wanted: Vec<String> = (0..EACH).map(|message| format!("m{number}-{message}")).collect();
        assert_eq!(own.collect::<Vec<_>>(), wanted, "device {number} keeps its order");
    }
}

fn after(send: client::Send, id: &str) -> Command {
    Command::Send(client::Send { after: id.to_owned(), ..send })
}

fn group_after(command: Command, id: &str) -> Command {
    let after = id.to_owned();
    match command {
        Command::AddMembers(add) => Command::AddMembers(client::AddMembers { after, ..add }),
        Command::RemoveMember(remove) => Command::RemoveMember(client::RemoveMember { after, ..remove }),
        Command::LeaveGroup(leave) => Command::LeaveGroup(client::LeaveGroup { after, ..leave }),
        other => panic!("no group command: {other:?}"),
    }
}

#[tokio::test]
async fn a_send_whose_after_is_not_stored_is_refused_until_it_is() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let second = after(send_to_user("bob", "m2", "2"), "m1");
    let third = after(send_to_user("bob", "m3", "3"), "m2");
    for command in [&second, &third] {
        assert_error(&ann.call(command.clone()).await, ErrorClass::Retry, ErrorCode::OutOfOrder);
    }
    server.kill9();
    server.restart();
    let mut ann = Raw::device(&server, "ann", "phone").await;
    assert_error(&ann.call(second.clone()).await, ErrorClass::Retry, ErrorCode::OutOfOrder);
    // Go back and send all again, pipelined: each is stored behind its predecessor.
    let mut requests = vec![ann.send(Command::Send(send_to_user("bob", "m1", "1"))).await];
    requests.push(ann.send(second).await);
    requests.push(ann.send(third).await);
    for (index, request) in requests.into_iter().enumerate() {
        let Body::SendAck(ack) = ann.answer(request).await else { panic!("m{} is not acked", index + 1) };
        assert_eq!(ack.seq, index as u64 + 1);
    }
    // `after` is not part of the content.
    assert_eq!(ann.message(send_to_user("bob", "m3", "3")).await.seq, 3);
}

#[tokio::test]
async fn a_group_command_whose_after_is_not_stored_is_refused_until_it_is() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    // The chain of one device: m1, a group command, m2. m1 is lost on its way.
    let first = Command::Send(send_to_conversation(&group, "m1", "1"));
    let membership = [
        group_after(add_members(&group, "g1", &["cid"]), "m1"),
        group_after(remove_member(&group, "g2", "bob"), "g1"),
        group_after(remove_member(&group, "g3", "cid"), "g2"),
        group_after(leave_group(&group, "g4"), "g3"),
    ];
    let last = after(send_to_conversation(&group, "m2", "2"), "g1");
    for command in membership.iter().chain([&last]) {
        assert_error(&ann.call(command.clone()).await, ErrorClass::Retry, ErrorCode::OutOfOrder);
    }
    server.kill9();
    server.restart();
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for command in membership.iter().chain([&last]) {
        assert_error(&ann.call(command.clone()).await, ErrorClass::Retry, ErrorCode::OutOfOrder);
    }
    // Go back and send all again, pipelined: each is stored behind its predecessor.
    let mut requests = Vec::new();
    for command in [&first, &membership[0], &last].into_iter().chain(&membership[1..]) {
        requests.push(ann.send(command.clone()).await);
    }
    for (request, seq) in requests.into_iter().zip(2..) {
        let stored = match ann.answer(request).await {
            Body::SendAck(ack) => ack.seq,
            Body::CommandAck(ack) => ack.seq,
            other => panic!("{other:?}"),
        };
        assert_eq!(stored, seq);
    }
    // `after` is not part of the content.
    assert_eq!(ann.add_members(&group, "g1", &["cid"]).await.seq, 3);
}

#[tokio::test]
async fn after_may_name_a_message_stored_long_ago_or_by_another_connection() {
    let mut server = Server::start(Settings::for_tests());
    let mut phone = Raw::device(&server, "ann", "phone").await;
    phone.message_to_user("bob", "m1").await;
    server.kill9();
    server.restart();
    let mut tablet = Raw::device(&server, "ann", "tablet").await;
    let second = tablet.call_until_settled(after(send_to_user("bob", "m2", "2"), "m1")).await;
    assert!(matches!(second, Body::SendAck(ref ack) if ack.seq == 2), "{second:?}");
    // Another sender's message of that id is not the sender's own predecessor.
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let answer = bob.call(after(send_to_user("ann", "b1", "x"), "m1")).await;
    assert_error(&answer, ErrorClass::Retry, ErrorCode::OutOfOrder);
}

#[tokio::test]
async fn a_send_behind_a_refused_one_waits_until_its_sender_knows_of_the_refusal() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut cid = Raw::device(&server, "cid", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    let first = Command::Send(send_to_conversation(&group, "m1", "1"));
    let second = after(send_to_conversation(&group, "m2", "2"), "m1");
    // The refusal of m1 is lost with cid's link; meanwhile cid becomes a member.
    assert_final(&cid.call_until_settled(first.clone()).await, ErrorCode::NotAllowed);
    ann.add_members(&group, "add", &["cid"]).await;
    // Stored now, m2 would lie before the m1 that cid is about to send again.
    assert_error(&cid.call(second.clone()).await, ErrorClass::Retry, ErrorCode::OutOfOrder);
    let requests = [cid.send(first).await, cid.send(second).await];
    for (request, seq) in requests.into_iter().zip([3, 4]) {
        let answer = cid.answer(request).await;
        assert!(matches!(&answer, Body::SendAck(ack) if ack.seq == seq), "{answer:?}");
    }
}

#[tokio::test]
async fn a_pull_answers_every_seq_of_its_range_page_by_page() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let conversation = direct("ann", "bob");
    for number in 1..=25 {
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let epoch = bob.sync().await.epoch;
    let mut from_seq = 1;
    let mut seqs = Vec::new();
    while from_seq <= 25 {
        let command = client::Pull { conversation_id: conversation.clone(), epoch, from_seq, limit: 4 };
        let Body::Pulled(page) = bob.call_until_settled(Command::Pull(command)).await else {
            panic!("no page at {from_seq}")
        };
        assert!((1..=4).contains(&page.entries.len()));
        assert_eq!((page.head_seq, page.floor_seq), (25, 1));
        seqs.extend(page.entries.iter().map(|entry| entry.seq));
        from_seq = seqs.len() as u64 + 1;
    }
    assert_eq!(seqs, (1..=25).collect::<Vec<_>>());
    assert!(bob.pull(&conversation, epoch, 26).await.entries.is_empty(), "just behind the head lies nothing");
}

#[tokio::test]
async fn a_cursor_above_the_head_or_of_another_epoch_gets_reset() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let conversation = direct("ann", "bob");
    let epoch = ann.message_to_user("bob", "m1").await.epoch;
    assert_final(&ann.call_until_settled(pull(&conversation, epoch, 3)).await, ErrorCode::Reset);
    assert_final(&ann.call_until_settled(pull(&conversation, epoch ^ 1, 1)).await, ErrorCode::Reset);
    let mark = crate::harness::calls::mark_read;
    assert_final(&ann.call_until_settled(mark(&conversation, epoch ^ 1, 1, "read1")).await, ErrorCode::Reset);
    assert_final(&ann.call_until_settled(mark(&conversation, epoch, 2, "read2")).await, ErrorCode::Reset);

    let other_history = Server::start(Settings::for_tests());
    let mut foreign = Raw::device(&other_history, "ann", "phone").await;
    for _ in 0..3 {
        foreign.message_to_user("cid", "m1").await;
    }
    let token = foreign.sync().await.token;
    let answer = ann.call(Command::Sync(client::Sync { token, limit: 0 })).await;
    assert_final(&answer, ErrorCode::Reset);
    assert_eq!(ann.sync().await.conversations.len(), 1, "an empty token always works");
}

#[tokio::test]
async fn the_epoch_and_every_entry_stay_the_same_over_a_restart() {
    let mut server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 1..=10 {
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    let epoch = ann.sync().await.epoch;
    let before = ann.pull_all(&conversation, epoch, 1).await;
    server.kill9();
    server.restart();
    let mut ann = Raw::device(&server, "ann", "phone").await;
    assert_eq!(ann.message_to_user("bob", "m11").await.seq, 11);
    assert_eq!(ann.sync().await.epoch, epoch);
    let after = ann.pull_all(&conversation, epoch, 1).await;
    assert_eq!(after[..10], before);
}

#[tokio::test]
async fn the_body_is_forwarded_byte_for_byte() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    // A text, then fields no server of today knows, out of order and encoded wastefully.
    let body: &[u8] = b"\x0a\x02hi\xf2\x3f\x03\x00\xff\x00\xa8\x46\x80\x01";
    let mut send = send_to_user("bob", "m1", "");
    send.body = bytes::Bytes::from_static(body);
    ann.message(send).await;
    let epoch = ann.sync().await.epoch;
    let entries = ann.pull_all(&direct("ann", "bob"), epoch, 1).await;
    assert!(matches!(&entries[0].content, Some(Content::Message(message)) if message.body == body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_sends_keep_their_order_when_links_break() {
    let mut rng = StdRng::seed_from_u64(seed());
    let server = Server::start(Settings::for_tests());
    let load = Load::start(&server, rng.random()).await;
    for _ in 0..60 {
        // The load goes on meanwhile; a link breaks at a random moment of it.
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
        load.cut_a_link(&mut rng).await;
        load.reconnect().await;
    }
    assert_eq!(load.finish(&server).await.sent_away, 0, "a client was replaced by itself");
}
