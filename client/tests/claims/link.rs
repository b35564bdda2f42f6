//! Claims about the link: when it is given up, and when it is dialled again.

use crate::script::{Script, config, user};
use im_client::{Cause, Core, Event, LinkAction, Token};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, Closing, Kicked, kicked};
use rand::{SeedableRng as _, rngs::SmallRng};

fn closing(code: CloseCode, reconnect_after_ms: u32) -> Body {
    Body::Closing(Closing { code: code.into(), reconnect_after_ms, detail: String::new() })
}

#[test]
fn no_reconnect_after_a_final_close_code() {
    for code in [CloseCode::BadToken, CloseCode::UserBanned, CloseCode::ProtocolError, CloseCode::UnsupportedVersion] {
        let mut script = Script::live();
        script.push(closing(code, 0));
        let cause = Cause::Closed { code: code.into() };
        assert_eq!(script.events(), [Event::Disconnected { cause, reconnect_after_ms: None }]);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Close));
        script.wait(3_600_000);
        assert_eq!((script.core.poll_link(), script.core.deadline_ms(script.now_ms)), (None, None));
        script.core.connect(script.now_ms);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Connect), "the app may try again");
    }
}

#[test]
fn a_code_that_nobody_knows_yet_goes_by_its_range() {
    for (code, reconnects) in [(4123, true), (4999, false)] {
        let mut script = Script::live();
        script.push(Body::Closing(Closing { code, ..Closing::default() }));
        assert_eq!(script.core.deadline_ms(0).is_some(), reconnects, "{code}");
    }
}

#[test]
fn backoff_obeys_the_server() {
    for seed in 0..200 {
        let mut script = Script::over(Core::new(config(), SmallRng::seed_from_u64(seed)));
        script.sign_in();
        script.push(closing(CloseCode::GoingAway, 7_000));
        let events = script.events();
        let Some(Event::Disconnected { reconnect_after_ms: Some(after_ms), .. }) = events.last() else {
            panic!("seed {seed}: {events:?}")
        };
        assert!((7_000..=7_500).contains(after_ms), "seed {seed}: {after_ms}");
        script.wait(after_ms - 1);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Close));
        assert_eq!(script.core.poll_link(), None, "seed {seed}: dialled too early");
        script.wait(1);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Connect));
    }
}

#[test]
fn the_wait_grows_while_the_server_is_away_and_begins_anew_after_a_sync() {
    let mut script = Script::new();
    let mut longest_ms = 0;
    for _ in 0..12 {
        let delay_ms = script.cut();
        assert!(delay_ms <= 30_000);
        longest_ms = longest_ms.max(delay_ms);
        script.wait(delay_ms);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Connect));
        script.open();
    }
    assert!(longest_ms > 5_000, "{longest_ms}");
    script.sign_in();
    let sync = script.expect_sync(b"");
    script.answer(sync, Body::Synced(crate::script::synced("t", true, vec![])));
    assert!(script.cut() <= 500);
}

#[test]
fn an_expired_token_is_asked_for_and_the_new_one_is_used() {
    let mut script = Script::live();
    script.push(closing(CloseCode::TokenExpired, 0));
    assert_eq!(script.events().last(), Some(&Event::NeedToken));
    assert_eq!(script.core.poll_link(), Some(LinkAction::Close));
    assert_eq!(script.core.deadline_ms(0), None);
    script.core.set_token(Token("fresh".to_owned()), 0);
    assert_eq!(script.core.poll_link(), Some(LinkAction::Connect));
    script.open();
    let Some(im_proto::client::client_frame::Command::SignIn(sign_in)) = script.next().command else { panic!() };
    assert_eq!(sign_in.token, "fresh");
}

#[test]
fn a_kick_that_loses_its_closing_still_stays_away() {
    let mut script = Script::live();
    script.push(Body::Kicked(Kicked { reason: kicked::Reason::Replaced.into(), generation: 9 }));
    script.core.disconnected(0);
    let events = script.events();
    let [Event::Kicked { .. }, Event::Disconnected { cause, reconnect_after_ms: None }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*cause, Cause::Closed { code: CloseCode::ReplacedByNewer.into() });
}

#[test]
fn a_heartbeat_is_written_each_interval_and_a_silent_server_is_left() {
    let mut script = Script::live();
    script.wait(29_999);
    assert!(script.is_silent());
    assert_eq!(script.heartbeats, 0);
    script.wait(1);
    assert!(script.is_silent());
    assert_eq!(script.heartbeats, 1);
    script.core.received(bytes::Bytes::from_static(&[0]), script.now_ms);
    script.wait(74_999);
    assert!(script.events().is_empty());
    script.wait(1);
    let events = script.events();
    assert!(matches!(&events[..], [Event::Disconnected { cause: Cause::Silent, .. }]), "{events:?}");
}

#[test]
fn a_sign_in_without_an_answer_is_given_up_after_ten_seconds() {
    let mut script = Script::new();
    script.wait(10_000);
    let events = script.events();
    assert!(
        matches!(&events[..], [Event::Connected, Event::Disconnected { reconnect_after_ms: Some(_), .. }]),
        "{events:?}"
    );
}

#[test]
fn a_stream_that_is_no_protocol_is_left() {
    for bytes in [&[0xff; 16][..], &[2, 0xff, 0xff]] {
        let mut script = Script::live();
        script.core.received(bytes::Bytes::copy_from_slice(bytes), 0);
        let events = script.events();
        assert!(matches!(&events[..], [Event::Disconnected { cause: Cause::BadFrame, .. }]), "{events:?}");
    }
}

#[test]
fn a_token_of_somebody_else_is_not_used() {
    let mut config = config();
    config.user = user("bob");
    let mut script = Script::over(Core::new(config, SmallRng::seed_from_u64(1)));
    script.sign_in();
    let last = script.events().pop();
    assert_eq!(last, Some(Event::Disconnected { cause: Cause::WrongUser, reconnect_after_ms: None }));
}

#[test]
fn a_token_is_never_printed() {
    assert!(!format!("{:?}", config()).contains("secret"));
}

/// By these the server knows the later of two sign-ins that overtook each other.
#[test]
fn each_sign_in_says_which_dial_of_this_run_it_belongs_to() {
    let mut script = Script::new();
    let mut said = Vec::new();
    for _ in 0..3 {
        let Some(Command::SignIn(sign_in)) = script.next().command else { panic!("no sign-in") };
        said.push((sign_in.client_run, sign_in.dial));
        // It ends before it is answered.
        let delay_ms = script.cut();
        script.wait(delay_ms);
        assert_eq!(script.core.poll_link(), Some(LinkAction::Connect));
        script.open();
    }
    let run = said[0].0;
    assert!(run != 0, "0 says nothing");
    assert_eq!(said, [(run, 1), (run, 2), (run, 3)]);
    let mut other = Script::over(Core::new(config(), SmallRng::seed_from_u64(2)));
    let Some(Command::SignIn(sign_in)) = other.next().command else { panic!("no sign-in") };
    assert!(sign_in.client_run != run && sign_in.dial == 1, "another run counts for itself");
}
