//! F39: during an upgrade this worker meets what later ones, and later gateways, wrote.

use crate::harness::*;
use bytes::Bytes;
use im_proto::client::{self, entry::Content};
use im_proto::{ClientId, LogId, Seq, internal};
use im_storage::ports::{EntryLog as _, NewEntry, Record};
use prost::Message as _;

/// Field 200 as text, which no version knows yet.
const LATER_FIELD: &[u8] = b"\xc2\x0c\x05later";

fn later(message: &impl prost::Message) -> Bytes {
    [&message.encode_to_vec(), LATER_FIELD].concat().into()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_record_of_a_later_gateway_is_worked_off() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let whole = record(&a, 901, to_user("b", "m"));
    let upstream = internal::Upstream::decode(whole.upstream.clone()).unwrap();
    let frame = client::ClientFrame::decode(upstream.frame.clone()).unwrap();
    let upstream = later(&internal::Upstream { frame: later(&frame), ..upstream });
    world.ports.queue.produce(&mut vec![Record { upstream, ..whole }]);
    assert_eq!(acked(&world.answer(&a, 901).await.body), 1);
    // The same, sent again through a gateway of this version.
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 1);
    assert_eq!(world.metrics.set_aside().map(|(_, count)| count).sum::<u64>(), 0);
}

/// As a later worker stores it: the frame around it and the entry have more than we know.
async fn stores(world: &World, log: &LogId, sender: &Phone, seq: u64) {
    let message = Content::Message(client::Message { body: body_of("from later"), ..Default::default() });
    let entry = client::Entry {
        seq,
        ordinal: seq,
        sender_user_id: sender.user.as_str().into(),
        client_id: "later".into(),
        content: Some(message),
        ..Default::default()
    };
    let (content_hash, members) = (vec![0; 16].into(), 2);
    let stored =
        internal::StoredEntry { entry: later(&entry), content_hash, members_seq: 1, members, ..Default::default() };
    let client_id = ClientId::parse("later").unwrap();
    let (log, sender) = (log.clone(), sender.user.clone());
    let entry = NewEntry { log, seq: Seq(seq), sender, client_id, stored: later(&stored) };
    assert!(world.ports.log.append(vec![entry]).await.stop.is_none());
}

#[tokio::test]
async fn an_entry_of_a_later_worker_is_counted_and_handed_on_with_all_that_it_has() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let log = LogId::direct(&a.user, &b.user);
    assert_eq!(acked(&world.ask(&a, to_user("b", "before")).await), 1);
    stores(&world, &log, &a, 2).await;
    assert_eq!(acked(&world.ask(&b, to_user("a", "behind")).await), 3);
    let world = world.crash_and_restart().await;
    let b = world.phone("b", "1").await;
    assert_eq!(acked(&world.ask(&b, to_user("a", "after-a-restart")).await), 4);
    let state = world.sync(&b, &Bytes::new(), 0).await.unwrap().conversations.remove(0);
    assert_eq!((state.head_seq, state.head_ordinal), (4, 4));

    let pull = client::Pull {
        conversation_id: log.as_str().into(),
        epoch: world.log.epoch().0,
        from_seq: 1,
        ..Default::default()
    };
    let command = Some(client::client_frame::Command::Pull(pull));
    let frame = client::ClientFrame { request_id: 5, command, ..Default::default() }.encode_to_vec();
    let answer = world.requests.read(&b.user, frame.into()).await.frame;
    assert!(contains(&answer, LATER_FIELD), "a later client is given what a later worker stored");
    assert_eq!(world.texts(&log).await[1], "from later");
}

#[tokio::test]
async fn a_token_of_a_later_worker_goes_on_where_it_was() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, to_user("b", "1")).await);
    acked(&world.ask(&a, to_user("c", "2")).await);
    let token = world.sync(&a, &Bytes::new(), 0).await.unwrap().token;
    let token = later(&internal::SyncToken::decode(token).unwrap());
    assert!(world.sync(&a, &token, 0).await.unwrap().conversations.is_empty(), "nothing moved since");
    acked(&world.ask(&a, to_user("c", "3")).await);
    let moved = world.sync(&a, &token, 0).await.unwrap();
    assert_eq!(moved.conversations.iter().map(|state| state.head_seq).collect::<Vec<_>>(), [2]);
}
