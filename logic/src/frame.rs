//! Encoded frames, made once.
//!
//! In: an answer or push, or bytes of entries as they lie in the store. Out: delimited `ServerFrame`s. Always: bytes of an
//! entry are copied into a frame, never decoded and encoded again; the result equals what prost would have encoded.

use bytes::Bytes;
use im_proto::{Epoch, LogId, Seq, client};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Field numbers of client.proto that are written by hand here.
const FRAME_REQUEST_ID: u32 = 1;
const FRAME_PULLED: u32 = 4;
const FRAME_SYNCED: u32 = 5;
const FRAME_ENTRY: u32 = 10;
const PUSHED_CONVERSATION: u32 = 1;
const PUSHED_EPOCH: u32 = 2;
const PUSHED_ENTRY: u32 = 3;
const PULLED_CONVERSATION: u32 = 1;
const PULLED_EPOCH: u32 = 2;
const PULLED_HEAD: u32 = 3;
const PULLED_FLOOR: u32 = 4;
const PULLED_ENTRIES: u32 = 5;
const SYNCED_USER_ENTRIES: u32 = 6;
const SYNCED_USER_LOG_SEQ: u32 = 7;

/// The answer to a request, or with `request_id` 0 a push.
pub(crate) fn of(request_id: u64, body: client::server_frame::Body) -> Bytes {
    client::ServerFrame { request_id, body: Some(body) }.encode_length_delimited_to_vec().into()
}

/// `EntryPushed` around the encoded entry.
pub(crate) fn entry_pushed(log: &LogId, epoch: Epoch, entry: &[u8]) -> Bytes {
    let pushed_len = bytes_field_len(PUSHED_CONVERSATION, log.as_str().len())
        + number_field_len(PUSHED_EPOCH, epoch.0)
        + bytes_field_len(PUSHED_ENTRY, entry.len());
    let mut frame = start(0, FRAME_ENTRY, pushed_len);
    put_bytes(PUSHED_CONVERSATION, log.as_str().as_bytes(), &mut frame);
    put_number(PUSHED_EPOCH, epoch.0, &mut frame);
    put_bytes(PUSHED_ENTRY, entry, &mut frame);
    frame.into()
}

/// What one reader may read of a log, and where its entries lie.
pub(crate) struct Pulled<'a> {
    pub log: &'a LogId,
    pub epoch: Epoch,
    pub head: Seq,
    pub floor: Seq,
    pub entries: &'a [Bytes],
}

/// `Pulled` around encoded entries.
pub(crate) fn pulled(request_id: u64, pulled: &Pulled<'_>) -> Bytes {
    let entries_len: usize = pulled.entries.iter().map(|entry| bytes_field_len(PULLED_ENTRIES, entry.len())).sum();
    let pulled_len = bytes_field_len(PULLED_CONVERSATION, pulled.log.as_str().len())
        + number_field_len(PULLED_EPOCH, pulled.epoch.0)
        + number_field_len(PULLED_HEAD, pulled.head.0)
        + number_field_len(PULLED_FLOOR, pulled.floor.0)
        + entries_len;
    let mut frame = start(request_id, FRAME_PULLED, pulled_len);
    put_bytes(PULLED_CONVERSATION, pulled.log.as_str().as_bytes(), &mut frame);
    put_number(PULLED_EPOCH, pulled.epoch.0, &mut frame);
    put_number(PULLED_HEAD, pulled.head.0, &mut frame);
    put_number(PULLED_FLOOR, pulled.floor.0, &mut frame);
    for entry in pulled.entries {
        put_bytes(PULLED_ENTRIES, entry, &mut frame);
    }
    frame.into()
}

/// `synced`, which has no entries yet, with encoded ones of the user's own log.
pub(crate) fn synced(request_id: u64, mut synced: client::Synced, user_entries: &[Bytes]) -> Bytes {
    debug_assert!(synced.user_entries.is_empty());
    let user_log_seq = std::mem::take(&mut synced.user_log_seq);
    let before = synced.encode_to_vec();
    let entries_len: usize = user_entries.iter().map(|entry| bytes_field_len(SYNCED_USER_ENTRIES, entry.len())).sum();
    let synced_len = before.len() + entries_len + number_field_len(SYNCED_USER_LOG_SEQ, user_log_seq);
    let mut frame = start(request_id, FRAME_SYNCED, synced_len);
    frame.extend_from_slice(&before);
    for entry in user_entries {
        put_bytes(SYNCED_USER_ENTRIES, entry, &mut frame);
    }
    put_number(SYNCED_USER_LOG_SEQ, user_log_seq, &mut frame);
    frame.into()
}

/// The length prefix, the request id, and the key and length of the one body field.
fn start(request_id: u64, body_tag: u32, body_len: usize) -> Vec<u8> {
    let frame_len = number_field_len(FRAME_REQUEST_ID, request_id) + bytes_field_len(body_tag, body_len);
    let mut frame = Vec::with_capacity(encoded_len_varint(frame_len as u64) + frame_len);
    encode_varint(frame_len as u64, &mut frame);
    put_number(FRAME_REQUEST_ID, request_id, &mut frame);
    encode_key(body_tag, WireType::LengthDelimited, &mut frame);
    encode_varint(body_len as u64, &mut frame);
    frame
}

fn bytes_field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// proto3 leaves out a number that is 0.
fn number_field_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

fn put_bytes(tag: u32, bytes: &[u8], frame: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, frame);
    encode_varint(bytes.len() as u64, frame);
    frame.extend_from_slice(bytes);
}

fn put_number(tag: u32, number: u64, frame: &mut Vec<u8>) {
    if number != 0 {
        encode_key(tag, WireType::Varint, frame);
        encode_varint(number, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::client::server_frame::Body;

    fn entry(seq: u64) -> client::Entry {
        let message = client::Message { body: Bytes::from(vec![7; 300]), to_user_id: "b".into() };
        client::Entry {
            seq,
            ordinal: seq,
            server_time_ms: 9,
            sender_user_id: "a".into(),
            client_id: "c".into(),
            content: Some(client::entry::Content::Message(message)),
        }
    }

    #[test]
    fn a_frame_around_entry_bytes_is_what_prost_would_encode() {
        let log = LogId::parse("dlog").unwrap();
        for epoch in [0, 1, u64::MAX] {
            let body = client::EntryPushed { conversation_id: "dlog".into(), epoch, entry: Some(entry(1)) };
            assert_eq!(entry_pushed(&log, Epoch(epoch), &entry(1).encode_to_vec()), of(0, Body::Entry(body)));
        }
        for count in [0, 1, 200] {
            let entries: Vec<_> = (1..=count).map(entry).collect();
            let encoded: Vec<Bytes> = entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
            let body =
                client::Pulled { conversation_id: "dlog".into(), epoch: 3, head_seq: count, floor_seq: 1, entries };
            let spliced = Pulled { log: &log, epoch: Epoch(3), head: Seq(count), floor: Seq(1), entries: &encoded };
            assert_eq!(pulled(77, &spliced), of(77, Body::Pulled(body)));
        }
        for count in [0, 1, 200] {
            let user_entries: Vec<_> = (1..=count).map(entry).collect();
            let encoded: Vec<Bytes> = user_entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
            let conversations = vec![client::ConversationState { head_seq: 3, ..Default::default() }];
            let token = Bytes::from_static(b"token");
            let before = client::Synced {
                token,
                complete: true,
                epoch: 3,
                inbox_version: 8,
                conversations,
                user_log_seq: count,
                ..Default::default()
            };
            let body = client::Synced { user_entries, ..before.clone() };
            assert_eq!(synced(77, before, &encoded), of(77, Body::Synced(body)));
        }
    }
}
