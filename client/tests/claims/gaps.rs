//! Claims about receiving: each entry once, in order, without a hole (contract C3, C4).

use crate::script::{EPOCH, Script, ack, ann_bob, entry, error, pulled, pushed, user};
use im_client::Event;
use im_proto::LogId;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ErrorClass, ErrorCode};

#[test]
fn entries_that_come_twice_are_handed_over_once() {
    let mut script = Script::live();
    for seq in [1, 2, 1, 2, 3, 3] {
        script.push(pushed(&ann_bob(), entry(seq)));
    }
    assert_eq!(script.seqs(), [1, 2, 3]);
    assert!(script.is_silent());
}

#[test]
fn a_gap_is_pulled() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(1)));
    script.push(pushed(&ann_bob(), entry(4)));
    assert_eq!(script.seqs(), [1]);
    let pull = script.expect_pull(&ann_bob(), 2);
    script.push(pushed(&ann_bob(), entry(5)));
    script.answer(pull, pulled(&ann_bob(), 2..=3, 4, 1));
    assert_eq!(script.seqs(), [2, 3, 4, 5]);
    assert!(script.is_silent());
}

#[test]
fn pages_are_pulled_until_the_head() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(5)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 9, 1));
    let pull = script.expect_pull(&ann_bob(), 3);
    script.answer(pull, pulled(&ann_bob(), 3..=9, 9, 1));
    assert_eq!(script.seqs(), (1..=9).collect::<Vec<_>>());
    assert!(script.is_silent());
}

#[test]
fn more_than_64_entries_ahead_are_pulled_instead_of_kept() {
    let mut script = Script::live();
    for seq in 2..=100 {
        script.push(pushed(&ann_bob(), entry(seq)));
    }
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=1, 1, 1));
    assert_eq!(script.seqs(), (1..=65).collect::<Vec<_>>());
    let pull = script.expect_pull(&ann_bob(), 66);
    script.answer(pull, pulled(&ann_bob(), 66..=100, 100, 1));
    assert_eq!(script.seqs(), (66..=100).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_joined_later_begins_at_its_floor() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(7)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 6..=7, 7, 6));
    assert_eq!(script.seqs(), [6, 7]);
    assert!(script.is_silent());
}

#[test]
fn a_pull_without_an_answer_is_repeated() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, error(ErrorClass::Retry, ErrorCode::Unavailable, 100));
    assert!(script.is_silent());
    script.wait_for_deadline();
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 2, 1));
    assert_eq!(script.seqs(), [1, 2]);
}

#[test]
fn an_answer_that_does_not_reach_the_head_is_asked_again_later_and_not_at_once() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), [], 0, 1));
    assert!(script.is_silent());
    script.wait_for_deadline();
    script.expect_pull(&ann_bob(), 1);
}

#[test]
fn a_pull_cut_off_by_the_link_is_asked_on_the_next() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    script.expect_pull(&ann_bob(), 1);
    script.reconnect();
    script.expect_sync(b"t1");
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 2, 1));
    assert_eq!(script.seqs(), [1, 2]);
}

#[test]
fn a_refused_pull_is_told_and_not_repeated() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, error(ErrorClass::Final, ErrorCode::NotAllowed, 0));
    let events = script.events();
    assert!(matches!(&events[..], [Event::Unreadable { .. }]), "{events:?}");
    assert!(script.is_silent());
}

#[test]
fn an_ack_ahead_of_the_cursor_waits_for_what_lies_between() {
    let mut script = Script::live();
    script.send("m1");
    let (request, _, _) = script.next_send();
    script.answer(request, ack(&ann_bob(), 3));
    assert_eq!(script.seqs(), [0; 0]);
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 3, 1));
    let events = script.events();
    let Some(Event::Entry { entry, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((entry.seq, entry.ordinal, entry.client_id.as_str()), (3, 3, "m1"));
}

#[test]
fn pushes_of_another_epoch_are_ignored() {
    let mut script = Script::live();
    let stale = client::EntryPushed { conversation_id: (&ann_bob()).into(), epoch: EPOCH + 1, entry: Some(entry(1)) };
    script.push(Body::Entry(stale));
    assert!(script.events().is_empty());
}

#[test]
fn the_users_own_cursor_is_told_from_its_log() {
    let mut script = Script::live();
    let log = LogId::user(&user("ann"));
    let moved = |seq| client::Entry {
        seq,
        content: Some(client::entry::Content::ReadMoved(client::ReadMoved {
            conversation_id: (&ann_bob()).into(),
            seq: 10 + seq,
            ordinal: seq,
        })),
        ..Default::default()
    };
    // The sync before this covered the log up to 2.
    script.push(pushed(&log, moved(4)));
    let pull = script.expect_pull(&log, 3);
    let entries = vec![moved(3), moved(4)];
    let answer = client::Pulled { conversation_id: (&log).into(), epoch: EPOCH, head_seq: 4, floor_seq: 1, entries };
    script.answer(pull, Body::Pulled(answer));
    script.push(Body::SyncHint(client::SyncHint { inbox_version: 11 }));
    let sync = script.expect_sync(b"t1");
    let user_entries = vec![moved(3), moved(4), moved(5)];
    let page = client::Synced { user_entries, user_log_seq: 5, ..crate::script::synced("t2", true, vec![]) };
    script.answer(sync, Body::Synced(page));
    let seqs = script.events().into_iter().filter_map(|event| match event {
        Event::ReadMoved { seq, .. } => Some(seq.0),
        _ => None,
    });
    assert_eq!(seqs.collect::<Vec<_>>(), [13, 14, 15]);
    assert!(script.is_silent());
}
