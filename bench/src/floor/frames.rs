//! The framing of the floor servers: over TCP a 4-byte little-endian length before each payload, over WebSocket the header of a
//! binary message, masked towards the server.
//!
//! In: bytes as they were read. Out: where whole frames end, and each one; frames to send. Always: no frame is looked at
//! twice; an empty one is a greeting that the server sends back. There is no opening handshake and no check.

use crate::connect::Transport;
use monoio::buf::IoBufMut;
use monoio::io::AsyncReadRent;
use std::io;

/// Greetings are not longer.
pub const GREETING_BYTES_MAX: usize = 6;
const LENGTH_BYTES: usize = 4;
const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
/// Instead of a length: it follows in two bytes.
const LONG: u8 = 126;
/// Any key costs the same.
const KEY: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

pub struct Frame<'a> {
    pub payload: &'a [u8],
    /// That the payload is masked with.
    key: Option<[u8; 4]>,
}

/// The whole frames at the front of some bytes.
pub struct WholeFrames<'a> {
    transport: Transport,
    rest: &'a [u8],
}

impl<'a> Iterator for WholeFrames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let ((payload_bytes, key), rest) = match self.transport {
            Transport::Tcp => {
                let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>()?;
                ((u32::from_le_bytes(*length) as usize, None), rest)
            }
            Transport::Ws => websocket_header(self.rest)?,
        };
        let (payload, rest) = rest.split_at_checked(payload_bytes)?;
        self.rest = rest;
        Some(Frame { payload, key })
    }
}

/// What a header says of its payload.
type Announced = (usize, Option<[u8; 4]>);

/// And what follows the header. `None`: not whole.
fn websocket_header(bytes: &[u8]) -> Option<(Announced, &[u8])> {
    let ([_, second], rest) = bytes.split_first_chunk::<2>()?;
    let (payload_bytes, rest) = match second & !MASKED {
        LONG => rest.split_first_chunk::<2>().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
        short => (short.into(), rest),
    };
    if second & MASKED == 0 {
        return Some(((payload_bytes, None), rest));
    }
    let (key, rest) = rest.split_first_chunk::<4>()?;
    Some(((payload_bytes, Some(*key)), rest))
}

pub fn whole_frames(transport: Transport, bytes: &[u8]) -> WholeFrames<'_> {
    WholeFrames { transport, rest: bytes }
}

/// How many bytes the whole frames at the front have.
pub fn whole_bytes(transport: Transport, bytes: &[u8]) -> usize {
    let mut frames = whole_frames(transport, bytes);
    while frames.next().is_some() {}
    bytes.len() - frames.rest.len()
}

/// Appends what the server sends for `frame`: the payload as it was before masking.
pub fn append_reply(transport: Transport, frame: &Frame<'_>, out: &mut Vec<u8>) {
    append_header(transport, frame.payload.len(), None, out);
    append_masked(frame.payload, frame.key, out);
}

/// Appends what the load sends. An empty payload is a greeting.
pub fn append_request(transport: Transport, payload: &[u8], out: &mut Vec<u8>) {
    let key = (transport == Transport::Ws).then_some(KEY);
    append_header(transport, payload.len(), key, out);
    append_masked(payload, key, out);
}

fn append_header(transport: Transport, payload_bytes: usize, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    if transport == Transport::Tcp {
        return out.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    }
    let masked = if key.is_some() { MASKED } else { 0 };
    if payload_bytes < LONG.into() {
        out.extend_from_slice(&[BINARY, masked | payload_bytes as u8]);
    } else {
        out.extend_from_slice(&[BINARY, masked | LONG]);
        out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
    }
    key.iter().for_each(|key| out.extend_from_slice(key));
}

fn append_masked(payload: &[u8], key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(payload);
    let Some(key) = key else { return };
    for four in out[start..].chunks_mut(key.len()) {
        four.iter_mut().zip(key).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// Appends a message frame of the load: a serial number, the time it was due, and padding up to `payload_bytes`.
pub fn append_message(transport: Transport, serial: u64, due_ns: u64, payload_bytes: usize, out: &mut Vec<u8>) {
    let mut payload = [serial.to_le_bytes(), due_ns.to_le_bytes()].concat();
    payload.resize(payload_bytes.max(payload.len()), 0);
    append_request(transport, &payload, out);
}

/// Serial number and due time of a message that came back; `None` for a greeting.
pub fn parse_message(frame: Frame<'_>) -> Option<(u64, u64)> {
    let (serial, rest) = frame.payload.split_first_chunk::<8>()?;
    let due_ns = rest.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*serial), u64::from_le_bytes(*due_ns)))
}

/// Reads behind what `buffer` holds, up to its capacity. `Ok(0)` is the end.
pub async fn read_behind(stream: &mut impl AsyncReadRent, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
    let (held, capacity) = (buffer.len(), buffer.capacity());
    let (result, slice) = stream.read(buffer.slice_mut(held..capacity)).await;
    (result, slice.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ws];

    #[test]
    fn a_frame_counts_once_it_is_whole() {
        for transport in TRANSPORTS {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (serial, payload_bytes) in [(7, 64), (8, 300), (9, 16)] {
                append_message(transport, serial, 1, payload_bytes, &mut bytes);
                ends.push(bytes.len());
            }
            for end in 0..=bytes.len() {
                let whole = ends.iter().take_while(|whole| **whole <= end).count();
                assert_eq!(whole_frames(transport, &bytes[..end]).count(), whole, "{end} bytes over {transport}");
                let whole_end = if whole == 0 { 0 } else { ends[whole - 1] };
                assert_eq!(whole_bytes(transport, &bytes[..end]), whole_end, "{end} bytes over {transport}");
            }
        }
    }

    #[test]
    fn what_comes_back_is_what_was_sent() {
        for transport in TRANSPORTS {
            let (mut sent, mut back) = (Vec::new(), Vec::new());
            append_message(transport, 7, 9, 65, &mut sent);
            append_request(transport, &[], &mut sent);
            append_message(transport, 8, 10, 300, &mut sent);
            whole_frames(transport, &sent).for_each(|frame| append_reply(transport, &frame, &mut back));
            let parsed: Vec<_> = whole_frames(transport, &back).map(parse_message).collect();
            assert_eq!(parsed, [Some((7, 9)), None, Some((8, 10))], "{transport}");
        }
    }
}
