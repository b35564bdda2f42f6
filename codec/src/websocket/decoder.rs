//! The bytes of one direction of a WebSocket connection, cut into payloads and control frames.
//!
//! In: bytes in pieces of any size, masked if a client sent them. Out: [`Event`]s in order. Always: a header is judged as
//! soon as it is there, before anything is reserved for what it promises; a payload is unmasked where it lies and handed on
//! as it arrives, as a slice, so no byte of it is looked at twice; of a message that is under way nothing but numbers is kept, of a
//! control frame its payload of at most 125 bytes. How the bytes were cut changes nothing but how data is cut.

use super::close::{self, CloseFrame};
use super::encoder::Opcode;
use super::utf8::Utf8;
use super::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, mask};
use bytes::{Buf as _, Bytes, BytesMut};

/// Which end reads: a server's peer masks, a client's does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next bytes of a message. `is_last`: the message ends behind them; they may be empty only then.
    Data {
        kind: Kind,
        bytes: Bytes,
        is_last: bool,
    },
    Ping(Bytes),
    Pong(Bytes),
    /// Whatever follows means nothing and is thrown away.
    Close(CloseFrame),
}

/// The peer broke the protocol. Nothing that follows can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("text that is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    TooBig(&'static str),
}

impl Violation {
    /// The close code that tells the peer.
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => close::PROTOCOL_ERROR,
            Self::NotUtf8 => close::NOT_UTF8,
            Self::TooBig(_) => close::TOO_BIG,
        }
    }
}

/// Bounds of one message.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    pub bytes_max: u64,
    /// Frames that one message may come in.
    pub fragments_max: u32,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self { bytes_max: 1024 * 1024, fragments_max: 128 }
    }
}

#[derive(Debug)]
pub struct Decoder {
    limits: MessageLimits,
    role: Role,
    /// A header that has not come whole.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    is_closed: bool,
    frame: Option<Frame>,
    message: Option<Message>,
    /// Of a control frame that has not come whole.
    control: Vec<u8>,
}

/// A frame whose payload has not come whole.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    key: Option<[u8; 4]>,
    taken: u64,
    missing: u64,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    kind: Kind,
    bytes: u64,
    fragments: u32,
    utf8: Utf8,
}

impl Decoder {
    pub fn new(role: Role, limits: MessageLimits) -> Self {
        Self {
            limits,
            role,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            is_closed: false,
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// Takes the next event from the front of `input`. `None`: all of `input` was taken and more is needed.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        let next = self.step(input);
        if matches!(next, Err(_) | Ok(Some(Event::Close(_)))) {
            self.is_closed = true;
        }
        if self.is_closed {
            input.clear();
        }
        next
    }

    /// True between the first byte of a message, or of a frame, and its last.
    pub fn is_inside_message(&self) -> bool {
        self.header_bytes > 0 || self.frame.is_some() || self.message.is_some()
    }

    /// Bytes held of what has not come whole.
    pub fn held_bytes(&self) -> usize {
        usize::from(self.header_bytes) + self.control.len()
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        while !self.is_closed {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            if frame.missing > 0 && input.is_empty() {
                self.frame = Some(frame);
                return Ok(None);
            }
            let event = if frame.opcode.is_control() { self.control(frame, input)? } else { self.data(frame, input)? };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The next bytes of a data frame. `None`: they bring nothing and end nothing.
    fn data(&mut self, mut frame: Frame, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        let piece = take_payload(&mut frame, input);
        let is_last = frame.is_final && frame.missing == 0;
        let Some(message) = &mut self.message else {
            debug_assert!(false, "a data frame without its message");
            return Ok(None);
        };
        let kind = message.kind;
        if kind == Kind::Text {
            message.utf8.take(&piece).map_err(|_| Violation::NotUtf8)?;
            if is_last {
                message.utf8.end().map_err(|_| Violation::NotUtf8)?;
            }
        }
        if is_last {
            self.message = None;
        }
        self.frame = (frame.missing > 0).then_some(frame);
        Ok((is_last || !piece.is_empty()).then(|| Event::Data { kind, bytes: piece.freeze(), is_last }))
    }

    /// The next bytes of a control frame. `None`: there are more to come.
    fn control(&mut self, mut frame: Frame, input: &mut BytesMut) -> Result<Option<Event>, Violation> {
        let piece = take_payload(&mut frame, input);
        // Copied: it may be kept for long, and must not keep a whole read buffer with it.
        self.control.extend_from_slice(&piece);
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        let payload = Bytes::from(std::mem::take(&mut self.control));
        Ok(Some(match frame.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => Event::Close(CloseFrame::read(&payload)?),
        }))
    }

    /// A whole header, from what is held and `input`.
    fn read_header(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Violation> {
        if !self.fill_header(2, input) {
            return Ok(None);
        }
        let opcode = self.judge_start()?;
        let length_bits = self.header[1] & 0x7f;
        let length_end = match length_bits {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if !self.fill_header(length_end, input) {
            return Ok(None);
        }
        let length = self.judge_length(length_bits, &self.header[2..length_end])?;
        let is_final = self.header[0] & 0x80 != 0;
        if !opcode.is_control() {
            self.judge_message(opcode, length)?;
        }
        let mut key = None;
        if self.role == Role::Server {
            if !self.fill_header(length_end + 4, input) {
                return Ok(None);
            }
            key = self.header[length_end..].first_chunk().copied();
        }
        self.header_bytes = 0;
        if !opcode.is_control() {
            self.count_fragment(opcode, length);
        }
        Ok(Some(Frame { opcode, is_final, key, taken: 0, missing: length }))
    }

    /// Takes bytes until `wanted` of the header are there. False: there are not so many yet.
    fn fill_header(&mut self, wanted: usize, input: &mut BytesMut) -> bool {
        let have = usize::from(self.header_bytes);
        let taken = input.len().min(wanted.saturating_sub(have));
        self.header[have..have + taken].copy_from_slice(&input[..taken]);
        input.advance(taken);
        self.header_bytes += taken as u8;
        usize::from(self.header_bytes) >= wanted
    }

    /// What the first two bytes say.
    fn judge_start(&self) -> Result<Opcode, Violation> {
        let [first, second, ..] = self.header;
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("a reserved bit without an extension"));
        }
        let opcode = Opcode::parse(first & 0x0f).ok_or(Violation::Protocol("a reserved opcode"))?;
        match (self.role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(Violation::Protocol("a client's frame without a mask")),
            (Role::Client, true) => return Err(Violation::Protocol("a server's frame with a mask")),
            _ => {}
        }
        if opcode.is_control() {
            if first & 0x80 == 0 {
                return Err(Violation::Protocol("a control frame in fragments"));
            }
            if usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
                return Err(Violation::Protocol("a control frame of more than 125 bytes"));
            }
        }
        match (opcode, self.message.is_some()) {
            (Opcode::Continuation, false) => Err(Violation::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, true) => Err(Violation::Protocol("a message inside another")),
            _ => Ok(opcode),
        }
    }

    fn judge_length(&self, bits: u8, extended: &[u8]) -> Result<u64, Violation> {
        let length = extended.iter().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        match bits {
            126 if length < 126 => Err(Violation::Protocol("a length written longer than it is")),
            127 if length > u64::MAX / 2 => Err(Violation::Protocol("a length of more than 63 bits")),
            127 if length <= 0xffff => Err(Violation::Protocol("a length written longer than it is")),
            126 | 127 => Ok(length),
            _ => Ok(u64::from(bits)),
        }
    }

    /// Whether the message may go on with one more fragment of `length`.
    fn judge_message(&self, opcode: Opcode, length: u64) -> Result<(), Violation> {
        let (bytes, fragments) = match (&self.message, opcode) {
            (Some(message), Opcode::Continuation) => (message.bytes, message.fragments),
            _ => (0, 0),
        };
        if bytes.saturating_add(length) > self.limits.bytes_max {
            return Err(Violation::TooBig("a message over the limit"));
        }
        if fragments >= self.limits.fragments_max {
            return Err(Violation::TooBig("a message in too many fragments"));
        }
        Ok(())
    }

    fn count_fragment(&mut self, opcode: Opcode, length: u64) {
        let kind = if opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
        let message = self.message.get_or_insert(Message { kind, bytes: 0, fragments: 0, utf8: Utf8::default() });
        message.bytes += length;
        message.fragments += 1;
    }
}

/// What `input` has of the frame's payload, unmasked.
fn take_payload(frame: &mut Frame, input: &mut BytesMut) -> BytesMut {
    let taken = usize::try_from(frame.missing).map_or(input.len(), |missing| missing.min(input.len()));
    let mut piece = input.split_to(taken);
    if let Some(key) = frame.key {
        mask::apply(&mut piece, key, frame.taken);
    }
    frame.taken += taken as u64;
    frame.missing -= taken as u64;
    piece
}

#[cfg(test)]
mod tests;
