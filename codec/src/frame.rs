//! Delimited frames: a varint32 length, then that many bytes.
//!
//! In: the bytes of a stream in pieces of any size. Out: whole frames and heartbeats (length zero), in order. Always: a
//! length is checked before a byte is reserved for it; no byte is looked at twice; what is held of an unfinished frame
//! grows with the bytes received, not with the length promised. A frame that lies whole in one piece comes out as a slice
//! of it, without a copy.

use crate::error::FrameError;
use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;

/// A frame of length zero, as it stands on the wire in both directions.
pub const HEARTBEAT: &[u8] = &[0];

/// The longest length prefix: 32 bits in groups of 7.
const LENGTH_BYTES_MAX: u32 = 5;

/// What the peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Heartbeat,
    /// The message's bytes, without their length prefix.
    Frame(Bytes),
}

/// Encodes `message` behind its length, ready to be written.
pub fn encode_delimited(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_length_delimited_to_vec())
}

/// Cuts one direction of a connection into frames.
#[derive(Debug, Default)]
pub struct Deframer {
    /// Bytes of the body received so far, when it came in more than one piece.
    partial: BytesMut,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length {
        value: u32,
        bytes: u32,
    },
    /// `missing` bytes until the frame is whole. Never 0.
    Body {
        missing: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Length { value: 0, bytes: 0 }
    }
}

impl Deframer {
    /// Takes the next frame from the front of `input`. `None`: all of `input` was taken and more is needed. After an error
    /// the stream has no meaning any more.
    pub fn next(&mut self, input: &mut Bytes, frame_bytes_max: u32) -> Result<Option<Incoming>, FrameError> {
        loop {
            match self.state {
                State::Length { value, bytes } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    match length_byte(value, bytes, input.get_u8())? {
                        LengthStep::More(value) => self.state = State::Length { value, bytes: bytes + 1 },
                        LengthStep::Whole(0) => {
                            self.state = State::default();
                            return Ok(Some(Incoming::Heartbeat));
                        }
                        LengthStep::Whole(length) if length > frame_bytes_max => {
                            return Err(FrameError::TooLarge { length, frame_bytes_max });
                        }
                        LengthStep::Whole(length) => self.state = State::Body { missing: length },
                    }
                }
                State::Body { missing } => return Ok(self.body(input, missing)),
            }
        }
    }

    /// True between the first byte of a frame and its last.
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.state, State::Length { bytes: 0, .. })
    }

    /// Bytes held of an unfinished frame.
    pub fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    fn body(&mut self, input: &mut Bytes, missing: u32) -> Option<Incoming> {
        let wanted = missing as usize;
        if input.len() < wanted {
            self.partial.extend_from_slice(input);
            self.state = State::Body { missing: missing - input.len() as u32 };
            input.clear();
            return None;
        }
        self.state = State::default();
        if self.partial.is_empty() {
            return Some(Incoming::Frame(input.split_to(wanted)));
        }
        self.partial.extend_from_slice(&input[..wanted]);
        input.advance(wanted);
        Some(Incoming::Frame(std::mem::take(&mut self.partial).freeze()))
    }
}

enum LengthStep {
    More(u32),
    Whole(u32),
}

/// Adds the byte behind `bytes` others to the length `value`.
fn length_byte(value: u32, bytes: u32, byte: u8) -> Result<LengthStep, FrameError> {
    let last_place = bytes == LENGTH_BYTES_MAX - 1;
    // The fifth byte holds the upper 4 bits alone, and nothing may follow it.
    if last_place && byte > 0x0f {
        return Err(FrameError::BadLength);
    }
    let value = value | u32::from(byte & 0x7f) << (7 * bytes);
    if byte & 0x80 != 0 {
        return Ok(LengthStep::More(value));
    }
    // A last byte of zero behind others says nothing: the length was written longer than it is.
    if byte == 0 && bytes > 0 {
        return Err(FrameError::BadLength);
    }
    Ok(LengthStep::Whole(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 1000;

    fn all(pieces: &[&[u8]]) -> Result<Vec<Incoming>, FrameError> {
        let mut deframer = Deframer::default();
        let mut out = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(incoming) = deframer.next(&mut input, LIMIT)? {
                out.push(incoming);
            }
            assert!(input.is_empty(), "bytes left behind");
        }
        Ok(out)
    }

    fn frame(bytes: &[u8]) -> Incoming {
        Incoming::Frame(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn frames_and_heartbeats_come_out_in_order_at_every_split_point() {
        let mut stream = vec![0, 3, b'a', b'b', b'c', 0, 0, 0x80 | 72, 1];
        stream.extend([7; 200]);
        let expected =
            vec![Incoming::Heartbeat, frame(b"abc"), Incoming::Heartbeat, Incoming::Heartbeat, frame(&[7; 200])];
        for at in 0..=stream.len() {
            assert_eq!(all(&[&stream[..at], &stream[at..]]).as_ref(), Ok(&expected), "split at {at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(all(&single), Ok(expected));
    }

    #[test]
    fn a_length_of_more_than_32_bits_or_written_too_long_is_refused() {
        for bad in [
            &[0xff, 0xff, 0xff, 0xff, 0x1f][..],
            &[0x80, 0x80, 0x80, 0x80, 0x80],
            &[0x80, 0x00],
            &[0x81, 0x00],
            &[0x81, 0x80, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(all(&[bad]), Err(FrameError::BadLength), "{bad:x?}");
        }
        let largest = all(&[&[0xff, 0xff, 0xff, 0xff, 0x0f]]);
        assert_eq!(largest, Err(FrameError::TooLarge { length: u32::MAX, frame_bytes_max: LIMIT }));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_any_byte_of_the_frame() {
        assert_eq!(all(&[&[0xe9, 0x07]]), Err(FrameError::TooLarge { length: 1001, frame_bytes_max: LIMIT }));
        assert_eq!(all(&[&[0xe8, 0x07]]), Ok(vec![]));
    }

    #[test]
    fn memory_grows_with_the_bytes_received_and_not_with_the_length_promised() {
        let mut deframer = Deframer::default();
        let mut input = Bytes::from_static(&[0xe8, 0x07, 1, 2, 3]);
        assert_eq!(deframer.next(&mut input, LIMIT), Ok(None));
        assert_eq!(deframer.held_bytes(), 3);
        assert!(deframer.partial.capacity() < 100);
        assert!(deframer.is_inside_frame());
    }

    #[test]
    fn a_frame_that_lies_in_one_piece_is_not_copied() {
        let input = Bytes::from_static(&[2, 8, 9]);
        let Ok(Some(Incoming::Frame(frame))) = Deframer::default().next(&mut input.clone(), LIMIT) else {
            panic!("no frame");
        };
        assert_eq!(frame.as_ptr(), input[1..].as_ptr());
    }
}
