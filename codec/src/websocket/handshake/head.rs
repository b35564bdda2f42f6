//! The bytes of an HTTP head.
//!
//! In: bytes as they come. Out: the head when its empty line is there. Always: each byte is looked at once; no more is held
//! than came, and never more than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX).

use super::HEAD_BYTES_MAX;
use bytes::{Buf as _, BytesMut};

const END: &[u8; 4] = b"\r\n\r\n";

#[derive(Debug, Default)]
pub struct Head {
    bytes: Vec<u8>,
    /// How much of [`END`] the last bytes are.
    matched: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl Head {
    /// Takes the head's bytes from the front of `input`. `None`: more is needed.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<&[u8]>, TooLarge> {
        let room = HEAD_BYTES_MAX - self.bytes.len();
        let mut taken = 0;
        while self.matched < END.len() && taken < input.len().min(room) {
            let byte = input[taken];
            taken += 1;
            self.matched = match byte {
                byte if byte == END[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
        }
        self.bytes.extend_from_slice(&input[..taken]);
        input.advance(taken);
        if self.matched == END.len() {
            return Ok(Some(&self.bytes));
        }
        if self.bytes.len() == HEAD_BYTES_MAX { Err(TooLarge) } else { Ok(None) }
    }
}
