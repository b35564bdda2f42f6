//! Claims about commands other than sends: one id until the final answer (contract C2, C5).

use crate::script::{EPOCH, Script, error, id, user};
use im_client::{Answer, Command, Event, Request};
use im_proto::client::client_frame::Command as Wire;
use im_proto::client::server_frame::Body;
use im_proto::client::{CommandAck, ErrorClass, ErrorCode};
use im_proto::{ClientId, LogId, Seq};

fn create(script: &mut Script) -> im_client::Ticket {
    let request = Request::CreateGroup { name: "club".to_owned(), users: vec![user("bob")], command_id: None };
    script.core.command(Command::Request(request), script.now_ms).unwrap()
}

fn next_create(script: &mut Script) -> (u64, String) {
    let frame = script.next();
    match frame.command {
        Some(Wire::CreateGroup(create)) => (frame.request_id, create.command_id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_repeated_with_the_same_id_until_its_final_answer() {
    let mut script = Script::live();
    let ticket = create(&mut script);
    let (request, id) = next_create(&mut script);
    script.answer(request, error(ErrorClass::Unknown, ErrorCode::TimedOut, 0));
    script.wait_for_deadline();
    assert_eq!(next_create(&mut script).1, id);
    script.reconnect();
    script.expect_sync(b"t1");
    let (request, again) = next_create(&mut script);
    assert_eq!(again, id);
    let group = LogId::group(&user("ann"), &ClientId::parse(&id).unwrap());
    let ack = CommandAck { conversation_id: (&group).into(), epoch: EPOCH, seq: 1, ..CommandAck::default() };
    script.events();
    script.answer(request, Body::CommandAck(ack.clone()));
    assert_eq!(script.events(), [Event::Answered { ticket, answer: Answer::Done(ack) }]);
    // The ack names an entry that exists; what it says is read from the log.
    script.expect_pull(&group, 1);
}

#[test]
fn a_send_behind_a_group_command_names_it() {
    let mut script = Script::live();
    create(&mut script);
    let (_, command_id) = next_create(&mut script);
    let group = LogId::group(&user("ann"), &ClientId::parse(&command_id).unwrap());
    for message_id in ["m1", "m2"] {
        let to = im_client::Recipient::Conversation(group.clone());
        let client_message_id = Some(crate::script::id(message_id));
        let send = Command::Send { to, client_message_id, body: Default::default() };
        script.core.command(send, 0).unwrap();
    }
    assert_eq!(script.next_send().2, command_id);
    assert_eq!(script.next_send().2, "m1");
    script.send("other");
    assert_eq!(script.next_send().2, "");
}

/// (request id, id, after) of the next command that writes to a group.
fn next_write(script: &mut Script) -> (u64, String, String) {
    let frame = script.next();
    let (id, after) = match frame.command {
        Some(Wire::Send(send)) => (send.client_message_id, send.after),
        Some(Wire::AddMembers(add)) => (add.command_id, add.after),
        Some(Wire::RemoveMember(remove)) => (remove.command_id, remove.after),
        Some(Wire::LeaveGroup(leave)) => (leave.command_id, leave.after),
        other => panic!("{other:?}"),
    };
    (frame.request_id, id, after)
}

fn group() -> LogId {
    LogId::group(&user("ann"), &id("club"))
}

fn send_to_group(script: &mut Script, message_id: &str) {
    let to = im_client::Recipient::Conversation(group());
    let send = Command::Send { to, client_message_id: Some(id(message_id)), body: Default::default() };
    script.core.command(send, script.now_ms).unwrap();
}

/// m1, then a group command, then m2 of one device.
fn message_add_message(script: &mut Script) {
    send_to_group(script, "m1");
    let add = Request::AddMembers { group: group(), users: vec![user("cid")], command_id: Some(id("g1")) };
    script.core.command(Command::Request(add), script.now_ms).unwrap();
    send_to_group(script, "m2");
}

fn named(writes: &[(u64, String, String)]) -> Vec<(&str, &str)> {
    writes.iter().map(|(_, id, after)| (id.as_str(), after.as_str())).collect()
}

fn writes(script: &mut Script, count: usize) -> Vec<(u64, String, String)> {
    (0..count).map(|_| next_write(script)).collect()
}

#[test]
fn a_group_command_between_two_sends_keeps_their_order_when_the_first_is_refused() {
    let mut script = Script::live();
    message_add_message(&mut script);
    let first = writes(&mut script, 3);
    // Without a link from g1 to m1 a server that refused m1 would store g1, and m2 behind it: before m1.
    assert_eq!(named(&first), [("m1", ""), ("g1", "m1"), ("m2", "g1")]);
    script.answer(first[0].0, error(ErrorClass::Busy, ErrorCode::RateLimited, 50));
    for (request, _, _) in &first[1..] {
        script.answer(*request, error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0));
    }
    assert!(script.is_silent());
    script.wait_for_deadline();
    while script.core.deadline_ms(script.now_ms).is_some_and(|at_ms| at_ms < script.now_ms + 1_000) {
        script.wait_for_deadline();
    }
    let again = writes(&mut script, 3);
    assert_eq!(named(&again), [("m1", ""), ("g1", "m1"), ("m2", "g1")]);
    assert!(script.is_silent());
}

#[test]
fn a_refused_group_command_takes_everything_behind_it_back_and_nothing_before_it() {
    let mut script = Script::live();
    message_add_message(&mut script);
    let first = writes(&mut script, 3);
    script.answer(first[1].0, error(ErrorClass::Unknown, ErrorCode::TimedOut, 0));
    script.answer(first[2].0, error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0));
    script.answer(first[0].0, crate::script::ack(&group(), 2));
    while script.core.deadline_ms(script.now_ms).is_some_and(|at_ms| at_ms < script.now_ms + 1_000) {
        script.wait_for_deadline();
    }
    // The send before it is stored by now.
    script.expect_pull(&group(), 1);
    assert_eq!(named(&writes(&mut script, 2)), [("g1", ""), ("m2", "g1")]);
}

#[test]
fn what_comes_behind_a_command_refused_for_good_names_the_one_before_it() {
    let mut script = Script::live();
    message_add_message(&mut script);
    let first = writes(&mut script, 3);
    script.answer(first[1].0, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
    script.answer(first[2].0, error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0));
    script.events();
    script.wait_for_deadline();
    assert_eq!(named(&writes(&mut script, 1)), [("m2", "m1")]);
}

#[test]
fn commands_to_one_conversation_are_written_again_in_their_order_on_a_new_connection() {
    let mut script = Script::live();
    message_add_message(&mut script);
    let leave = Request::Leave { group: group(), command_id: Some(id("g2")) };
    script.core.command(Command::Request(leave), script.now_ms).unwrap();
    writes(&mut script, 4);
    script.reconnect();
    script.expect_sync(b"t1");
    let again = writes(&mut script, 4);
    assert_eq!(named(&again), [("m1", ""), ("g1", "m1"), ("m2", "g1"), ("g2", "m2")]);
    // The server stops reading behind `pending_sends_max` commands that write; so do group commands count here.
    send_to_group(&mut script, "m3");
    assert!(script.is_silent());
    script.answer(again[0].0, crate::script::ack(&group(), 1));
    assert_eq!(named(&writes(&mut script, 1)), [("m3", "g2")]);
}

#[test]
fn an_answer_this_client_does_not_know_ends_a_request() {
    let mut script = Script::live();
    let ticket = create(&mut script);
    let (request, _) = next_create(&mut script);
    // Field 1000 of a frame, empty: what a later server may say.
    let frame = [5, 8, request as u8, 0xc2, 0x3e, 0];
    script.core.received(bytes::Bytes::copy_from_slice(&frame), 0);
    assert_eq!(script.events(), [Event::Answered { ticket, answer: Answer::Unknown }]);
}

#[test]
fn a_final_refusal_ends_a_command() {
    let mut script = Script::live();
    let ticket = create(&mut script);
    let (request, _) = next_create(&mut script);
    script.answer(request, error(ErrorClass::Final, ErrorCode::TooLarge, 0));
    let events = script.events();
    assert!(matches!(&events[..], [Event::RequestRefused { ticket: t, .. }] if *t == ticket), "{events:?}");
    script.wait(60_000);
    assert!(script.is_silent());
}

#[test]
fn a_cursor_names_the_epoch_it_belongs_to() {
    let mut script = Script::live();
    let conversation = crate::script::ann_bob();
    let request = Request::MarkRead { conversation, seq: Seq(3), command_id: None };
    script.core.command(Command::Request(request), 0).unwrap();
    let Some(Wire::MarkRead(mark_read)) = script.next().command else { panic!() };
    assert_eq!((mark_read.epoch, mark_read.seq), (EPOCH, 3));
}

#[test]
fn ids_made_by_the_client_differ() {
    let mut script = Script::live();
    let ids: std::collections::BTreeSet<String> = (0..100)
        .map(|_| {
            create(&mut script);
            let (request, id) = next_create(&mut script);
            script.answer(request, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
            id
        })
        .collect();
    assert_eq!(ids.len(), 100);
}
