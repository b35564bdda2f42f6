//! What a session promises, one claim a test. The time is a number.
#![allow(clippy::unwrap_used)]

mod kit;

use im_codec::Action;
use im_codec::given::Move;
use im_codec::limits::{PENDING_READS_MAX, PENDING_WRITES_MAX, REQUEST_TIMEOUT_MS, VERSIONS_TIMEOUT_MS};
use im_codec::session::Told;
use im_proto::InboxVersion;
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, client_frame::Command, server_frame::Body};
use kit::{Driven, asked, bodies, closed, errors, forwarded, frame, login, send, sign_in, sync};

#[test]
fn anything_before_sign_in_closes() {
    for bytes in [vec![0], frame(1, send("m1")), frame(0, sign_in()), vec![1, 0x0f]] {
        assert_eq!(closed(&Driven::new().bytes(&bytes)), Some(CloseCode::ProtocolError), "{bytes:?}");
    }
}

#[test]
fn a_sign_in_that_cannot_stand_closes_before_the_logic_is_asked() {
    let check = |change: fn(&mut client::SignIn), code| {
        let Command::SignIn(mut sign_in) = sign_in() else { unreachable!() };
        change(&mut sign_in);
        let actions = Driven::new().frame(1, Command::SignIn(sign_in));
        assert_eq!(closed(&actions), Some(code));
        assert!(!actions.iter().any(|action| matches!(action, Action::SignIn(_))));
    };
    check(|s| s.protocol_version = 2, CloseCode::UnsupportedVersion);
    check(|s| s.token.clear(), CloseCode::BadToken);
    check(|s| s.token = "x".repeat(4097), CloseCode::BadToken);
    check(|s| s.device_id.clear(), CloseCode::ProtocolError);
    check(|s| s.platform = "a b".into(), CloseCode::ProtocolError);
}

#[test]
fn what_follows_the_sign_in_waits_for_its_answer() {
    let mut driven = Driven::new();
    let stream = [frame(1, sign_in()), frame(2, send("m1")), vec![0], frame(3, sync())].concat();
    assert!(matches!(driven.bytes(&stream)[..], [Action::SignIn(_)]));
    assert!(!driven.session.wants_bytes());
    let actions = driven.sign_in_stands(login());
    assert!(matches!(
        actions[..],
        [Action::Write(_), Action::Forward { request_id: 2, .. }, Action::Heartbeat, Action::Ask { request_id: 3, .. }]
    ));
    assert!(driven.session.wants_bytes());
}

#[test]
fn a_second_sign_in_closes() {
    assert_eq!(closed(&Driven::signed_in().frame(2, sign_in())), Some(CloseCode::ProtocolError));
}

#[test]
fn a_connection_that_does_not_sign_in_in_time_closes() {
    let mut silent = Driven::new();
    assert_eq!(silent.session.deadline_ms(), Some(1_000 + 3_000));
    assert_eq!(closed(&silent.pass(2_999)), None);
    assert_eq!(closed(&silent.pass(1)), Some(CloseCode::SignInTimeout));
    let mut slow = Driven::new();
    slow.bytes(&[40]);
    assert_eq!(closed(&slow.pass(4_999)), None);
    assert_eq!(closed(&slow.pass(1)), Some(CloseCode::SignInTimeout));
    let mut unanswered = Driven::new();
    unanswered.frame(1, sign_in());
    assert_eq!(closed(&unanswered.pass(5_000)), Some(CloseCode::SignInTimeout));
    assert!(!unanswered.session.signed_in(login(), 9_999, 0, &mut Vec::new()), "too late");
}

#[test]
fn a_request_id_of_0_or_in_use_closes() {
    let mut driven = Driven::signed_in();
    driven.frame(2, send("m1"));
    assert_eq!(closed(&driven.frame(2, sync())), Some(CloseCode::ProtocolError));
    assert_eq!(closed(&Driven::signed_in().frame(0, sync())), Some(CloseCode::ProtocolError));
    let mut answered = Driven::signed_in();
    answered.frame(2, send("m1"));
    answered.answer(2);
    assert_eq!(forwarded(&answered.frame(2, send("m2"))), [2]);
}

#[test]
fn the_33rd_unanswered_send_stops_reading_and_goes_on_with_an_answer() {
    let mut driven = Driven::signed_in();
    let stream: Vec<u8> = (2..=40).flat_map(|id| frame(id, send(&format!("m{id}")))).collect();
    let actions = driven.bytes(&stream);
    assert_eq!(forwarded(&actions), (2..=33).collect::<Vec<_>>());
    assert_eq!(driven.session.pending_requests(), PENDING_WRITES_MAX);
    assert!(!driven.session.wants_bytes());
    for answered in 2..=40u64 {
        let (_, actions) = driven.answer(answered);
        let next = answered + PENDING_WRITES_MAX as u64;
        assert_eq!(forwarded(&actions), if next <= 40 { vec![next] } else { vec![] });
    }
    assert!(driven.session.wants_bytes());
}

#[test]
fn reads_are_bounded_apart_from_sends() {
    let mut driven = Driven::signed_in();
    let reads: Vec<u8> = (2..=18).flat_map(|id| frame(id, sync())).collect();
    assert_eq!(asked(&driven.bytes(&reads)).len(), PENDING_READS_MAX);
    assert!(!driven.session.wants_bytes());
    assert_eq!(asked(&driven.answer(5).1), [18]);
    assert_eq!(forwarded(&driven.frame(50, send("m1"))), [50]);
}

#[test]
fn a_request_without_an_answer_ends_unknown_after_10_s() {
    let mut driven = Driven::signed_in();
    driven.frame(2, send("m1"));
    driven.now_ms += 4_000;
    driven.frame(3, sync());
    assert_eq!(errors(&driven.pass(REQUEST_TIMEOUT_MS - 4_001)), []);
    assert_eq!(errors(&driven.pass(1)), [(ErrorClass::Unknown, ErrorCode::TimedOut)]);
    assert_eq!(errors(&driven.pass(4_000)), [(ErrorClass::Unknown, ErrorCode::TimedOut)]);
}

#[test]
fn a_late_answer_is_not_taken_for_the_answer_of_a_later_request() {
    let mut driven = Driven::signed_in();
    driven.frame(2, send("m1"));
    driven.pass(REQUEST_TIMEOUT_MS);
    assert_eq!(errors(&driven.frame(2, send("m2"))), [(ErrorClass::Retry, ErrorCode::Unavailable)]);
    let (taken, actions) = driven.answer(2);
    assert!(!taken && actions.is_empty());
    assert_eq!(forwarded(&driven.frame(2, send("m2"))), [2]);
}

#[test]
fn a_stalled_session_goes_on_when_a_request_times_out() {
    let mut driven = Driven::signed_in();
    let stream: Vec<u8> = (2..=34).flat_map(|id| frame(id, send(&format!("m{id}")))).collect();
    driven.bytes(&stream);
    let actions = driven.pass(REQUEST_TIMEOUT_MS);
    assert_eq!(errors(&actions).len(), PENDING_WRITES_MAX);
    assert_eq!(forwarded(&actions), [34]);
    assert!(driven.session.wants_bytes());
}

#[test]
fn a_refused_command_is_answered_and_the_session_goes_on() {
    let mut driven = Driven::signed_in();
    assert_eq!(errors(&driven.frame(2, send("no id"))), [(ErrorClass::Final, ErrorCode::InvalidArgument)]);
    let unknown =
        im_codec::encode_delimited(&client::ClientFrame { request_id: 2, command: None, ..Default::default() });
    assert_eq!(errors(&driven.bytes(&unknown)), [(ErrorClass::Final, ErrorCode::UnknownCommand)]);
    // A command of a later version: field 99.
    assert_eq!(errors(&driven.bytes(&[5, 8, 2, 0x9a, 6, 0])), [(ErrorClass::Final, ErrorCode::UnknownCommand)]);
    assert_eq!(forwarded(&driven.frame(2, send("m1"))), [2]);
}

#[test]
fn commands_above_the_rate_are_answered_busy_with_the_time_to_wait() {
    let mut driven = Driven::signed_in_with(|l| (l.command_rate_per_s, l.command_burst) = (10, 2));
    for id in 2..=3 {
        assert_eq!(forwarded(&driven.frame(id, send("m"))), [id]);
    }
    let actions = driven.frame(4, send("m"));
    let Body::Error(error) = &bodies(&actions)[0] else { panic!("{actions:?}") };
    assert_eq!((error.class(), error.code(), error.retry_after_ms), (ErrorClass::Busy, ErrorCode::RateLimited, 100));
    driven.now_ms += 100;
    assert_eq!(forwarded(&driven.frame(4, send("m"))), [4]);
}

#[test]
fn a_heartbeat_is_answered_by_one_or_by_a_hint() {
    let mut driven = Driven::signed_in();
    assert!(matches!(driven.bytes(&[0])[..], [Action::Heartbeat]));
    assert!(matches!(&driven.version(10)[..], [Action::Write(bytes)] if bytes[..] == [0]));
    driven.bytes(&[0]);
    assert!(matches!(&bodies(&driven.version(11))[..], [Body::SyncHint(hint)] if hint.inbox_version == 11));
    // Until the client has synced it is told again.
    driven.bytes(&[0]);
    assert!(matches!(&bodies(&driven.version(11))[..], [Body::SyncHint(_)]));
    driven.frame(2, sync());
    driven.answer_told(2, Told::UpTo(InboxVersion(11)));
    driven.bytes(&[0]);
    assert!(matches!(&driven.version(11)[..], [Action::Write(bytes)] if bytes[..] == [0]));
}

#[test]
fn a_push_and_the_senders_own_answer_advance_what_was_given() {
    let mut driven = Driven::signed_in();
    driven.session.pushed(Move { previous: InboxVersion(10), version: InboxVersion(12) });
    driven.frame(2, send("m1"));
    driven.answer_told(2, Told::Move(Move { previous: InboxVersion(12), version: InboxVersion(13) }));
    assert_eq!(driven.session.given(), Some(InboxVersion(13)));
    driven.session.pushed(Move { previous: InboxVersion(14), version: InboxVersion(15) });
    assert_eq!(driven.session.given(), Some(InboxVersion(13)));
}

#[test]
fn a_heartbeat_is_answered_in_time_though_the_logic_is_silent() {
    let mut driven = Driven::signed_in();
    driven.bytes(&[0]);
    assert!(driven.pass(VERSIONS_TIMEOUT_MS - 1).is_empty());
    assert!(matches!(&driven.pass(1)[..], [Action::Write(bytes)] if bytes[..] == [0]));
    assert!(driven.version(10).is_empty(), "a late version that is no news answers nothing");
}

#[test]
fn a_version_that_comes_late_takes_no_hint_from_the_heartbeat_behind_it() {
    let mut driven = Driven::signed_in();
    driven.bytes(&[0]);
    driven.pass(VERSIONS_TIMEOUT_MS);
    // The first heartbeat's version comes only now, and is older than what moved since.
    assert!(matches!(driven.bytes(&[0])[..], [Action::Heartbeat]));
    assert!(matches!(&driven.version(10)[..], [Action::Write(bytes)] if bytes[..] == [0]));
    assert!(matches!(&bodies(&driven.version(11))[..], [Body::SyncHint(hint)] if hint.inbox_version == 11));
}

#[test]
fn a_flood_of_heartbeats_closes() {
    let mut driven = Driven::signed_in();
    assert_eq!(closed(&driven.bytes(&[0; 20])), None);
    assert_eq!(closed(&driven.bytes(&[0])), Some(CloseCode::Overloaded));
    let mut steady = Driven::signed_in();
    for _ in 0..100 {
        steady.now_ms += 100;
        assert_eq!(closed(&steady.bytes(&[0])), None);
    }
}

#[test]
fn a_silent_client_closes_unless_the_silence_is_ours() {
    let idle = u64::from(im_codec::SessionLimits::default().idle_timeout_ms);
    let mut driven = Driven::signed_in();
    assert_eq!(closed(&driven.pass(idle - 1)), None);
    driven.bytes(&[0]);
    driven.version(10);
    assert_eq!(closed(&driven.pass(idle - 1)), None);
    assert_eq!(closed(&driven.pass(1)), Some(CloseCode::IdleTimeout));

    let mut paused = Driven::signed_in();
    paused.session.pause();
    assert_eq!(closed(&paused.pass(10 * idle)), None);
    paused.session.resume(paused.now_ms);
    assert_eq!(closed(&paused.pass(idle - 1)), None);
    assert_eq!(closed(&paused.pass(1)), Some(CloseCode::IdleTimeout));
}

#[test]
fn a_frame_that_stops_in_the_middle_closes_and_a_slow_but_whole_one_does_not() {
    let mut driven = Driven::signed_in();
    let bytes = frame(2, send("m1"));
    driven.bytes(&bytes[..3]);
    driven.now_ms += 9_000;
    assert_eq!(forwarded(&driven.bytes(&bytes[3..])), [2]);
    // A second one begins in the same read as the first ends: its time begins there.
    driven.answer(2);
    driven.bytes(&bytes[..3]);
    driven.now_ms += 9_000;
    driven.bytes(&[&bytes[3..], &bytes[..3]].concat());
    driven.answer(2);
    assert_eq!(closed(&driven.pass(9_999)), None);
    assert_eq!(closed(&driven.pass(1)), Some(CloseCode::ProtocolError));
}

#[test]
fn a_kick_ends_the_login_it_names_and_no_other() {
    let mut driven = Driven::signed_in();
    assert!(driven.kick(4).is_empty());
    let actions = driven.kick(5);
    assert!(matches!(bodies(&actions)[..], [Body::Kicked(_), Body::Closing(_)]));
    assert_eq!(closed(&actions), Some(CloseCode::ReplacedByNewer));
    let Some(Action::Close { login: Some(ended), .. }) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(**ended, login());
}

#[test]
fn a_kick_that_overtakes_the_sign_in_it_ends_is_not_lost() {
    let mut driven = Driven::new();
    driven.frame(1, sign_in());
    assert!(driven.kick(5).is_empty());
    assert_eq!(closed(&driven.sign_in_stands(login())), Some(CloseCode::ReplacedByNewer));
}

#[test]
fn a_login_ends_with_its_token() {
    let mut driven = Driven::new();
    driven.frame(1, sign_in());
    driven.sign_in_stands(im_codec::Login { token_expires_at_ms: Some(5_000), ..login() });
    assert_eq!(driven.session.deadline_ms(), Some(5_000));
    assert_eq!(closed(&driven.pass(4_000)), Some(CloseCode::TokenExpired));
}

#[test]
fn a_closing_session_does_nothing_more() {
    let mut driven = Driven::signed_in();
    driven.frame(2, send("m1"));
    driven.bytes(&[0x80, 0x00]);
    assert!(driven.session.is_closing());
    assert!(driven.frame(3, send("m2")).is_empty());
    assert!(!driven.answer(2).0);
    assert!(driven.kick(5).is_empty());
    assert!(driven.pass(1_000_000).is_empty());
    assert_eq!(driven.session.deadline_ms(), None);
    assert_eq!(driven.session.end(), None);
}
