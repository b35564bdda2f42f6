//! C2: one id is one entry and one ack, on any connection, after any crash; the same id with other content is CONFLICT.

use crate::harness::calls::{add_members, create_group, direct, leave_group, message_ids, remove_member};
use crate::harness::raw::{Raw, assert_final, send_to_conversation, send_to_user};
use crate::harness::server::{Server, Settings};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{CommandAck, ErrorCode};

async fn stored(raw: &mut Raw, conversation: &str) -> Vec<String> {
    let epoch = raw.sync().await.epoch;
    let entries = raw.pull_all(conversation, epoch, 1).await;
    message_ids(&entries).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_resent_message_gets_the_same_ack() {
    let mut server = Server::start(Settings::for_tests());
    let mut phone = Raw::device(&server, "ann", "phone").await;
    let first = phone.message_to_user("bob", "m1").await;
    phone.message_to_user("bob", "m2").await;
    assert_eq!(phone.message_to_user("bob", "m1").await, first, "on the same connection");

    // Enough connections to land on every core.
    for number in 0..6 {
        let mut other = Raw::device(&server, "ann", &format!("tablet{number}")).await;
        assert_eq!(other.message_to_user("bob", "m1").await, first, "on another connection");
        let by_conversation = other.message(send_to_conversation(&direct("ann", "bob"), "m1", "m1")).await;
        assert_eq!(by_conversation, first, "addressed by conversation");
    }

    server.kill9();
    server.restart();
    let mut phone = Raw::device(&server, "ann", "phone").await;
    assert_eq!(phone.message_to_user("bob", "m1").await, first, "after kill -9");
    assert_eq!(stored(&mut phone, &direct("ann", "bob")).await, ["m1", "m2"]);
}

#[tokio::test]
async fn a_resend_long_after_is_recognised_when_no_memory_holds_it() {
    let settings =
        Settings::for_tests().with("IM_LOGIC__LOGS_CACHED_MAX", "1").with("IM_LOGIC__COMMANDS_REMEMBERED_MAX", "1");
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let first = ann.message_to_user("bob", "m1").await;
    for number in 0..300 {
        ann.send(Command::Send(send_to_user("bob", &format!("later{number}"), "x"))).await;
        ann.send(Command::Send(send_to_user(&format!("user{number}"), "elsewhere", "x"))).await;
    }
    assert_eq!(ann.message_to_user("bob", "m1").await, first);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_conflict_and_changes_nothing() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let first = ann.message(send_to_user("bob", "m1", "yes")).await;
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart();
            ann = Raw::device(&server, "ann", "phone").await;
        }
        let answer = ann.call_until_settled(Command::Send(send_to_user("bob", "m1", "no"))).await;
        assert_final(&answer, ErrorCode::Conflict);
        assert_eq!(ann.message(send_to_user("bob", "m1", "yes")).await, first);
    }
    // The id is the sender's own: another sender's is another message.
    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.message(send_to_user("ann", "m1", "no")).await.seq, 2);
}

#[tokio::test]
async fn an_id_used_for_one_kind_of_command_conflicts_with_another() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    ann.add_members(&group, "x1", &["cid"]).await;
    let message = Command::Send(send_to_conversation(&group, "x1", "hello"));
    assert_final(&ann.call_until_settled(message).await, ErrorCode::Conflict);
    let other_users = add_members(&group, "x1", &["dan"]);
    assert_final(&ann.call_until_settled(other_users).await, ErrorCode::Conflict);
    let other_name = create_group("create", "another name", &["bob"]);
    assert_final(&ann.call_until_settled(other_name).await, ErrorCode::Conflict);
}

#[tokio::test]
async fn one_id_sent_at_once_on_two_connections_is_stored_once() {
    let server = Server::start(Settings::for_tests());
    let mut phone = Raw::device(&server, "ann", "phone").await;
    let mut tablet = Raw::device(&server, "ann", "tablet").await;
    let mut wanted = Vec::new();
    for round in 0..40 {
        let id = format!("m{round}");
        let command = Command::Send(send_to_user("bob", &id, &id));
        let (on_phone, on_tablet) = (phone.send(command.clone()).await, tablet.send(command).await);
        let answers = (phone.answer(on_phone).await, tablet.answer(on_tablet).await);
        assert!(matches!(answers.0, Body::SendAck(_)), "{answers:?}");
        assert_eq!(answers.0, answers.1);
        wanted.push(id);
    }
    assert_eq!(stored(&mut phone, &direct("ann", "bob")).await, wanted);
}

async fn acked(raw: &mut Raw, command: &Command) -> CommandAck {
    match raw.call_until_settled(command.clone()).await {
        Body::CommandAck(ack) => ack,
        other => panic!("{command:?} was answered {other:?}"),
    }
}

#[tokio::test]
async fn every_group_command_answers_a_resend_the_same_also_after_kill_9() {
    let mut server = Server::start(Settings::for_tests());
    let create = create_group("create", "a group", &["bob", "cid"]);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let created = acked(&mut ann, &create).await;
    let group = created.conversation_id.clone();
    let add = add_members(&group, "add", &["dan"]);
    let remove = remove_member(&group, "remove", "cid");
    let leave = leave_group(&group, "leave");
    let added = acked(&mut ann, &add).await;
    let removed = acked(&mut ann, &remove).await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let left = acked(&mut bob, &leave).await;
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart();
            ann = Raw::device(&server, "ann", "phone").await;
            bob = Raw::device(&server, "bob", "phone").await;
        }
        assert_eq!(acked(&mut ann, &create).await, created);
        assert_eq!(acked(&mut ann, &add).await, added);
        assert_eq!(acked(&mut ann, &remove).await, removed);
        assert_eq!(acked(&mut bob, &leave).await, left);
    }
    let epoch = ann.sync().await.epoch;
    assert_eq!(ann.pull_all(&group, epoch, 1).await.len(), 4);
}

#[tokio::test]
async fn a_removed_member_that_resends_an_acked_message_gets_its_ack() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    let sent = bob.message_to(&group, "m1").await;
    ann.remove_member(&group, "remove", "bob").await;
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart();
            bob = Raw::device(&server, "bob", "phone").await;
        }
        assert_eq!(bob.message_to(&group, "m1").await, sent);
        let fresh = Command::Send(send_to_conversation(&group, "m2", "m2"));
        assert_final(&bob.call_until_settled(fresh).await, ErrorCode::NotAllowed);
    }
}

#[tokio::test]
async fn marking_read_twice_changes_nothing_the_second_time() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let sent = ann.message_to_user("bob", "m1").await;
    let conversation = direct("ann", "bob");
    let first = bob.mark_read(&conversation, sent.epoch, 1, "read").await;
    let version = bob.sync().await.inbox_version;
    assert_eq!(bob.mark_read(&conversation, sent.epoch, 1, "read").await, first, "the same command");
    assert_eq!(bob.mark_read(&conversation, sent.epoch, 1, "again").await, first, "the same place");
    assert_eq!(bob.sync().await.inbox_version, version);
}
