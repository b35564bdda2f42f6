//! Claims about sends: order, repetition, what ends them (contract C2, C3).

use crate::script::{Script, ack, ann_bob, entry, error, id, pulled, pushed, state, synced, user};
use bytes::Bytes;
use im_client::{Command, Event, Recipient};
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{ConversationState, Entry, ErrorClass, ErrorCode, SyncHint};

fn sends(script: &mut Script, count: usize) -> Vec<(u64, String, String)> {
    (0..count).map(|_| script.next_send()).collect()
}

fn named(sends: &[(u64, String, String)]) -> Vec<(&str, &str)> {
    sends.iter().map(|(_, id, after)| (id.as_str(), after.as_str())).collect()
}

fn retry() -> Body {
    error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0)
}

#[test]
fn a_send_is_acked_and_handed_over_as_an_entry_once() {
    let mut script = Script::live();
    let ticket = script.send("m1");
    let (request, _, _) = script.next_send();
    script.answer(request, ack(&ann_bob(), 1));
    let events = script.events();
    assert!(matches!(&events[0], Event::Acked { ticket: t, seq, .. } if *t == ticket && seq.0 == 1), "{events:?}");
    let Event::Entry { entry, .. } = &events[1] else { panic!("{events:?}") };
    assert_eq!((entry.seq, entry.ordinal, entry.client_id.as_str()), (1, 1, "m1"));
    assert_eq!(events.len(), 2);
    assert!(script.is_silent());
}

#[test]
fn a_lost_ack_is_resent_with_the_same_id() {
    let mut script = Script::live();
    script.send("m1");
    assert_eq!(named(&sends(&mut script, 1)), [("m1", "")]);
    script.reconnect();
    script.expect_sync(b"t1");
    let (request, id, after) = script.next_send();
    assert_eq!((id.as_str(), after.as_str()), ("m1", ""));
    script.answer(request, ack(&ann_bob(), 1));
    assert!(script.events().iter().any(|event| matches!(event, Event::Acked { seq, .. } if seq.0 == 1)));
    assert!(script.is_silent());
}

#[test]
fn an_unanswered_send_is_repeated_after_ten_seconds() {
    let mut script = Script::live();
    script.send("m1");
    let (first, _, _) = script.next_send();
    script.wait(10_000);
    script.wait_for_deadline();
    let (second, id, _) = script.next_send();
    assert_eq!(id, "m1");
    assert_ne!(first, second, "a request id that is still unanswered is a protocol error");
}

#[test]
fn pipelined_sends_name_the_one_before_and_stop_at_the_servers_limit() {
    let mut script = Script::live();
    for n in 1..=6 {
        script.send(&format!("m{n}"));
    }
    let first = sends(&mut script, 4);
    assert_eq!(named(&first), [("m1", ""), ("m2", "m1"), ("m3", "m2"), ("m4", "m3")]);
    assert!(script.is_silent(), "a fifth send above pending_sends_max");
    script.answer(first[0].0, ack(&ann_bob(), 1));
    assert_eq!(named(&sends(&mut script, 1)), [("m5", "m4")]);
}

#[test]
fn sends_behind_a_retry_are_resent_in_order() {
    let mut script = Script::live();
    for n in 1..=3 {
        script.send(&format!("m{n}"));
    }
    let first = sends(&mut script, 3);
    script.answer(first[0].0, ack(&ann_bob(), 1));
    script.answer(first[1].0, error(ErrorClass::Retry, ErrorCode::Unavailable, 500));
    script.answer(first[2].0, retry());
    assert!(script.is_silent(), "repeated before the delay the server asked for");
    script.wait(499);
    assert!(script.is_silent());
    script.wait_for_deadline();
    assert_eq!(named(&sends(&mut script, 2)), [("m2", ""), ("m3", "m2")]);
    assert!(script.is_silent());
}

#[test]
fn an_error_to_an_attempt_that_was_given_up_changes_nothing() {
    let mut script = Script::live();
    script.send("m1");
    script.send("m2");
    let first = sends(&mut script, 2);
    script.answer(first[0].0, retry());
    script.wait_for_deadline();
    let second = sends(&mut script, 2);
    script.answer(first[1].0, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
    assert!(script.events().is_empty() && script.is_silent());
    script.answer(second[0].0, ack(&ann_bob(), 1));
    script.answer(second[1].0, ack(&ann_bob(), 2));
    assert_eq!(script.seqs(), [1, 2]);
}

#[test]
fn an_ack_to_an_attempt_that_was_given_up_counts() {
    let mut script = Script::live();
    script.send("m1");
    script.send("m2");
    let first = sends(&mut script, 2);
    script.answer(first[0].0, error(ErrorClass::Unknown, ErrorCode::TimedOut, 0));
    script.answer(first[1].0, ack(&ann_bob(), 2));
    script.expect_pull(&ann_bob(), 1);
    script.wait_for_deadline();
    assert_eq!(named(&sends(&mut script, 1)), [("m1", "")]);
    assert!(script.is_silent(), "m2 is stored");
}

#[test]
fn a_final_refusal_ends_one_send_and_not_those_behind_it() {
    let mut script = Script::live();
    let ticket = script.send("m1");
    script.send("m2");
    let first = sends(&mut script, 2);
    script.answer(first[0].0, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
    let events = script.events();
    let [Event::Refused { ticket: refused, refusal, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*refused, refusal.code), (ticket, ErrorCode::NotAllowed));
    script.answer(first[1].0, ack(&ann_bob(), 1));
    assert_eq!(script.seqs(), [1]);
    assert!(script.is_silent());
}

#[test]
fn busy_pauses_every_conversation_for_as_long_as_the_server_asked() {
    let mut script = Script::live();
    script.send("m1");
    let (request, _, _) = script.next_send();
    script.answer(request, error(ErrorClass::Busy, ErrorCode::RateLimited, 300));
    let to = Recipient::User(user("cid"));
    let other = Command::Send { to, client_message_id: Some(id("other")), body: Bytes::new() };
    script.core.command(other, script.now_ms).unwrap();
    assert!(script.is_silent());
    script.wait(299);
    assert!(script.is_silent());
    script.wait(5_000);
    let mut ids: Vec<String> = sends(&mut script, 2).into_iter().map(|(_, id, _)| id).collect();
    ids.sort();
    assert_eq!(ids, ["m1", "other"]);
}

#[test]
fn a_user_and_its_conversation_share_one_lane() {
    let mut script = Script::live();
    script.send("m1");
    let to = Recipient::Conversation(ann_bob());
    let same = Command::Send { to, client_message_id: Some(id("m2")), body: Bytes::new() };
    script.core.command(same, 0).unwrap();
    assert_eq!(named(&sends(&mut script, 2)), [("m1", ""), ("m2", "m1")]);
}

fn send_to_conversation(script: &mut Script, message_id: &str) -> u64 {
    let to = Recipient::Conversation(ann_bob());
    let command = Command::Send { to, client_message_id: Some(id(message_id)), body: message_id.to_owned().into() };
    script.core.command(command, script.now_ms).unwrap();
    script.next_send().0
}

/// The receivers that the entries handed over since the last look name, by seq.
fn receivers(script: &mut Script) -> Vec<(u64, String)> {
    let receiver = |event| match event {
        Event::Entry { entry: Entry { seq, content: Some(Content::Message(message)), .. }, .. } => {
            Some((seq, message.to_user_id))
        }
        _ => None,
    };
    script.events().into_iter().filter_map(receiver).collect()
}

#[test]
fn a_message_to_a_conversation_names_the_same_receiver_here_as_everywhere() {
    let to_bob = |seq| (seq, "bob".to_owned());
    // Told by the state of a sync.
    let mut script = Script::live();
    script.push(Body::SyncHint(SyncHint { inbox_version: 0 }));
    let sync = script.expect_sync(b"t1");
    let state = ConversationState { peer_user_id: "bob".to_owned(), ..state(&ann_bob(), 0) };
    script.answer(sync, Body::Synced(synced("t2", true, vec![state])));
    let request = send_to_conversation(&mut script, "m1");
    script.answer(request, ack(&ann_bob(), 1));
    assert_eq!(receivers(&mut script), [to_bob(1)]);

    // Told by an entry of the peer's.
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(1)));
    let request = send_to_conversation(&mut script, "m2");
    script.answer(request, ack(&ann_bob(), 2));
    assert_eq!(receivers(&mut script), [(1, "ann".to_owned()), to_bob(2)]);

    // Told by a message of ann's own.
    let mut script = Script::live();
    script.send("m1");
    let (request, ..) = script.next_send();
    script.answer(request, ack(&ann_bob(), 1));
    let request = send_to_conversation(&mut script, "m2");
    script.answer(request, ack(&ann_bob(), 2));
    assert_eq!(receivers(&mut script), [to_bob(1), to_bob(2)]);
    assert!(script.is_silent());
}

#[test]
fn a_message_to_a_conversation_whose_users_are_not_known_here_is_read_from_the_log() {
    let mut script = Script::live();
    let request = send_to_conversation(&mut script, "m1");
    script.answer(request, ack(&ann_bob(), 1));
    assert_eq!(receivers(&mut script), []);
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=1, 1, 1));
    assert_eq!(receivers(&mut script).len(), 1);
    let request = send_to_conversation(&mut script, "m2");
    script.answer(request, ack(&ann_bob(), 2));
    assert_eq!(receivers(&mut script), [(2, "bob".to_owned())]);
    assert!(script.is_silent());
}

#[test]
fn an_ack_during_a_sync_of_a_message_whose_receiver_is_not_known_is_told_of_by_another_sync() {
    let mut script = Script::new();
    script.sign_in();
    let sync = script.expect_sync(b"");
    let request = send_to_conversation(&mut script, "m1");
    script.answer(request, ack(&ann_bob(), 1));
    script.answer(sync, Body::Synced(synced("t1", true, vec![])));
    let sync = script.expect_sync(b"t1");
    script.answer(sync, Body::Synced(synced("t2", true, vec![state(&ann_bob(), 1)])));
    script.expect_pull(&ann_bob(), 1);
}

#[test]
fn a_send_above_the_frame_limit_is_refused_here_and_the_connection_lives() {
    let mut script = Script::live();
    script.send("m1");
    let large = Command::Send {
        to: Recipient::User(user("bob")),
        client_message_id: Some(id("large")),
        body: Bytes::from(vec![0; 2_000]),
    };
    script.core.command(large, 0).unwrap();
    script.send("m2");
    let events = script.events();
    let [Event::Refused { refusal, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(refusal.code, ErrorCode::TooLarge);
    assert_eq!(named(&sends(&mut script, 2)), [("m1", ""), ("m2", "m1")]);
}

#[test]
fn a_full_outbox_refuses_the_next_send() {
    let mut script = Script::live();
    for n in 0..10_000 {
        script.send(&format!("m{n}"));
    }
    let one_more = Command::Send { to: Recipient::User(user("bob")), client_message_id: None, body: Bytes::new() };
    assert!(script.core.command(one_more, 0).is_err());
}
