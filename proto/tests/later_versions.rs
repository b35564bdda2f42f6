//! F39: roles of two versions run side by side during an upgrade. What a later one adds is passed over by an earlier one.
//!
//! In: internal messages with every field set, and behind them fields that this version does not know. Out: they decode to
//! what they are without. What becomes of what they carry is tested where it is used (`logic/tests/worker/later_version.rs`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use im_proto::internal::delivery::Kind;
use im_proto::internal::*;
use prost::Message;

/// Field 2000 as a number, 2001 as bytes, 2002 as a fixed 64-bit number.
fn later_fields() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, wire_type, value) in [(2000u32, 0u32, &b"\x96\x01"[..]), (2001, 2, b"\x03abc"), (2002, 1, &[7; 8])] {
        prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut bytes);
        bytes.extend_from_slice(value);
    }
    bytes
}

/// The message as a later version would write it.
fn later(message: &impl Message) -> Vec<u8> {
    [message.encode_to_vec(), later_fields()].concat()
}

/// A length-delimited field that holds `inside`.
fn field(number: u32, inside: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
    bytes.extend_from_slice(inside);
    bytes
}

#[track_caller]
fn is_read_as<M: Message + Default + PartialEq>(bytes: Vec<u8>, message: &M) {
    assert!(M::decode(&bytes[..]).unwrap() == *message);
}

fn origin() -> Origin {
    Origin { user_id: "ann".into(), device_id: "phone".into(), gateway_boot: 1, connection_id: 2, request_id: 3 }
}

#[test]
fn a_record_with_fields_of_a_later_gateway_is_the_same_record() {
    let trace = Trace { high: 8, low: 9 };
    let upstream =
        Upstream { log_id: "d".into(), origin: Some(origin()), frame: vec![1, 2].into(), trace: Some(trace) };
    is_read_as(later(&upstream), &upstream);
    // Also where the fields are inside; of a message that comes twice the parts are joined.
    let bytes = [later(&upstream), field(2, &later_fields()), field(5, &later_fields())].concat();
    is_read_as(bytes, &upstream);
}

#[test]
fn a_delivery_with_fields_of_a_later_worker_is_the_same_delivery() {
    let inbox = Some(InboxMove { previous: 4, version: 5 });
    let kinds = [
        Kind::Answer(Answer { connection_id: 2, request_id: 3, frame: vec![1].into(), inbox }),
        Kind::Push(Push { frame: vec![1].into(), targets: vec![Target { connection_id: 2, inbox }] }),
        Kind::Kick(Kick { connection_id: 2, generation: 6, reason: 1 }),
        Kind::LargePush(LargePush { log_id: "g".into(), seq: 7, joined: vec!["ann".into()], ..Default::default() }),
    ];
    let deliveries: Vec<Delivery> =
        kinds.into_iter().map(|kind| Delivery { kind: Some(kind), trace: Some(Trace { high: 8, low: 9 }) }).collect();
    let head = DeliveryBatch { gateway_boot: 1, worker_boot: 2, number: 3, deliveries: Vec::new() };
    let inside: Vec<u8> = deliveries.iter().flat_map(|delivery| field(4, &later(delivery))).collect();
    let batch = DeliveryBatch { deliveries, ..head.clone() };
    is_read_as(later(&batch), &batch);
    is_read_as([later(&head), inside].concat(), &batch);
}

/// The gateway passes over it: a push is a hint, and the heartbeat tells of what it told.
#[test]
fn a_delivery_of_a_kind_that_came_later_is_one_of_no_kind_among_the_others() {
    let kick = Delivery { kind: Some(Kind::Kick(Kick { connection_id: 2, ..Default::default() })), trace: None };
    let bytes = [field(4, &field(9, b"new")), field(4, &kick.encode_to_vec())].concat();
    let batch = DeliveryBatch::decode(&bytes[..]).unwrap();
    assert!(batch.deliveries == [Delivery::default(), kick]);
}

#[test]
fn a_stored_entry_with_fields_of_a_later_worker_is_the_same_entry() {
    let stored = StoredEntry {
        entry: vec![1, 2].into(),
        content_hash: vec![3; 16].into(),
        members_seq: 4,
        members: 5,
        partition: 6,
        offset_after: 7,
    };
    is_read_as(later(&stored), &stored);
    is_read_as([later_fields(), stored.encode_to_vec()].concat(), &stored);
}

#[test]
fn a_token_with_fields_of_a_later_worker_is_the_same_token() {
    let large = TokenHead { log: 4, seq: 5 };
    let token = SyncToken { epoch: 1, inbox_version: 2, user_log_seq: 3, large: vec![large] };
    is_read_as(later(&token), &token);
    let without = SyncToken { large: Vec::new(), ..token.clone() };
    is_read_as([later(&without), field(4, &later(&large))].concat(), &token);
}
