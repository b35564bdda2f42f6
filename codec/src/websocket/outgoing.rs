//! What a server writes to one WebSocket connection.
//!
//! In: the lengths of the frames that wait, and how much of what was given out is written. Out: bytes of its own (answer of
//! the handshake, pong, close frame), a header, and how much payload belongs behind it. Always: one header for all frames
//! that wait when it is made; frames go out as they are, without a copy; control frames stand between messages; the close
//! frame stands behind everything, once.

use super::close;
use super::encoder::{Header, Opcode, encode_plain};
use bytes::{Buf as _, Bytes};

/// Frames are put into one message up to here. A longer frame is a message of its own.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub struct Outgoing {
    /// The handshake is answered: frames may leave.
    is_open: bool,
    own: Bytes,
    header: Header,
    header_written: usize,
    /// Of the message that the header opened.
    payload_left: usize,
    /// Only the newest ping has to be answered (RFC 6455, section 5.5.3).
    pong: Option<Bytes>,
    close: Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    None,
    /// With this code, behind everything that waits.
    Due(Option<u16>),
    Queued,
}

/// What is to be written next, in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Next<'a> {
    pub own: &'a [u8],
    pub header: &'a [u8],
    /// Of the frames that wait: whole ones, but for a first that is written in part.
    pub payload_bytes: usize,
}

impl Outgoing {
    pub fn new() -> Self {
        Self {
            is_open: false,
            own: Bytes::new(),
            header: Header::default(),
            header_written: 0,
            payload_left: 0,
            pong: None,
            close: Close::None,
        }
    }

    /// The handshake is answered, with these bytes.
    pub fn open(&mut self, response: String) {
        self.own = response.into();
        self.is_open = true;
    }

    /// The handshake is refused: nothing follows these bytes.
    pub fn refuse(&mut self, response: String) {
        debug_assert!(!self.is_open);
        self.own = response.into();
        self.close = Close::Queued;
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    pub fn pong(&mut self, payload: Bytes) {
        self.pong = Some(payload);
    }

    /// Ends the connection behind everything that waits. The first code stays.
    pub fn close(&mut self, code: Option<u16>) {
        if self.close == Close::None {
            self.close = Close::Due(code);
        }
    }

    pub fn is_closing(&self) -> bool {
        self.close != Close::None
    }

    /// There is something to write though no frame waits.
    pub fn has_own(&self) -> bool {
        !self.own.is_empty() || self.pong.is_some() || matches!(self.close, Close::Due(_))
    }

    /// `frames`: the lengths of those that wait, the first as it is left.
    pub fn next(&mut self, frames: impl Iterator<Item = usize>) -> Next<'_> {
        if self.payload_left == 0 {
            self.begin(frames);
        }
        Next { own: &self.own, header: &self.header[self.header_written..], payload_bytes: self.payload_left }
    }

    /// `count` bytes of what [`next`](Self::next) gave out are written. Answers how many of them were payload.
    pub fn written(&mut self, mut count: usize) -> usize {
        let own = count.min(self.own.len());
        self.own.advance(own);
        count -= own;
        let header = count.min(self.header.len() - self.header_written);
        self.header_written += header;
        count -= header;
        debug_assert!(count <= self.payload_left);
        self.payload_left -= count;
        count
    }

    /// Between two messages.
    fn begin(&mut self, frames: impl Iterator<Item = usize>) {
        if self.own.is_empty()
            && let Some(payload) = self.pong.take()
        {
            self.own = control(Opcode::Pong, &payload);
        }
        let mut batch_bytes = 0;
        if self.is_open {
            for bytes in frames {
                if batch_bytes > 0 && batch_bytes + bytes > BATCH_BYTES_MAX {
                    break;
                }
                batch_bytes += bytes;
            }
        }
        self.header = Header::default();
        self.header_written = 0;
        if batch_bytes > 0 {
            self.header = Header::server(Opcode::Binary, batch_bytes as u64);
            self.payload_left = batch_bytes;
        } else if self.own.is_empty()
            && let Close::Due(code) = self.close
        {
            self.own = control(Opcode::Close, &close::payload(code));
            self.close = Close::Queued;
        }
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(2 + payload.len());
    encode_plain(opcode, payload, &mut frame);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::close::CloseFrame;
    use crate::websocket::{Decoder, Event, MessageLimits, Role};
    use bytes::BytesMut;

    fn open() -> Outgoing {
        let mut outgoing = Outgoing::new();
        outgoing.open(String::new());
        outgoing
    }

    /// Writes everything, at most `step` bytes at a time, as a socket that takes so many.
    fn write_all(outgoing: &mut Outgoing, frames: &mut Vec<Vec<u8>>, step: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while !frames.is_empty() || outgoing.has_own() {
            let next = outgoing.next(frames.iter().map(Vec::len));
            let payload = frames.concat();
            let all = [next.own, next.header, &payload[..next.payload_bytes]].concat();
            assert!(!all.is_empty(), "nothing to write, and yet something waits");
            let count = step.min(all.len());
            stream.extend_from_slice(&all[..count]);
            let mut written = outgoing.written(count);
            while written > 0 {
                let taken = written.min(frames[0].len());
                frames[0].drain(..taken);
                written -= taken;
                if frames[0].is_empty() {
                    frames.remove(0);
                }
            }
        }
        stream
    }

    fn read(stream: &[u8]) -> Vec<Event> {
        let mut decoder = Decoder::new(Role::Client, MessageLimits::default());
        let mut input = BytesMut::from(stream);
        std::iter::from_fn(|| decoder.next(&mut input).unwrap()).collect()
    }

    fn message(bytes: &[u8]) -> Event {
        Event::Data { kind: crate::websocket::Kind::Binary, bytes: Bytes::copy_from_slice(bytes), is_last: true }
    }

    #[test]
    fn all_frames_that_wait_are_one_message_however_the_socket_takes_them() {
        for step in 1..30 {
            let mut outgoing = open();
            let mut frames = vec![b"abc".to_vec(), b"defgh".to_vec(), b"i".to_vec()];
            assert_eq!(read(&write_all(&mut outgoing, &mut frames, step)), [message(b"abcdefghi")], "{step} at a time");
        }
    }

    #[test]
    fn a_frame_that_comes_later_does_not_get_into_an_open_message() {
        let mut outgoing = open();
        assert_eq!(outgoing.next([3].into_iter()), Next { own: b"", header: b"\x82\x03", payload_bytes: 3 });
        assert_eq!(outgoing.written(1), 0);
        assert_eq!(outgoing.next([3, 9].into_iter()), Next { own: b"", header: b"\x03", payload_bytes: 3 });
        assert_eq!(outgoing.written(2), 1);
        outgoing.pong(Bytes::from_static(b"p"));
        assert_eq!(outgoing.next([2, 9].into_iter()), Next { own: b"", header: b"", payload_bytes: 2 });
        assert_eq!(outgoing.written(2), 2);
        assert_eq!(outgoing.next([9].into_iter()), Next { own: b"\x8a\x01p", header: b"\x82\x09", payload_bytes: 9 });
    }

    #[test]
    fn the_newest_ping_is_answered_and_the_close_comes_last() {
        let mut outgoing = open();
        outgoing.pong(Bytes::from_static(b"one"));
        outgoing.pong(Bytes::from_static(b"two"));
        outgoing.close(Some(4000));
        outgoing.close(Some(1002));
        let events = read(&write_all(&mut outgoing, &mut vec![b"abc".to_vec()], 1));
        let close = Event::Close(CloseFrame { code: Some(4000), reason: Bytes::new() });
        assert_eq!(events, [Event::Pong(Bytes::from_static(b"two")), message(b"abc"), close]);
        assert!(!outgoing.has_own());
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut outgoing = open();
        let next = outgoing.next([BATCH_BYTES_MAX - 1, 2].into_iter());
        assert_eq!(next.payload_bytes, BATCH_BYTES_MAX - 1);
        let mut outgoing = open();
        assert_eq!(outgoing.next([BATCH_BYTES_MAX + 1, 2].into_iter()).payload_bytes, BATCH_BYTES_MAX + 1);
    }

    #[test]
    fn no_frame_leaves_before_the_handshake_is_answered() {
        let mut outgoing = Outgoing::new();
        assert_eq!(outgoing.next([5].into_iter()).payload_bytes, 0);
        outgoing.refuse("HTTP/1.1 403".into());
        assert_eq!(outgoing.next([5].into_iter()), Next { own: b"HTTP/1.1 403", header: b"", payload_bytes: 0 });
    }
}
