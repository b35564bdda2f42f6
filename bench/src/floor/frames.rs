//! The framing of the floor servers: a 4-byte little-endian length, then that many bytes.
//!
//! In: bytes as they were read. Out: where whole frames end, and each one. Always: no frame is looked at twice; a
//! frame of length zero is a greeting that the server sends back.

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::AsyncReadRent;
use std::io;

pub const PREFIX_BYTES: usize = 4;
pub const GREETING: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];

/// The whole frames at the front of `bytes`, each with its prefix.
pub struct WholeFrames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for WholeFrames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let prefix = self.rest.first_chunk::<PREFIX_BYTES>()?;
        let end = PREFIX_BYTES + u32::from_le_bytes(*prefix) as usize;
        let (frame, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(frame)
    }
}

pub fn whole_frames(bytes: &[u8]) -> WholeFrames<'_> {
    WholeFrames { rest: bytes }
}

/// A message frame: a serial number, the time it was due, and padding up to `payload_bytes`.
pub fn message(serial: u64, due_ns: u64, payload_bytes: usize) -> Vec<u8> {
    let payload_bytes = payload_bytes.max(16);
    let mut frame = Vec::with_capacity(PREFIX_BYTES + payload_bytes);
    frame.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    frame.extend_from_slice(&serial.to_le_bytes());
    frame.extend_from_slice(&due_ns.to_le_bytes());
    frame.resize(PREFIX_BYTES + payload_bytes, 0);
    frame
}

/// Serial number and due time of a frame made by [`message`]; `None` for a greeting.
pub fn parse_message(frame: &[u8]) -> Option<(u64, u64)> {
    let (serial, rest) = frame[PREFIX_BYTES..].split_first_chunk::<8>()?;
    let due_ns = rest.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*serial), u64::from_le_bytes(*due_ns)))
}

/// Reads behind what `buffer` holds, up to its capacity. `Ok(0)` is the end.
pub async fn read_behind(stream: &mut impl AsyncReadRent, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let (held, capacity) = (buffer.len(), buffer.capacity());
    let (result, slice) = stream.read(buffer.slice_mut(held..capacity)).await;
    (result, slice.into_inner())
}

/// Bytes of the whole frames at the front.
pub fn whole_bytes(bytes: &[u8]) -> usize {
    whole_frames(bytes).map(<[u8]>::len).sum()
}

/// A view of the first `end` bytes for a write.
pub fn front(buffer: Vec<u8>, end: usize) -> monoio::buf::Slice<Vec<u8>> {
    buffer.slice(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_once_it_is_whole() {
        let bytes: Vec<u8> = [message(7, 9, 64), GREETING.to_vec(), message(8, 10, 64)].concat();
        for end in 0..bytes.len() {
            let whole = match end {
                0..68 => 0,
                68..72 => 1,
                72..140 => 2,
                _ => 3,
            };
            assert_eq!(whole_frames(&bytes[..end]).count(), whole, "{end} bytes");
        }
        let parsed: Vec<_> = whole_frames(&bytes).map(parse_message).collect();
        assert_eq!(parsed, [Some((7, 9)), None, Some((8, 10))]);
        assert_eq!(whole_bytes(&bytes[..bytes.len() - 1]), 72);
    }
}
