//! C5: every request ends in an answer or an error with a stable code; a refusal is an error, never silence.

use crate::harness::calls::{add_members, create_group, direct, leave_group, mark_read, pull, remove_member};
use crate::harness::raw::{Raw, assert_error, assert_final, send_to_conversation, send_to_user, within};
use crate::harness::server::{Server, Settings};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ErrorClass, ErrorCode};
use std::collections::BTreeMap;

#[tokio::test]
async fn what_is_absent_and_what_is_not_allowed_get_the_same_error() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut eve = Raw::device(&server, "eve", "phone").await;
    let group = ann.create_group("create", &["bob"]).await;
    let epoch = ann.message_to_user("bob", "m1").await.epoch;
    let foreign = [group.conversation_id.clone(), direct("ann", "bob")];
    let absent = [group.conversation_id.replace(|c: char| c.is_ascii_digit(), "z"), direct("xan", "yan")];
    let mut answers = BTreeMap::new();
    for (number, conversation) in foreign.iter().chain(&absent).enumerate() {
        let members = client::ListMembers { conversation_id: conversation.clone(), ..Default::default() };
        let commands = [
            Command::Send(send_to_conversation(conversation, &format!("e{number}"), "let me in")),
            pull(conversation, epoch, 1),
            mark_read(conversation, epoch, 1, &format!("read{number}")),
            Command::ListMembers(members),
        ];
        for (kind, command) in commands.into_iter().enumerate() {
            let answer = eve.call(command).await;
            assert_final(&answer, ErrorCode::NotAllowed);
            let Body::Error(error) = answer else { unreachable!() };
            let first = answers.entry(kind).or_insert_with(|| error.clone());
            assert_eq!(*first, error, "the text tells nothing either");
        }
    }
    for command in [
        add_members(&group.conversation_id, "add", &["eve"]),
        remove_member(&group.conversation_id, "remove", "bob"),
        leave_group(&group.conversation_id, "leave"),
        add_members(&absent[0], "add2", &["eve"]),
    ] {
        assert_final(&eve.call(command).await, ErrorCode::NotAllowed);
    }
    assert_eq!(ann.sync().await.conversation(&group.conversation_id).head_seq, 1, "nothing was written");
}

#[tokio::test]
async fn only_the_creator_adds_and_removes_and_leaves_last() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &["bob", "cid"]).await.conversation_id;
    assert_final(&bob.call(add_members(&group, "b1", &["dan"])).await, ErrorCode::NotAllowed);
    assert_final(&bob.call(remove_member(&group, "b2", "cid")).await, ErrorCode::NotAllowed);
    assert_final(&bob.call(remove_member(&group, "b3", "ann")).await, ErrorCode::NotAllowed);
    assert_final(&ann.call(leave_group(&group, "a1")).await, ErrorCode::NotAllowed);
    ann.remove_member(&group, "a2", "cid").await;
    bob.leave_group(&group, "b4").await;
    assert_eq!(ann.leave_group(&group, "a3").await.seq, 4, "the creator leaves last");
    let late = Command::Send(send_to_conversation(&group, "a4", "anybody?"));
    assert_final(&ann.call(late).await, ErrorCode::NotAllowed);
    assert_final(&ann.call(add_members(&group, "a5", &["bob"])).await, ErrorCode::NotAllowed);
}

#[tokio::test]
async fn malformed_fields_and_excessive_ones_are_refused_by_name() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let epoch = ann.message_to_user("bob", "m1").await.epoch;
    let conversation = direct("ann", "bob");
    let no_receiver = client::Send { to: None, ..send_to_user("bob", "m2", "x") };
    let long_after = client::Send { after: "x".repeat(65), ..send_to_user("bob", "m2", "x") };
    let invalid = [
        Command::Send(no_receiver),
        Command::Send(long_after),
        Command::Send(send_to_user("", "m2", "x")),
        Command::Send(send_to_user("bob smith", "m2", "x")),
        Command::Send(send_to_user("bob", "", "x")),
        Command::Send(send_to_user("bob", "m/2", "x")),
        Command::Send(send_to_user("bob", &"m".repeat(65), "x")),
        Command::Send(send_to_user("böb", "m2", "x")),
        create_group("", "a group", &["bob"]),
        create_group("create", "a group", &["b b"]),
        pull(&conversation, epoch, 0),
        mark_read(&conversation, epoch, 1, "bad id"),
    ];
    for command in invalid {
        let answer = ann.call(command.clone()).await;
        assert!(
            matches!(&answer, Body::Error(error) if error.code() == ErrorCode::InvalidArgument),
            "{command:?}: {answer:?}"
        );
        assert_final(&answer, ErrorCode::InvalidArgument);
    }
    let long_text = "x".repeat(16 * 1024 + 1);
    let long_name = "n".repeat(129);
    let too_large =
        [Command::Send(send_to_user("bob", "m2", &long_text)), create_group("create", &long_name, &["bob"])];
    for command in too_large {
        assert_final(&ann.call(command).await, ErrorCode::TooLarge);
    }
    assert_eq!(ann.sync().await.conversations.len(), 1, "nothing of it was stored");
}

#[tokio::test]
async fn too_many_members_are_refused() {
    let server = Server::start(Settings::for_tests().with("IM_LOGIC__GROUP_MEMBERS_MAX", "5"));
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let users = ["u1", "u2", "u3", "u4", "u5"];
    assert_final(&ann.call(create_group("create", "a group", &users)).await, ErrorCode::TooLarge);
    let group = ann.create_group("smaller", &users[..3]).await.conversation_id;
    assert_final(&ann.call(add_members(&group, "add", &["u4", "u5"])).await, ErrorCode::TooLarge);
    ann.add_members(&group, "add1", &["u4"]).await;
    assert_eq!(ann.members(&group).await.members.len(), 5);
}

#[tokio::test]
async fn a_sender_that_is_too_fast_gets_busy_with_a_delay_and_its_resend_is_stored() {
    let settings = Settings::for_tests()
        .with("IM_LOGIC__SEND_RATE_PER_USER_PER_S", "2")
        .with("IM_LOGIC__SEND_BURST_PER_USER", "4");
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut busy = None;
    for number in 0..12 {
        let id = format!("m{number}");
        match ann.call(Command::Send(send_to_user("cid", &id, &id))).await {
            Body::SendAck(_) => {}
            answer => {
                assert_error(&answer, ErrorClass::Busy, ErrorCode::RateLimited);
                busy = Some((id, answer));
                break;
            }
        }
    }
    let Some((id, Body::Error(error))) = busy else { panic!("never too fast") };
    assert!(error.retry_after_ms > 0, "{error:?}");
    bob.message_to_user("cid", "others").await;
    // The delay is the server's word: after it the resend is taken.
    tokio::time::sleep(std::time::Duration::from_millis(u64::from(error.retry_after_ms))).await;
    let retried =
        async { while !matches!(ann.call(Command::Send(send_to_user("cid", &id, &id))).await, Body::SendAck(_)) {} };
    within("the resend is stored", retried).await;
}

#[tokio::test]
async fn too_many_commands_of_a_connection_are_busy_and_others_go_on() {
    let settings =
        Settings::for_tests().with("IM_GATEWAY__COMMAND_RATE_PER_S", "5").with("IM_GATEWAY__COMMAND_BURST", "10");
    let server = Server::start(settings);
    let mut eve = Raw::device(&server, "eve", "phone").await;
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut requests = Vec::new();
    for _ in 0..40 {
        requests.push(eve.send(Command::Sync(client::Sync::default())).await);
    }
    let mut busy = 0;
    for request in requests {
        match eve.answer(request).await {
            Body::Synced(_) => {}
            answer => {
                assert_error(&answer, ErrorClass::Busy, ErrorCode::RateLimited);
                busy += 1;
            }
        }
    }
    assert!(busy >= 20, "{busy} of 40");
    ann.message_to_user("bob", "m1").await;
}

#[tokio::test]
async fn every_one_of_many_pipelined_requests_is_answered_once() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut requests = Vec::new();
    for number in 0..300_u32 {
        let command = match number % 3 {
            0 => Command::Send(send_to_user("bob", &format!("m{number}"), "x")),
            1 => Command::Sync(client::Sync::default()),
            _ => Command::Send(send_to_user("not an id", "m", "x")),
        };
        requests.push(ann.send(command).await);
    }
    for (number, request) in requests.into_iter().enumerate() {
        let answer = ann.answer(request).await;
        match number % 3 {
            0 => assert!(matches!(answer, Body::SendAck(_)), "{answer:?}"),
            1 => assert!(matches!(answer, Body::Synced(_)), "{answer:?}"),
            _ => assert_final(&answer, ErrorCode::InvalidArgument),
        }
    }
    ann.is_alive().await;
}

#[cfg(feature = "fault-points")]
mod fault_points {
    use super::*;

    #[tokio::test]
    async fn a_send_that_the_store_never_answers_is_unknown_within_10_s_and_its_resend_is_stored() {
        let hanging = Settings::for_tests()
            .with("IM_LOGIC__PARTITIONS", "64")
            .with("IM_FAULT_POINT", "entry_log.append.before:1")
            .with("IM_FAULT_HANGS", "1");
        let mut server = Server::start(hanging);
        let mut ann = Raw::device(&server, "ann", "phone").await;
        let lost = ann.send(Command::Send(send_to_user("bob", "m1", "x"))).await;
        let hangs = async {
            while server.metric("im_logic_appends_total").unwrap_or(0.0) < 1.0 {
                tokio::task::yield_now().await;
            }
        };
        within("the store is asked", hangs).await;
        // Others go on: another partition's worker, reads, heartbeats.
        let others = (0..20).map(|n| format!("user{n}")).find(|user| shard(user) != shard("bob")).unwrap();
        assert_eq!(ann.message_to_user(&others, "m1").await.seq, 1);
        ann.sync().await;
        let answer = ann.answer(lost).await;
        assert_error(&answer, ErrorClass::Unknown, ErrorCode::TimedOut);
        ann.is_alive().await;

        server.set(Settings::for_tests());
        server.kill9();
        server.restart();
        let mut ann = Raw::device(&server, "ann", "phone").await;
        assert_eq!(ann.message(send_to_user("bob", "m1", "x")).await.seq, 1);
    }

    /// Where ann's conversation with `user` is stored; with 64 partitions, each shard has its own worker.
    fn shard(user: &str) -> im_storage::ports::Shard {
        im_storage::ports::Shard::of(&im_proto::LogId::parse(&direct("ann", user)).unwrap())
    }
}

#[tokio::test]
async fn a_message_to_a_group_sent_while_the_sender_is_removed_is_decided_once() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    for round in 0..10 {
        let group = ann.create_group(&format!("create{round}"), &["bob"]).await.conversation_id;
        let mut requests = Vec::new();
        for number in 0..10 {
            let send = send_to_conversation(&group, &format!("m{number}"), "x");
            requests.push(bob.send(Command::Send(send)).await);
            if number == 4 {
                requests.push(0);
                ann.remove_member(&group, "remove", "bob").await;
            }
        }
        let mut acked = 0;
        for request in requests.into_iter().filter(|request| *request > 0) {
            match bob.answer(request).await {
                Body::SendAck(_) => acked += 1,
                answer => assert_final(&answer, ErrorCode::NotAllowed),
            }
        }
        let epoch = ann.sync().await.epoch;
        let entries = ann.pull_all(&group, epoch, 1).await;
        let removal = entries.iter().position(|entry| entry.client_id == "remove").unwrap();
        assert_eq!(entries.len(), acked + 2, "stored is what was acked");
        assert_eq!(removal, entries.len() - 1, "nothing of a removed member is stored behind the removal");
    }
}
