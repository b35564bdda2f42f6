//! Claims about commands other than sends: one id until the final answer (contract C2, C5).

use crate::script::{EPOCH, Script, error, user};
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
            next_create(&mut script).1
        })
        .collect();
    assert_eq!(ids.len(), 100);
}
