//! What a measured message carries, so that its receiver can tell which one it is and that no bit of it changed.
//!
//! In: stream, serial and due time. Out: the bytes of `MessageBody.data`, and back. Always: a payload that parses was
//! made here; the checksum covers every byte behind it.

use bytes::{BufMut as _, Bytes, BytesMut};
use im_proto::client::MessageBody;
use prost::Message as _;

const CHECKSUM_BYTES: usize = 4;
/// Checksum, stream, serial, due time.
pub const PAYLOAD_BYTES_MIN: usize = CHECKSUM_BYTES + 4 + 8 + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// The conversation, by its number in the run.
    pub stream: u32,
    /// The place of the message in its stream: 0, 1, 2 …
    pub serial: u64,
    /// When it was due, in nanoseconds since the start of the run.
    pub due_ns: u64,
}

impl Payload {
    /// An encoded `MessageBody` with `payload_bytes` of data.
    pub fn body(self, payload_bytes: usize) -> Bytes {
        let mut data = BytesMut::with_capacity(payload_bytes);
        data.put_u32_le(0);
        data.put_u32_le(self.stream);
        data.put_u64_le(self.serial);
        data.put_u64_le(self.due_ns);
        // Padding differs from message to message, so bytes of another one would show.
        data.resize(payload_bytes.max(PAYLOAD_BYTES_MIN), self.serial as u8);
        let checksum = crc32c::crc32c(&data[CHECKSUM_BYTES..]);
        data[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
        MessageBody { data: data.freeze(), ..MessageBody::default() }.encode_to_vec().into()
    }

    /// `None`: not a body made here, or damaged.
    pub fn parse(body: Bytes) -> Option<Self> {
        let data = MessageBody::decode(body).ok()?.data;
        let (checksum, rest) = data.split_first_chunk::<CHECKSUM_BYTES>()?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let (serial, rest) = rest.split_first_chunk::<8>()?;
        let due_ns = rest.first_chunk::<8>()?;
        Some(Self {
            stream: u32::from_le_bytes(*stream),
            serial: u64::from_le_bytes(*serial),
            due_ns: u64::from_le_bytes(*due_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_as_it_was_and_any_flipped_bit_shows() {
        let payload = Payload { stream: 3, serial: 258, due_ns: 1 << 40 };
        for bytes in [0, PAYLOAD_BYTES_MIN, 64, 1000] {
            let body = payload.body(bytes);
            assert_eq!(Payload::parse(body.clone()), Some(payload));
            for bit in 0..body.len() * 8 {
                let mut damaged = body.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Payload::parse(damaged.into()), None, "bit {bit} of {bytes}");
            }
        }
    }
}
