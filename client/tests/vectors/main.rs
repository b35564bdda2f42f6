//! The golden vectors of `proto/vectors/`: bytes and what they mean, for clients in every language.
//!
//! In: the messages built here, and the committed files. Out: a verdict; with `IM_REGENERATE=1` the files written anew.
//! Always: the meaning is told by the compiled schema (`proto/descriptor.bin`), not by the Rust types the bytes were made
//! with, so the two check one another; every frame is read at every split point.

#![allow(clippy::unwrap_used)]

mod bad;
mod commands;
mod ids;
mod pushes;

use bytes::Bytes;
use im_codec::{Deframer, FrameError, Incoming};
use im_proto::client::{ClientFrame, ServerFrame};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};
use std::path::Path;

/// The limit of the frame lengths in `bad.json`, and above every good frame.
const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// One frame to be written down: its name, who sends it, its delimited bytes.
pub struct Vector {
    pub name: &'static str,
    pub direction: &'static str,
    pub bytes: Vec<u8>,
}

impl Vector {
    fn from_client(name: &'static str, request_id: u64, command: im_proto::client::client_frame::Command) -> Self {
        let frame = ClientFrame { request_id, command: Some(command), ..Default::default() };
        Self { name, direction: "client", bytes: frame.encode_length_delimited_to_vec() }
    }

    fn from_server(name: &'static str, request_id: u64, body: im_proto::client::server_frame::Body) -> Self {
        let frame = ServerFrame { request_id, body: Some(body) };
        Self { name, direction: "server", bytes: frame.encode_length_delimited_to_vec() }
    }

    fn raw(name: &'static str, direction: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name, direction, bytes: bytes.into() }
    }
}

fn all() -> Vec<Vector> {
    commands::vectors().into_iter().chain(pushes::vectors()).collect()
}

fn schema(direction: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(&include_bytes!("../../../proto/descriptor.bin")[..]).unwrap();
    let name = if direction == "client" { "im.v1.ClientFrame" } else { "im.v1.ServerFrame" };
    pool.get_message_by_name(name).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Compares the committed file with `fresh`, which replaces it first if asked to.
fn check_file(name: &str, fresh: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vectors").join(name);
    let fresh = serde_json::to_string_pretty(fresh).unwrap() + "\n";
    if std::env::var_os("IM_REGENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "{name} is stale: run with IM_REGENERATE=1 and commit");
}

fn committed(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Reads a stream that comes in two pieces.
fn read(pieces: [&[u8]; 2]) -> Result<Vec<Incoming>, FrameError> {
    let mut deframer = Deframer::default();
    let mut out = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(incoming) = deframer.next(&mut input, FRAME_BYTES_MAX)? {
            out.push(incoming);
        }
    }
    Ok(out)
}

/// The message of a good frame, without its length.
fn body(bytes: &[u8]) -> Bytes {
    match read([bytes, &[]]).unwrap().as_slice() {
        [Incoming::Frame(frame)] => frame.clone(),
        [Incoming::Heartbeat] => Bytes::new(),
        other => panic!("not one frame: {other:?}"),
    }
}

#[test]
fn the_frames_mean_what_the_schema_says() {
    let frames: Vec<Value> = all()
        .into_iter()
        .map(|vector| {
            let meaning = DynamicMessage::decode(schema(vector.direction), body(&vector.bytes)).unwrap();
            let meaning = serde_json::to_value(meaning).unwrap();
            json!({ "name": vector.name, "direction": vector.direction, "hex": hex(&vector.bytes), "meaning": meaning })
        })
        .collect();
    check_file("frames.json", &json!(frames));
}

#[test]
fn every_frame_is_read_the_same_at_every_split_point() {
    for vector in committed("frames.json") {
        let bytes = unhex(vector["hex"].as_str().unwrap());
        let whole = read([&bytes, &[]]).unwrap();
        assert_eq!(whole.len(), 1, "{}", vector["name"]);
        for at in 0..=bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert_eq!(read([front, back]).unwrap(), whole, "{} split at {at}", vector["name"]);
        }
    }
}

#[test]
fn the_rust_types_read_what_the_meaning_says() {
    for vector in committed("frames.json") {
        let direction = vector["direction"].as_str().unwrap();
        let meant = DynamicMessage::deserialize(schema(direction), &vector["meaning"]).unwrap().encode_to_vec();
        let read = body(&unhex(vector["hex"].as_str().unwrap()));
        if direction == "client" {
            assert_eq!(ClientFrame::decode(read), ClientFrame::decode(meant.as_slice()), "{}", vector["name"]);
        } else {
            assert_eq!(ServerFrame::decode(read), ServerFrame::decode(meant.as_slice()), "{}", vector["name"]);
        }
    }
}

#[test]
fn every_command_answer_and_push_of_the_schema_has_a_vector() {
    let frames = committed("frames.json");
    for direction in ["client", "server"] {
        for field in schema(direction).fields().filter(|field| field.containing_oneof().is_some()) {
            let has =
                |vector: &Value| vector["direction"] == direction && vector["meaning"][field.json_name()].is_object();
            assert!(frames.iter().any(has), "no vector of {direction} frame {}", field.name());
        }
    }
}
