//! Claims about catching up (contract C4).

use crate::script::{EPOCH, Script, ann_bob, config, entry, error, pulled, pushed, state, synced, user};
use im_client::{Core, Event, History};
use im_proto::LogId;
use im_proto::client::server_frame::Body;
use im_proto::client::{ErrorClass, ErrorCode, SyncHint};
use rand::{SeedableRng as _, rngs::SmallRng};

fn is_synced(events: &[Event]) -> bool {
    events.contains(&Event::Synced)
}

#[test]
fn sync_goes_on_page_by_page_until_complete_and_pulls_what_moved() {
    let mut script = Script::new();
    script.sign_in();
    let sync = script.expect_sync(b"");
    script.answer(sync, Body::Synced(synced("p1", false, vec![state(&ann_bob(), 2)])));
    let sync = script.expect_sync(b"p1");
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(sync, Body::Synced(synced("p2", true, vec![])));
    assert!(!is_synced(&script.events()), "told before the entries");
    script.answer(pull, pulled(&ann_bob(), 1..=2, 2, 1));
    let events = script.events();
    assert!(matches!(&events[..], [Event::Entry { .. }, Event::Entry { .. }, Event::Synced]), "{events:?}");
    assert!(script.is_silent());
}

#[test]
fn pushes_during_sync_are_applied_after_it() {
    let mut script = Script::new();
    script.sign_in();
    let sync = script.expect_sync(b"");
    script.push(pushed(&ann_bob(), entry(3)));
    script.push(pushed(&ann_bob(), entry(4)));
    assert_eq!(script.seqs(), [0; 0]);
    assert!(script.is_silent());
    script.answer(sync, Body::Synced(synced("t1", true, vec![state(&ann_bob(), 2)])));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 2, 1));
    assert_eq!(script.seqs(), [1, 2, 3, 4]);
    assert!(script.is_silent());
}

#[test]
fn more_pushes_during_sync_than_are_kept_are_pulled() {
    let mut script = Script::new();
    script.sign_in();
    let sync = script.expect_sync(b"");
    for seq in 1..=300 {
        script.push(pushed(&ann_bob(), entry(seq)));
    }
    // The head of what was not kept is known at once, so the pull need not wait for the sync.
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(sync, Body::Synced(synced("t1", true, vec![])));
    assert_eq!(script.seqs(), (1..=256).collect::<Vec<_>>());
    script.answer(pull, pulled(&ann_bob(), 1..=200, 300, 1));
    assert_eq!(script.seqs(), [0; 0]);
    script.wait_for_deadline();
    let pull = script.expect_pull(&ann_bob(), 257);
    script.answer(pull, pulled(&ann_bob(), 257..=300, 300, 1));
    assert_eq!(script.seqs(), (257..=300).collect::<Vec<_>>());
}

#[test]
fn a_sync_hint_is_a_sync_unless_it_was_covered() {
    let mut script = Script::live();
    script.push(Body::SyncHint(SyncHint { inbox_version: 10 }));
    assert!(script.is_silent(), "the last sync covered version 10");
    script.push(Body::SyncHint(SyncHint { inbox_version: 11 }));
    let sync = script.expect_sync(b"t1");
    script.push(Body::SyncHint(SyncHint { inbox_version: 12 }));
    script.answer(sync, Body::Synced(synced("t2", true, vec![])));
    script.expect_sync(b"t2");
}

#[test]
fn a_new_epoch_forgets_cursors() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(1)));
    let delay_ms = script.cut();
    script.wait(delay_ms);
    script.core.poll_link();
    script.open();
    script.events();
    script.sign_in_to(EPOCH + 1);
    assert!(script.events().contains(&Event::Reset));
    script.expect_sync(b"");
}

#[test]
fn reset_forgets_cursors() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(1)));
    assert_eq!(script.seqs(), [1]);
    script.push(Body::SyncHint(SyncHint { inbox_version: 0 }));
    let sync = script.expect_sync(b"t1");
    script.answer(sync, error(ErrorClass::Final, ErrorCode::Reset, 0));
    assert_eq!(script.events(), [Event::Reset]);
    let sync = script.expect_sync(b"");
    script.answer(sync, Body::Synced(synced("n1", true, vec![state(&ann_bob(), 1)])));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=1, 1, 1));
    assert_eq!(script.seqs(), [1]);
}

#[test]
fn a_refused_sync_that_is_no_reset_forgets_nothing_and_is_asked_again_after_a_while() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(1)));
    assert_eq!(script.seqs(), [1]);
    script.push(Body::SyncHint(SyncHint { inbox_version: 0 }));
    let mut waited_ms = 0;
    for _ in 0..10 {
        let sync = script.expect_sync(b"t1");
        script.answer(sync, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
        assert!(script.is_silent(), "asked again at once");
        waited_ms += script.wait_for_deadline();
    }
    assert!(waited_ms > 1_000, "asked again and again within {waited_ms} ms");
    assert_eq!(script.events(), []);
    let sync = script.expect_sync(b"t1");
    script.answer(sync, Body::Synced(synced("t2", true, vec![])));
    assert_eq!(script.events(), [Event::Synced]);
}

#[test]
fn a_reset_during_a_sync_voids_its_answer() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.push(Body::SyncHint(SyncHint { inbox_version: 0 }));
    let void = script.expect_sync(b"t1");
    script.answer(pull, error(ErrorClass::Final, ErrorCode::Reset, 0));
    let sync = script.expect_sync(b"");
    script.answer(void, Body::Synced(synced("void", true, vec![])));
    assert!(!is_synced(&script.events()) && script.is_silent());
    script.answer(sync, Body::Synced(synced("n1", true, vec![])));
    assert!(is_synced(&script.events()));
}

#[test]
fn a_failed_sync_is_repeated() {
    let mut script = Script::new();
    script.sign_in();
    let sync = script.expect_sync(b"");
    script.answer(sync, error(ErrorClass::Busy, ErrorCode::Overload, 200));
    script.wait(199);
    assert!(script.is_silent());
    script.wait_for_deadline();
    script.expect_sync(b"");
}

#[test]
fn a_device_that_wants_no_history_begins_behind_the_heads() {
    let mut config = config();
    config.history = History::FromNow;
    let mut script = Script::over(Core::new(config, SmallRng::seed_from_u64(1)));
    script.sign_in();
    let other = LogId::direct(&user("ann"), &user("cid"));
    let sync = script.expect_sync(b"");
    script.answer(sync, Body::Synced(synced("p1", false, vec![state(&ann_bob(), 9)])));
    let sync = script.expect_sync(b"p1");
    script.answer(sync, Body::Synced(synced("t1", true, vec![state(&other, 5)])));
    assert!(script.is_silent() && is_synced(&script.events()));
    script.push(pushed(&ann_bob(), entry(10)));
    assert_eq!(script.seqs(), [10]);
}
