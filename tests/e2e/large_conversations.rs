//! Large conversations: above `logic.large_members_min` members nothing is written for a member who merely receives, and
//! every promise of C2 to C4 holds all the same, on both sides of the threshold and across it.

use crate::harness::calls::{message_ids, unread};
use crate::harness::load::{Load, seed};
use crate::harness::raw::{Got, HEARTBEAT_INTERVAL, Raw, within};
use crate::harness::server::{Server, Settings, is_cluster};
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{Entry, EntryPushed, ErrorClass, ServerFrame};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeSet;

/// A conversation with more members than this is large here.
const MIN: usize = 3;
const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];

fn settings() -> Settings {
    Settings::for_tests().with("IM_LOGIC__LARGE_MEMBERS_MIN", &MIN.to_string())
}

async fn devices(server: &Server, users: &[&str], device: &str) -> Vec<Raw> {
    let mut devices = Vec::new();
    for user in users {
        devices.push(Raw::device(server, user, device).await);
    }
    devices
}

/// The next entry of the conversation that is pushed.
async fn pushed(device: &mut Raw, conversation: &str) -> Entry {
    let of_it = |body: &Body| match body {
        Body::Entry(EntryPushed { conversation_id, entry, .. }) if conversation_id == conversation => entry.clone(),
        _ => None,
    };
    device.push(of_it).await
}

/// The seqs of the entries that are pushed, up to `last`.
async fn pushed_up_to(device: &mut Raw, conversation: &str, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.last().is_none_or(|seq| *seq < last) {
        seqs.push(pushed(device, conversation).await.seq);
    }
    seqs
}

/// So many, by rising seq: a large push waits for its readers to be known, and a small one behind it does not.
async fn pushed_in_any_order(device: &mut Raw, conversation: &str, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        seqs.push(pushed(device, conversation).await.seq);
    }
    seqs.sort_unstable();
    seqs
}

/// The seqs that a device learns as a client does: by pushes, and on a cluster also by pulls behind a hint or a gap, for there
/// an entry may reach a gateway before it knows the members: it is dropped, and the next one shows the gap or a heartbeat
/// hints (C4 allows both). Ends when it knows those that are `expected` from `from` on; a pull begins at the latest joining.
async fn learned(device: &mut Raw, conversation: &str, expected: &[u64], from: u64) -> Vec<u64> {
    if !is_cluster() {
        return pushed_in_any_order(device, conversation, expected.len()).await;
    }
    let mut seqs = BTreeSet::new();
    let missing = |seqs: &BTreeSet<u64>| expected.iter().copied().find(|seq| *seq >= from && !seqs.contains(seq));
    let all = async {
        while missing(&seqs).is_some() {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let is_hinted = is_hint(&device.heartbeat().await);
            for push in std::mem::take(&mut device.pushes) {
                if let Body::Entry(EntryPushed { conversation_id, entry: Some(entry), .. }) = push
                    && conversation_id == conversation
                {
                    seqs.insert(entry.seq);
                }
            }
            let is_gapped = missing(&seqs).is_some_and(|missing| seqs.last().is_some_and(|last| *last > missing));
            if is_hinted || is_gapped {
                let epoch = device.sync().await.epoch;
                seqs.extend(device.pull_all(conversation, epoch, 1).await.iter().map(|entry| entry.seq));
            }
        }
    };
    within("every entry is pushed, or hinted and pulled", all).await;
    assert!(seqs.iter().all(|seq| expected.contains(seq)), "{seqs:?} are more than {expected:?}");
    expected.to_vec()
}

/// What comes next, behind entries that are `known` already. Of one process: as pushes, in this order. On a cluster: as
/// [`learned`] says, and what is known may be pushed once more.
async fn gets(device: &mut Raw, conversation: &str, known: &[u64], expected: &[u64]) {
    if is_cluster() {
        learned(device, conversation, &[known, expected].concat(), expected[0]).await;
    } else {
        assert_eq!(pushed_up_to(device, conversation, *expected.last().unwrap()).await, expected);
    }
}

/// A hint ends after a sync; where all is one process there is none to begin with.
async fn is_told_everything(device: &mut Raw, token: &bytes::Bytes) {
    while is_hint(&device.heartbeat().await) {
        assert!(is_cluster(), "the connection was told of everything");
        let again = device.sync_from(token.clone()).await;
        assert!(again.conversations.is_empty(), "nothing moved since: {:?}", again.conversations);
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
}

fn is_hint(got: &Got) -> bool {
    matches!(got, Got::Frame(ServerFrame { body: Some(Body::SyncHint(_)), .. }))
}

#[tokio::test]
async fn everyone_online_gets_every_message_in_order_on_every_device() {
    let server = Server::start(settings());
    let mut phones = devices(&server, &USERS, "phone").await;
    let mut tablets = devices(&server, &USERS, "tablet").await;
    let group = phones[0].create_group("create", &USERS[1..]).await.conversation_id;
    let moves = server.metric("im_logic_moves_total").unwrap();
    for number in 2..=20 {
        let sender = number % USERS.len();
        let ack = phones[sender].message_to(&group, &format!("m{number}")).await;
        assert_eq!(ack.seq, number as u64);
    }
    for tablet in &mut tablets {
        gets(tablet, &group, &[], &(1..=20).collect::<Vec<u64>>()).await;
    }
    for (user, phone) in phones.iter_mut().enumerate() {
        // What it sent itself it has by its acks, the creation included.
        let mine = |seq: &u64| *seq as usize % USERS.len() == user && *seq > 1 || *seq == 1 && user == 0;
        let (own, expected): (Vec<u64>, Vec<u64>) = (1..=20).partition(mine);
        gets(phone, &group, &own, &expected).await;
    }
    if is_cluster() {
        return; // a partition that changes its owner moves and pushes some once more
    }
    let moved = server.metric("im_logic_moves_total").unwrap() - moves;
    assert_eq!(moved as usize, 19, "one row a message: its sender's");
    let gateways = server.metric("im_gateway_driver").unwrap();
    let records = server.metric("im_logic_large_pushes_total").unwrap();
    assert_eq!(records, 20.0 * gateways, "one record a message and gateway");
}

#[tokio::test]
async fn a_member_who_was_away_is_told_by_one_sync_and_of_nothing_twice() {
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
    let other = ann.create_group("other", &USERS[1..]).await.conversation_id;
    let before = bob.sync().await;
    assert_eq!(before.conversations.len(), 2);
    drop(bob);
    for number in 1..=7 {
        ann.message_to(&group, &format!("m{number}")).await;
    }
    // A partition that changes its owner in a young cluster moves the rows once more.
    server.is_caught_up().await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let known = bob.sync_from(before.token).await;
    let ids: Vec<&str> = known.conversations.iter().map(|state| state.conversation_id.as_str()).collect();
    assert_eq!(ids, [&group], "only what moved");
    let state = known.conversation(&group);
    assert_eq!((state.head_seq, unread(state), state.floor_seq, state.member), (8, 7, 1, true));
    assert_eq!(state.group_name, known_name(&ann.sync().await, &other));
    let entries = bob.pull_all(&group, known.epoch, 1).await;
    assert_eq!(message_ids(&entries), ["m1", "m2", "m3", "m4", "m5", "m6", "m7"]);
    let again = bob.sync_from(known.token).await;
    assert!(again.conversations.is_empty(), "nothing moved since: {:?}", again.conversations);
    is_told_everything(&mut bob, &again.token).await;

    let marked = bob.mark_read(&group, known.epoch, 6, "read").await;
    assert_eq!(marked.read_seq, 6);
    let state = bob.sync_from(again.token).await.conversation(&group).clone();
    assert_eq!((state.head_seq, state.read_seq, unread(&state)), (8, 6, 2), "the row has the cursor, the log the head");
    let own = ann.sync().await;
    assert_eq!(unread(own.conversation(&group)), 0, "own sends count as read");
}

fn known_name(known: &crate::harness::calls::Known, group: &str) -> String {
    known.conversation(group).group_name.clone()
}

#[tokio::test]
async fn a_sync_of_many_large_conversations_comes_in_pages_and_ends() {
    use im_proto::client::client_frame::Command;
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut groups = std::collections::BTreeSet::new();
    for number in 0..17 {
        groups.insert(ann.create_group(&format!("g{number}"), &USERS[1..]).await.conversation_id);
    }
    // A young cluster may still catch up, and what it repeats moves again between two pages.
    server.is_caught_up().await;
    let mut token = bob.sync().await.token;
    for group in &groups {
        ann.message_to(group, "m").await;
    }
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let sync = im_proto::client::Sync { token, limit: 5 };
        let Body::Synced(page) = bob.call(Command::Sync(sync)).await else { panic!() };
        assert!(page.conversations.len() <= 5 && (page.complete || !page.conversations.is_empty()));
        for state in page.conversations {
            assert_eq!(state.head_seq, 2);
            assert!(seen.insert(state.conversation_id), "told twice");
        }
        token = page.token;
        if page.complete {
            break;
        }
    }
    assert_eq!(seen, groups);
}

#[tokio::test]
async fn who_joins_reads_from_the_joining_and_who_is_removed_to_the_removal() {
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut eve = Raw::device(&server, "eve", "phone").await;
    let mut tablet = Raw::device(&server, "eve", "tablet").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &["bob", "cid", "dan"]).await.conversation_id;
    ann.message_to(&group, "before").await; // 2
    ann.add_members(&group, "add", &["eve"]).await; // 3
    ann.message_to(&group, "during").await; // 4
    ann.remove_member(&group, "remove", "eve").await; // 5
    ann.message_to(&group, "behind").await; // 6
    ann.remove_member(&group, "nobody", "dan").await; // 7
    ann.message_to(&group, "small-again").await; // 8
    for device in [&mut eve, &mut tablet] {
        gets(device, &group, &[], &[3, 4, 5]).await;
        let known = device.sync().await;
        let state = known.conversation(&group);
        assert_eq!((state.floor_seq, state.head_seq, state.member), (3, 5, false));
        let page = device.pull(&group, known.epoch, 1).await;
        assert_eq!(page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5]);
    }
    gets(&mut bob, &group, &[], &[1, 2, 3, 4, 5, 6, 7, 8]).await;

    ann.add_members(&group, "again", &["eve", "dan"]).await; // 9
    ann.message_to(&group, "back").await; // 10
    // Nothing behind the removal comes.
    gets(&mut eve, &group, &[3, 4, 5], &[9, 10]).await;
    let known = eve.sync().await;
    let state = known.conversation(&group);
    assert_eq!((state.floor_seq, state.head_seq, state.member, unread(state)), (9, 10, true, 1));
    assert_eq!(message_ids(&eve.pull_all(&group, known.epoch, 1).await), ["back"]);
}

#[tokio::test]
async fn who_leaves_is_told_on_its_other_device_and_then_of_nothing() {
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut phone = Raw::device(&server, "eve", "phone").await;
    let mut tablet = Raw::device(&server, "eve", "tablet").await;
    let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
    phone.leave_group(&group, "leave").await; // 2
    ann.message_to(&group, "behind").await; // 3
    gets(&mut tablet, &group, &[], &[1, 2]).await;
    // What was pushed to it would come before what is sent to it now.
    ann.message_to_user("eve", "direct").await;
    for device in [&mut phone, &mut tablet] {
        let next = device.push(|body| match body {
            Body::Entry(pushed) if pushed.conversation_id != group => Some(pushed.clone()),
            Body::Entry(pushed) if pushed.entry.as_ref().is_some_and(|entry| entry.seq > 2) => {
                panic!("pushed behind the leaving: {pushed:?}")
            }
            _ => None,
        });
        assert_eq!(next.await.entry.unwrap().client_id, "direct");
        assert_eq!(device.sync().await.conversation(&group).head_seq, 2);
    }
}

#[tokio::test]
async fn crossing_the_threshold_both_ways_loses_nothing() {
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut away = Raw::device(&server, "cid", "phone").await;
    let mut dan = Raw::device(&server, "dan", "phone").await;
    let group = ann.create_group("create", &["bob", "cid"]).await.conversation_id; // 1: small
    let token = away.sync().await.token;
    drop(away);
    let mut head = 1;
    for round in 0..4 {
        ann.message_to(&group, &format!("small{round}")).await;
        ann.add_members(&group, &format!("add{round}"), &["dan"]).await; // large
        ann.message_to(&group, &format!("large{round}")).await;
        ann.message_to(&group, &format!("larger{round}")).await;
        ann.remove_member(&group, &format!("remove{round}"), "dan").await; // small
        head += 5;
    }
    let all: Vec<u64> = (1..=head).collect();
    assert_eq!(learned(&mut bob, &group, &all, 1).await, all);
    let of_dan: Vec<u64> = (0..4).flat_map(|round| 5 * round + 3..=5 * round + 6).collect();
    assert_eq!(learned(&mut dan, &group, &of_dan, head - 3).await, of_dan);
    let mut cid = Raw::device(&server, "cid", "phone").await;
    let known = cid.sync_from(token).await;
    let state = known.conversation(&group);
    assert_eq!((state.head_seq, unread(state)), (head, 12));
    assert_eq!(cid.pull_all(&group, known.epoch, 2).await.len() as u64, head - 1);
    let state = dan.sync().await.conversation(&group).clone();
    assert_eq!((state.head_seq, state.floor_seq, state.member), (head, head - 3, false));
    // Small now: nobody is hinted of a head that the inbox has told.
    for device in [&mut bob, &mut cid] {
        let token = device.sync().await.token;
        for _ in 0..10 {
            is_told_everything(device, &token).await;
        }
    }
}

#[tokio::test]
async fn a_resent_message_gets_the_same_ack_and_is_stored_once() {
    let mut server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
    let ack = ann.message_to(&group, "m1").await;
    assert_eq!(ann.message_to(&group, "m1").await, ack);
    server.kill9();
    server.restart();
    let mut tablet = Raw::device(&server, "ann", "tablet").await;
    assert_eq!(tablet.message_to(&group, "m1").await, ack, "on another connection, after a crash");
    let known = tablet.sync().await;
    assert_eq!(known.conversation(&group).head_seq, 2);
}

#[tokio::test]
async fn what_was_not_delivered_before_a_crash_is_told_after_it() {
    let mut server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
    let token = bob.sync().await.token;
    ann.message_to(&group, "m1").await;
    ann.add_members(&group, "add", &["fay"]).await;
    server.kill9();
    server.restart();
    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.sync_from(token).await.conversation(&group).head_seq, 3);
    let mut fay = Raw::device(&server, "fay", "phone").await;
    let state = fay.sync().await.conversation(&group).clone();
    assert_eq!((state.head_seq, state.floor_seq, state.member), (3, 3, true));
    // The new gateway learns the members with the first entry.
    let mut ann = Raw::device(&server, "ann", "phone").await;
    ann.message_to(&group, "m2").await;
    for device in [&mut bob, &mut fay] {
        // What was stored before the crash may be pushed once more: nobody knows whether it was.
        if is_cluster() {
            learned(device, &group, &[1, 2, 3, 4], 4).await;
        } else {
            while pushed(device, &group).await.seq < 4 {}
        }
    }
}

#[tokio::test]
async fn what_is_sent_between_sign_in_and_sync_is_in_the_sync_or_pushed() {
    use crate::harness::raw::send_to_conversation;
    use im_proto::client::client_frame::Command;
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
    for round in 1..=20 {
        let mut bob = Raw::device(&server, "bob", "phone").await;
        let send = send_to_conversation(&group, &format!("m{round}"), "x");
        let request = ann.send(Command::Send(send.clone())).await;
        let synced = bob.sync().await.conversation(&group).head_seq;
        let ack = match ann.answer(request).await {
            Body::SendAck(ack) => ack,
            Body::Error(error) if is_cluster() && error.class() != ErrorClass::Final => ann.message(send).await,
            other => panic!("{other:?}"),
        };
        if synced < ack.seq {
            gets(&mut bob, &group, &(1..ack.seq).collect::<Vec<u64>>(), &[ack.seq]).await;
        }
    }
}

#[tokio::test]
async fn a_removed_member_is_pushed_nothing_however_fast_it_goes() {
    let server = Server::start(settings());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut eve = Raw::device(&server, "eve", "phone").await;
    let group = ann.create_group("create", &["bob", "cid", "dan"]).await.conversation_id;
    let mut times = Vec::new();
    for round in 0..10 {
        let joined = ann.add_members(&group, &format!("add{round}"), &["eve"]).await.seq;
        ann.message_to(&group, &format!("in{round}")).await;
        let left = ann.remove_member(&group, &format!("remove{round}"), "eve").await.seq;
        ann.message_to(&group, &format!("out{round}")).await;
        times.extend(joined..=left);
    }
    if is_cluster() {
        // A pull begins at the latest joining.
        learned(&mut eve, &group, &times, times[times.len() - 3]).await;
        return;
    }
    let removed = |entry: &Entry| matches!(entry.content, Some(Content::MemberRemoved(_)));
    let mut seqs = Vec::new();
    while seqs.len() < times.len() {
        let entry = pushed(&mut eve, &group).await;
        assert_eq!(removed(&entry), seqs.len() % 3 == 2);
        seqs.push(entry.seq);
    }
    assert_eq!(seqs, times);
}

/// Load in which nearly every group is large, and the common one crosses the threshold all the time.
async fn converges(settings: Settings) {
    let mut rng = StdRng::seed_from_u64(seed());
    let server = Server::start(settings);
    let load = Load::start(&server, rng.random()).await;
    load.goes_on_for_long().await;
    load.finish(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_under_load_across_the_threshold() {
    converges(settings().with("IM_LOGIC__LARGE_MEMBERS_MIN", "2")).await;
}

#[cfg(feature = "fault-points")]
mod troubled_pushes {
    use super::*;

    #[tokio::test]
    async fn a_heartbeat_hints_when_every_push_was_lost_and_the_sync_brings_the_head() {
        let server = Server::start(settings().with("IM_FAULT_PUSHES", "lose:all"));
        let mut ann = Raw::device(&server, "ann", "phone").await;
        let mut bob = Raw::device(&server, "bob", "phone").await;
        let group = ann.create_group("create", &USERS[1..]).await.conversation_id;
        let before = bob.sync().await;
        is_told_everything(&mut bob, &before.token).await;
        let ack = ann.message_to(&group, "m1").await;
        let hinted = async {
            while !is_hint(&bob.heartbeat().await) {
                bob.was_pushed_no_entry();
                tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            }
        };
        within("a heartbeat hints", hinted).await;
        let known = bob.sync_from(before.token).await;
        assert_eq!(known.conversation(&group).head_seq, ack.seq);
        // One that was on its way while the sync was asked may still come.
        while is_hint(&bob.heartbeat().await) {}
        is_told_everything(&mut bob, &known.token).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn devices_converge_when_every_push_is_lost() {
        converges(settings().with("IM_LOGIC__LARGE_MEMBERS_MIN", "2").with("IM_FAULT_PUSHES", "lose:all")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn devices_converge_when_single_pushes_are_lost_at_random() {
        let fault = format!("lose:3:{}", seed());
        converges(settings().with("IM_LOGIC__LARGE_MEMBERS_MIN", "2").with("IM_FAULT_PUSHES", &fault)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn devices_converge_when_pushes_come_twice_and_in_another_order() {
        let fault = format!("stir:3:{}", seed());
        converges(settings().with("IM_LOGIC__LARGE_MEMBERS_MIN", "2").with("IM_FAULT_PUSHES", &fault)).await;
    }
}
