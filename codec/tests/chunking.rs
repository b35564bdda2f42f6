//! How a stream is cut makes no difference: the same frames, the same actions, and no more memory than was received.
#![allow(clippy::unwrap_used)]

mod kit;

use bytes::Bytes;
use im_codec::{Deframer, FrameError, Incoming};
use kit::{Driven, at_every_split, deframe, frame, send, sync};
use proptest::prelude::*;

#[test]
fn every_command_at_every_split_point() {
    let mut stream = Vec::new();
    for (id, command) in (2..).zip([send("m1"), sync(), kit::sign_in(), send(&"x".repeat(64))]) {
        stream.extend(frame(id, command));
        stream.push(0);
    }
    let whole = deframe(&[&stream]);
    assert_eq!(whole.len(), 8);
    at_every_split(&stream, |frames, place| assert_eq!(frames, whole, "{place}"));
}

/// Deframes until an error, feeding `pieces` one after the other.
fn run(pieces: &[&[u8]], limit: u32) -> (Vec<Incoming>, Option<FrameError>) {
    let mut deframer = Deframer::default();
    let mut frames = Vec::new();
    let mut received = 0;
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        received += piece.len();
        loop {
            match deframer.next(&mut input, limit) {
                Ok(Some(incoming)) => frames.push(incoming),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(deframer.held_bytes() <= received.min(limit as usize));
    }
    (frames, None)
}

fn cut<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_bytes_cut_anyhow_give_the_same_frames_and_the_same_error(
        stream in prop::collection::vec(prop_oneof![Just(0u8), 1u8..6, any::<u8>()], 0..300),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        prop_assert_eq!(run(&cut(&stream, &cuts), 64), run(&[&stream], 64));
    }

    #[test]
    fn whole_frames_cut_anyhow_come_out_as_they_went_in(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            prost::encode_length_delimiter(body.len(), &mut stream).unwrap();
            stream.extend(body);
        }
        let expected: Vec<_> = bodies
            .iter()
            .map(|body| match body.len() {
                0 => Incoming::Heartbeat,
                _ => Incoming::Frame(Bytes::copy_from_slice(body)),
            })
            .collect();
        prop_assert_eq!(run(&cut(&stream, &cuts), 1000), (expected, None));
    }

    #[test]
    fn a_session_does_the_same_however_its_input_is_cut(
        kinds in prop::collection::vec(0u8..6, 0..30),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        let mut stream = Vec::new();
        for (id, kind) in (2..).zip(kinds) {
            match kind {
                0 => stream.push(0),
                1 => stream.extend(frame(id, sync())),
                2 => stream.extend(frame(id, send("no id"))),
                3 => stream.extend([5, 8, 2, 0x9a, 6, 0]),
                _ => stream.extend(frame(id, send(&format!("m{id}")))),
            }
        }
        let actions = |pieces: &[&[u8]]| {
            let mut driven = Driven::signed_in();
            let mut out = Vec::new();
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                if !driven.session.wants_bytes() {
                    break;
                }
                out.extend(driven.bytes(piece).iter().map(|action| format!("{action:?}")));
            }
            out
        };
        prop_assert_eq!(actions(&cut(&stream, &cuts)), actions(&[&stream]));
    }
}
