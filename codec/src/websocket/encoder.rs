//! Frames to send.
//!
//! In: an opcode and a payload, or its length. Out: header bytes (a server's payload follows as it is, without a copy), or
//! a whole masked frame (a client's). Always: a message is one frame, its length in the fewest bytes.

use super::{HEADER_BYTES_MAX, mask};
use bytes::{BufMut as _, BytesMut};
use std::ops::Deref;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl Header {
    /// Of a server's frame that is a whole message, or a control frame: 2 to 10 bytes.
    pub fn server(opcode: Opcode, payload_bytes: u64) -> Self {
        Self::new(opcode, payload_bytes, 0)
    }

    /// Of a client's, with its mask key: 6 to 14 bytes.
    pub fn client(opcode: Opcode, payload_bytes: u64, key: [u8; 4]) -> Self {
        let mut header = Self::new(opcode, payload_bytes, 0x80);
        header.push(&key);
        header
    }

    fn new(opcode: Opcode, payload_bytes: u64, masked: u8) -> Self {
        let mut header = Self::default();
        header.push(&[0x80 | opcode.bits()]);
        match payload_bytes {
            0..=125 => header.push(&[masked | payload_bytes as u8]),
            126..=0xffff => {
                header.push(&[masked | 126]);
                header.push(&(payload_bytes as u16).to_be_bytes());
            }
            _ => {
                header.push(&[masked | 127]);
                header.push(&payload_bytes.to_be_bytes());
            }
        }
        header
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len() as u8;
    }
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Appends a client's frame to `out`: its payload is `parts` one behind the other, masked with `key`.
pub fn encode_masked(opcode: Opcode, parts: &[&[u8]], key: [u8; 4], out: &mut BytesMut) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_BYTES_MAX + payload_bytes);
    out.put_slice(&Header::client(opcode, payload_bytes as u64, key));
    let start = out.len();
    for part in parts {
        out.put_slice(part);
    }
    mask::apply(&mut out[start..], key, 0);
}

/// Appends a server's frame to `out`.
pub fn encode_plain(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&Header::server(opcode, payload.len() as u64));
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_the_fewest_bytes() {
        let header = |length| Header::server(Opcode::Binary, length).to_vec();
        assert_eq!(header(0), [0x82, 0]);
        assert_eq!(header(125), [0x82, 125]);
        assert_eq!(header(126), [0x82, 126, 0, 126]);
        assert_eq!(header(0xffff), [0x82, 126, 0xff, 0xff]);
        assert_eq!(header(0x1_0000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Header::client(Opcode::Ping, 3, [1, 2, 3, 4]).to_vec(), [0x89, 0x83, 1, 2, 3, 4]);
    }

    #[test]
    fn the_example_of_the_rfc() {
        let mut out = BytesMut::new();
        encode_masked(Opcode::Text, &[b"He", b"llo"], [0x37, 0xfa, 0x21, 0x3d], &mut out);
        assert_eq!(&out[..], b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }
}
