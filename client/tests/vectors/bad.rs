//! Bytes of a client that a server refuses, with the code it closes with. `unfinished` ones are no error until the stream
//! ends or the time for a frame is over.

use crate::{FRAME_BYTES_MAX, check_file, committed, hex, read, unhex};
use im_codec::{FrameError, Incoming};
use im_proto::client::ClientFrame;
use prost::Message as _;
use serde_json::json;

const TOO_LARGE: &str = "FRAME_TOO_LARGE";
const PROTOCOL: &str = "PROTOCOL_ERROR";
const UNFINISHED: &str = "unfinished";

fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("a length above the limit", vec![0x81, 0x80, 4], TOO_LARGE),
        ("the highest length", vec![0xff, 0xff, 0xff, 0xff, 0x0f], TOO_LARGE),
        ("a length of more than 32 bits", vec![0xff, 0xff, 0xff, 0xff, 0x1f], PROTOCOL),
        ("a length of more than 5 bytes", vec![0x81, 0x80, 0x80, 0x80, 0x80, 0], PROTOCOL),
        ("a length written longer than it needs", vec![0x84, 0, 8, 1, 0x2a, 0], PROTOCOL),
        ("a length without its end", vec![0x84], UNFINISHED),
        ("a frame without its end", vec![4, 8, 1, 0x2a], UNFINISHED),
        ("a key without its value", vec![1, 8], PROTOCOL),
        ("a number of more than 10 bytes", [&[13, 8][..], &[0xff; 10], &[1, 0x2a]].concat(), PROTOCOL),
        ("a number without its end", vec![3, 8, 0x80, 0x80], PROTOCOL),
        ("field number 0", vec![2, 0, 1], PROTOCOL),
        ("wire type 7", vec![2, 0x0f, 1], PROTOCOL),
        ("request_id of another wire type", vec![3, 0x0a, 1, 0], PROTOCOL),
        ("a command of another wire type", vec![4, 8, 1, 0x28, 0], PROTOCOL),
        ("an inner length beyond the frame", vec![5, 8, 1, 0x2a, 100, 0], PROTOCOL),
        ("an inner length of 4 GiB", vec![8, 8, 1, 0x2a, 0xff, 0xff, 0xff, 0xff, 0x0f], PROTOCOL),
        // A sync with a token that is said to be longer than the sync.
        ("a field beyond its message", vec![7, 8, 1, 0x2a, 3, 0x0a, 9, 0], PROTOCOL),
        // A leave with the command id ff fe.
        ("text that is not UTF-8", vec![8, 8, 1, 0x52, 4, 0x0a, 2, 0xff, 0xfe], PROTOCOL),
        // A group that is never ended.
        ("a group without its end", vec![4, 8, 1, 0xa3, 6], PROTOCOL),
        ("nothing but ones", vec![0xff; 64], PROTOCOL),
    ]
}

/// What a server makes of a stream in two pieces.
fn verdict(pieces: [&[u8]; 2]) -> &'static str {
    match read(pieces) {
        Err(FrameError::TooLarge { .. }) => TOO_LARGE,
        Err(FrameError::BadLength) => PROTOCOL,
        Ok(frames) => match frames.as_slice() {
            [] => UNFINISHED,
            [Incoming::Frame(frame), ..] if ClientFrame::decode(frame.clone()).is_err() => PROTOCOL,
            _ => "fine",
        },
    }
}

#[test]
fn bad_frames_are_refused_at_every_split_point() {
    let vectors: Vec<_> = bad()
        .iter()
        .map(|(name, bytes, error)| {
            json!({ "name": name, "hex": hex(bytes), "frame_bytes_max": FRAME_BYTES_MAX, "error": error })
        })
        .collect();
    check_file("bad.json", &json!(vectors));
    for vector in committed("bad.json") {
        let bytes = unhex(vector["hex"].as_str().unwrap());
        for at in 0..=bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert_eq!(verdict([front, back]), vector["error"], "{} split at {at}", vector["name"]);
        }
    }
}
