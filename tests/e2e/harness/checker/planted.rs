//! The checker checked: a history without a breach, and the same with each breach planted.

use super::{Breach, check};
use crate::harness::history::{Device, Event, History, Op, What};
use crate::harness::read_back::{ReadBack, ReadConversation};
use im_proto::client::entry::Content;
use im_proto::client::{ConversationState, Entry, Message};

const LOG: &str = "d-of-ann-and-bob";
const EPOCH: u64 = 7;

fn device(user: &str) -> Device {
    Device { user: user.to_owned(), device: "phone".to_owned() }
}

fn body(id: &str) -> Vec<u8> {
    format!("body of {id}").into_bytes()
}

fn entry(seq: u64, sender: &str, id: &str) -> Entry {
    Entry {
        seq,
        ordinal: seq,
        server_time_ms: 1000 + seq as i64,
        sender_user_id: sender.to_owned(),
        client_id: id.to_owned(),
        content: Some(Content::Message(Message { body: body(id).into(), to_user_id: String::new() })),
    }
}

/// Ann sends m1 and m2 pipelined; when both are acked, Bob sends m3; both devices show all three; Bob reads all.
struct Run {
    events: Vec<Event>,
    read: Vec<ReadBack>,
}

impl Run {
    fn good() -> Self {
        let history = History::default();
        let [ann, bob] = ["ann", "bob"].map(device);
        let invoke = |who: &Device, id: &str| history.lock().invoked(who, LOG, id, What::Message(body(id)));
        let ack = |op: Op, seq: u64| {
            history.record(Event::Stored { op, epoch: EPOCH, seq, server_time_ms: 1000 + seq as i64 });
        };
        let (m1, m2) = (invoke(&ann, "m1"), invoke(&ann, "m2"));
        ack(m1, 1);
        ack(m2, 2);
        let m3 = invoke(&bob, "m3");
        ack(m3, 3);
        let entries = vec![entry(1, "ann", "m1"), entry(2, "ann", "m2"), entry(3, "bob", "m3")];
        for who in [&ann, &bob] {
            for entry in &entries {
                let (device, log) = (who.clone(), LOG.to_owned());
                history.record(Event::Applied { device, log, entry: entry.clone() });
            }
        }
        history.record(Event::ReadMarked { device: bob.clone(), log: LOG.to_owned(), seq: 3 });
        let state = |own: (u64, u64), peer: &str, peer_read: u64| ConversationState {
            conversation_id: LOG.to_owned(),
            head_seq: 3,
            head_ordinal: 3,
            floor_seq: 1,
            read_seq: own.0,
            read_ordinal: own.1,
            peer_user_id: peer.to_owned(),
            peer_read_seq: peer_read,
            member: true,
            ..Default::default()
        };
        let read_back = |user: &str, device: &str, state: ConversationState| ReadBack {
            user: user.to_owned(),
            device: device.to_owned(),
            epoch: EPOCH,
            conversations: vec![ReadConversation { state, entries: entries.clone() }],
        };
        let read = vec![
            read_back("ann", "fresh-1", state((2, 2), "bob", 3)),
            read_back("ann", "fresh-2", state((2, 2), "bob", 3)),
            read_back("bob", "fresh-1", state((3, 3), "ann", 2)),
        ];
        Self { events: history.events(), read }
    }

    fn breaches(&self) -> Vec<Breach> {
        check(&self.events, &self.read)
    }

    fn entries(&mut self, reader: usize) -> &mut Vec<Entry> {
        &mut self.read[reader].conversations[0].entries
    }

    fn state(&mut self, reader: usize) -> &mut ConversationState {
        &mut self.read[reader].conversations[0].state
    }

    /// Every copy of every entry, in read-backs and on devices.
    fn every_entry(&mut self, mut change: impl FnMut(&mut Entry)) {
        for event in &mut self.events {
            if let Event::Applied { entry, .. } = event {
                change(entry);
            }
        }
        for read in &mut self.read {
            read.conversations[0].entries.iter_mut().for_each(&mut change);
        }
    }

    /// Takes the entry away everywhere, as if it had never been stored.
    fn forget(&mut self, seq: u64) {
        self.events.retain(|event| !matches!(event, Event::Applied { entry, .. } if entry.seq == seq));
        self.read.iter_mut().for_each(|read| read.conversations[0].entries.retain(|entry| entry.seq != seq));
    }
}

macro_rules! planted {
    ($name:ident, $breach:pat, $plant:expr) => {
        #[test]
        fn $name() {
            let mut run = Run::good();
            let plant: fn(&mut Run) = $plant;
            plant(&mut run);
            let breaches = run.breaches();
            assert!(breaches.iter().any(|breach| matches!(breach, $breach)), "{breaches:?}");
        }
    };
}

#[test]
fn a_history_that_keeps_the_contract_has_no_breach() {
    assert_eq!(Run::good().breaches(), []);
}

planted!(an_acked_message_that_is_gone_is_found, Breach::Lost(_), |run| {
    run.forget(3);
    (0..3).for_each(|reader| run.state(reader).head_seq = 2);
});

planted!(an_acked_message_with_another_body_is_found, Breach::Lost(_), |run| {
    run.every_entry(|entry| {
        if entry.seq == 2 {
            let message = Message { body: body("other").into(), to_user_id: String::new() };
            entry.content = Some(Content::Message(message));
        }
    });
});

planted!(an_acked_message_at_another_seq_is_found, Breach::Lost(_), |run| {
    run.every_entry(|entry| {
        if entry.seq == 3 {
            entry.seq = 4;
        }
    });
});

planted!(a_message_stored_twice_is_found, Breach::Doubled(_), |run| {
    (0..3).for_each(|reader| run.entries(reader).push(entry(4, "bob", "m3")));
});

planted!(an_ack_that_changes_at_a_resend_is_found, Breach::Changed(_), |run| {
    run.events.push(Event::Stored { op: Op(1), epoch: EPOCH, seq: 2, server_time_ms: 1002 });
});

planted!(readers_that_disagree_about_a_seq_are_found, Breach::Changed(_), |run| run.entries(2)[0].server_time_ms += 1);

planted!(a_hole_is_found, Breach::Hole(_), |run| {
    run.entries(0).remove(1);
});

planted!(swapped_messages_of_one_device_are_found, Breach::SenderOrder(_), |run| {
    run.every_entry(|entry| match entry.client_id.as_str() {
        "m1" => entry.client_id = "m2".to_owned(),
        "m2" => entry.client_id = "m1".to_owned(),
        _ => {}
    });
});

planted!(a_later_message_before_an_acked_one_is_found, Breach::RealTimeOrder(_), |run| {
    for event in &mut run.events {
        if let Event::Stored { op: Op(3), seq, .. } = event {
            *seq = 1;
        }
    }
});

planted!(a_refused_message_that_is_stored_is_found, Breach::Uninvited(_), |run| {
    run.events.push(Event::Refused { op: Op(2) });
});

planted!(a_message_that_nobody_sent_is_found, Breach::Uninvited(_), |run| {
    (0..3).for_each(|reader| run.entries(reader).push(entry(4, "bob", "m9")));
});

planted!(a_message_under_a_forged_sender_is_found, Breach::Uninvited(_), |run| {
    run.every_entry(|entry| entry.sender_user_id = "bob".to_owned());
});

planted!(a_command_without_an_answer_is_found, Breach::Unanswered(_), |run| {
    run.events.retain(|event| !matches!(event, Event::Stored { op: Op(2), .. }));
});

planted!(a_seq_shown_twice_is_found, Breach::Shown(_), |run| {
    let shown = Event::Applied { device: device("bob"), log: LOG.to_owned(), entry: entry(3, "bob", "m3") };
    run.events.push(shown);
});

planted!(a_seq_left_out_on_a_device_is_found, Breach::Shown(_), |run| {
    let left_out =
        |event: &Event| matches!(event, Event::Applied { device, entry, .. } if device.user == "bob" && entry.seq == 2);
    run.events.retain(|event| !left_out(event));
});

planted!(a_device_that_never_learns_the_head_is_found, Breach::Diverged(_), |run| {
    let last =
        |event: &Event| matches!(event, Event::Applied { device, entry, .. } if device.user == "ann" && entry.seq == 3);
    run.events.retain(|event| !last(event));
});

planted!(two_devices_of_a_user_that_differ_are_found, Breach::Diverged(_), |run| run.state(1).read_seq = 1);

planted!(an_acked_read_cursor_that_is_forgotten_is_found, Breach::Cursor(_), |run| run.state(2).read_seq = 2);

planted!(a_read_cursor_that_falls_is_found, Breach::Cursor(_), |run| {
    run.events.push(Event::ReadMarked { device: device("bob"), log: LOG.to_owned(), seq: 2 });
});

planted!(a_peer_cursor_that_is_not_the_peers_is_found, Breach::Cursor(_), |run| run.state(0).peer_read_seq = 1);

planted!(a_wrong_unread_count_is_found, Breach::Count(_), |run| run.state(0).read_ordinal = 1);

planted!(an_epoch_that_changed_under_an_ack_is_found, Breach::Lost(_), |run| {
    run.read.iter_mut().for_each(|read| read.epoch += 1);
});
