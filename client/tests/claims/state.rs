//! Claims about a client that is stopped and started again with what it stored.

use crate::script::{Script, ann_bob, config, entry, pulled, pushed, state, synced};
use im_client::{ClientState, Core, Event};
use im_proto::client::server_frame::Body;
use rand::{SeedableRng as _, rngs::SmallRng};

fn restarted(script: &Script) -> Script {
    let stored: ClientState = script.core.state();
    Script::over(Core::restore(config(), stored, SmallRng::seed_from_u64(2)).unwrap())
}

#[test]
fn a_restarted_client_goes_on_from_its_token_and_hands_nothing_over_twice() {
    let mut script = Script::live();
    for seq in 1..=3 {
        script.push(pushed(&ann_bob(), entry(seq)));
    }
    let mut script = restarted(&script);
    script.sign_in();
    let sync = script.expect_sync(b"t1");
    script.answer(sync, Body::Synced(synced("t2", true, vec![state(&ann_bob(), 4)])));
    let pull = script.expect_pull(&ann_bob(), 4);
    script.answer(pull, pulled(&ann_bob(), 4..=4, 4, 1));
    assert_eq!(script.seqs(), [4]);
}

#[test]
fn sends_without_an_answer_survive_a_restart_in_order() {
    let mut script = Script::live();
    script.send("m1");
    script.send("m2");
    let mut script = restarted(&script);
    script.sign_in();
    script.expect_sync(b"t1");
    let (_, first, after_first) = script.next_send();
    let (_, second, after_second) = script.next_send();
    assert_eq!([&first, &after_first, &second, &after_second], ["m1", "", "m2", "m1"]);
}

#[test]
fn what_was_known_to_be_missing_is_pulled_after_a_restart() {
    let mut script = Script::live();
    script.push(pushed(&ann_bob(), entry(2)));
    let mut script = restarted(&script);
    script.sign_in();
    // The token is past this conversation: sync will not name it again.
    let sync = script.expect_sync(b"t1");
    script.answer(sync, Body::Synced(synced("t2", true, vec![])));
    let pull = script.expect_pull(&ann_bob(), 1);
    script.answer(pull, pulled(&ann_bob(), 1..=2, 2, 1));
    let events = script.events();
    assert_eq!(events.last(), Some(&Event::Synced));
}

#[test]
fn a_damaged_state_is_refused() {
    let mut state = Script::live().core.state();
    state.conversations.push(im_client::ConversationCursor {
        conversation_id: "no id".to_owned(),
        seq: 1,
        ordinal: 1,
        head_seq: 1,
    });
    assert!(Core::restore(config(), state, SmallRng::seed_from_u64(1)).is_err());
}
