//! WebSocket against another implementation, and a session behind it, over random cuttings.

#![allow(clippy::unwrap_used)]

mod kit;

use bytes::{Bytes, BytesMut};
use im_codec::session::Told;
use im_codec::websocket::{
    ClientHandshake, Decoder, Event, Header, Kind, MessageLimits, Opcode, Origins, PATH, Request, Role, ServerEnd,
    close, encode_masked,
};
use im_codec::{Action, Session, SessionLimits};
use im_proto::client::CloseCode;
use kit::{closed, forwarded, frame, login, send, sign_in};
use std::io::{self, Read, Write};
use std::sync::Arc;
use tungstenite::protocol::frame::coding::CloseCode as TheirCode;
use tungstenite::protocol::{CloseFrame as TheirClose, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const ROUNDS: u64 = 500;

/// splitmix64.
struct Random(u64);

impl Random {
    /// From a new seed, which is printed: a failing test shows it.
    fn new(test: &str) -> Self {
        use std::hash::{BuildHasher as _, Hasher as _, RandomState};
        let seed = match std::env::var("IM_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        println!("{test}: IM_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn length(&mut self) -> usize {
        let bound = [4, 130, 300, 70_000][self.below(4)];
        self.below(bound)
    }

    fn text(&mut self) -> String {
        let length = self.length() / 4;
        (0..length).map(|_| ['a', 'é', '日', '🙂'][self.below(4)]).collect()
    }

    /// `bytes` in pieces of random sizes.
    fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let bound = [2, 20, 5_000][self.below(3)];
            let taken = (1 + self.below(bound)).min(rest.len());
            pieces.push(rest[..taken].to_vec());
            rest = &rest[taken..];
        }
        pieces
    }
}

/// A stream for the other implementation: what it writes is kept, what it reads is given piece by piece.
#[derive(Default)]
struct Pipe {
    to_read: Vec<Vec<u8>>,
    written: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_read.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.to_read[0].len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.to_read[0][..count]);
        self.to_read[0].drain(..count);
        if self.to_read[0].is_empty() {
            self.to_read.remove(0);
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(role: tungstenite::protocol::Role, to_read: Vec<Vec<u8>>) -> WebSocket<Pipe> {
    let config = WebSocketConfig::default().max_frame_size(Some(1 << 20)).max_message_size(Some(1 << 20));
    WebSocket::from_raw_socket(Pipe { to_read, written: Vec::new() }, role, Some(config))
}

/// What a stream says, in both implementations' terms.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Refused,
}

fn read_by_ours(role: Role, pieces: &[Vec<u8>]) -> Vec<Said> {
    let limits = MessageLimits { fragments_max: u32::MAX, ..MessageLimits::default() };
    let mut decoder = Decoder::new(role, limits);
    let (mut said, mut message) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = BytesMut::from(&piece[..]);
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Data { kind, bytes, is_last })) => {
                    message.extend_from_slice(&bytes);
                    if is_last {
                        let whole = std::mem::take(&mut message);
                        said.push(if kind == Kind::Text { Said::Text(whole) } else { Said::Binary(whole) });
                    }
                }
                Ok(Some(Event::Ping(payload))) => said.push(Said::Ping(payload.to_vec())),
                Ok(Some(Event::Pong(payload))) => said.push(Said::Pong(payload.to_vec())),
                Ok(Some(Event::Close(frame))) => said.push(Said::Close(frame.code)),
                Err(_) => {
                    said.push(Said::Refused);
                    return said;
                }
            }
        }
    }
    said
}

fn read_by_theirs(role: tungstenite::protocol::Role, pieces: Vec<Vec<u8>>) -> Vec<Said> {
    let mut theirs = theirs(role, pieces);
    let mut said = Vec::new();
    loop {
        match theirs.read() {
            Ok(Message::Text(text)) => said.push(Said::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => said.push(Said::Binary(bytes.to_vec())),
            Ok(Message::Ping(payload)) => said.push(Said::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => said.push(Said::Pong(payload.to_vec())),
            // So it tells of a close code that no frame may carry.
            Ok(Message::Close(Some(frame))) if frame.code == TheirCode::Protocol => {
                said.push(Said::Refused);
                return said;
            }
            Ok(Message::Close(frame)) => {
                said.push(Said::Close(frame.map(|frame| frame.code.into())));
                return said;
            }
            Ok(Message::Frame(_)) => unreachable!("reading yields no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return said,
            Err(_) => {
                said.push(Said::Refused);
                return said;
            }
        }
    }
}

/// A message as one to four frames of a client, with a control frame between them now and then.
fn write_message(random: &mut Random, opcode: Opcode, payload: &[u8], out: &mut BytesMut, said: &mut Vec<Said>) {
    let count = 1 + random.below(4);
    let mut rest = payload;
    for at in 0..count {
        let is_last = at == count - 1;
        let taken = if is_last { rest.len() } else { random.below(rest.len() + 1) };
        let key = random.bytes(4).try_into().unwrap();
        let start = out.len();
        let opcode = if at == 0 { opcode } else { Opcode::Continuation };
        encode_masked(opcode, &[&rest[..taken]], key, out);
        if !is_last {
            out[start] &= 0x7f;
        }
        rest = &rest[taken..];
        if !is_last && random.below(3) == 0 {
            let length = random.below(126);
            let payload = random.bytes(length);
            let (opcode, control) = match random.below(2) {
                0 => (Opcode::Ping, Said::Ping(payload.clone())),
                _ => (Opcode::Pong, Said::Pong(payload.clone())),
            };
            encode_masked(opcode, &[&payload], key, out);
            said.push(control);
        }
    }
}

/// A client's stream of some messages, and what it says.
fn stream(random: &mut Random) -> (BytesMut, Vec<Said>) {
    let (mut out, mut said) = (BytesMut::new(), Vec::new());
    for _ in 0..1 + random.below(6) {
        let (opcode, message) = if random.below(2) == 0 {
            let text = random.text().into_bytes();
            (Opcode::Text, Said::Text(text))
        } else {
            let length = random.length();
            (Opcode::Binary, Said::Binary(random.bytes(length)))
        };
        let (Said::Text(payload) | Said::Binary(payload)) = &message else { unreachable!() };
        write_message(random, opcode, payload, &mut out, &mut said);
        said.push(message);
    }
    if random.below(2) == 0 {
        encode_masked(Opcode::Close, &[&close::payload(Some(4000))], [1, 2, 3, 4], &mut out);
        said.push(Said::Close(Some(4000)));
    }
    (out, said)
}

#[test]
fn both_implementations_read_what_we_write_as_a_client() {
    let mut random = Random::new("client");
    for _ in 0..ROUNDS {
        let (stream, said) = stream(&mut random);
        let pieces = random.cut(&stream);
        assert_eq!(read_by_ours(Role::Server, &pieces), said);
        assert_eq!(read_by_theirs(tungstenite::protocol::Role::Server, pieces), said);
    }
}

#[test]
fn both_implementations_read_what_we_write_as_a_server() {
    let mut random = Random::new("server");
    for _ in 0..ROUNDS {
        let (mut stream, mut said) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(6) {
            let length = random.length();
            let payload = random.bytes(length);
            stream.extend_from_slice(&Header::server(Opcode::Binary, length as u64));
            stream.extend_from_slice(&payload);
            said.push(Said::Binary(payload));
        }
        let pieces = random.cut(&stream);
        assert_eq!(read_by_ours(Role::Client, &pieces), said);
        assert_eq!(read_by_theirs(tungstenite::protocol::Role::Client, pieces), said);
    }
}

#[test]
fn we_read_what_the_other_implementation_writes() {
    let mut random = Random::new("theirs");
    for (their_role, our_role) in
        [(tungstenite::protocol::Role::Client, Role::Server), (tungstenite::protocol::Role::Server, Role::Client)]
    {
        for _ in 0..ROUNDS {
            let mut theirs = theirs(their_role, Vec::new());
            let mut said = Vec::new();
            for _ in 0..1 + random.below(6) {
                let length = random.length();
                let bytes = random.bytes(length);
                let text = random.text();
                let (message, told) = match random.below(4) {
                    0 => (Message::text(text.clone()), Said::Text(text.into_bytes())),
                    1 => (Message::Ping(Bytes::from_static(b"ping")), Said::Ping(b"ping".to_vec())),
                    2 => (Message::Pong(Bytes::from_static(b"pong")), Said::Pong(b"pong".to_vec())),
                    _ => (Message::binary(bytes.clone()), Said::Binary(bytes)),
                };
                theirs.send(message).unwrap();
                said.push(told);
            }
            let end = TheirClose { code: TheirCode::Away, reason: "bye".into() };
            theirs.close(Some(end)).unwrap();
            said.push(Said::Close(Some(1001)));
            let pieces = random.cut(&theirs.get_ref().written);
            assert_eq!(read_by_ours(our_role, &pieces), said);
        }
    }
}

/// One bit of a stream is another: both read the same, and both refuse at the same place. Left out: a length written
/// longer than it is, which the RFC forbids and the other one takes.
#[test]
fn both_implementations_judge_a_damaged_stream_the_same() {
    let mut random = Random::new("damaged");
    let mut refused = 0;
    for _ in 0..ROUNDS * 4 {
        let (mut stream, _) = stream(&mut random);
        // Headers are at the front of frames: the first bytes are hit most.
        let bound = [2, 14, stream.len()][random.below(3)].min(stream.len());
        let at = random.below(bound);
        stream[at] ^= 1 << random.below(8);
        // The other one judges whole frames only: whatever length the flip made, there is enough for it, and behind it
        // bytes that are no client's frame.
        stream.resize(stream.len() + 0x2_0000, 0);
        let ours = read_by_ours(Role::Server, std::slice::from_ref(&stream.to_vec()));
        let theirs = read_by_theirs(tungstenite::protocol::Role::Server, vec![stream.to_vec()]);
        if has_long_length(&stream) {
            continue;
        }
        refused += usize::from(ours.last() == Some(&Said::Refused));
        assert_eq!(ours, theirs, "bit flipped in byte {at} of {:x?}", &stream[..stream.len().min(64)]);
    }
    assert!(refused > 100, "only {refused} streams were refused");
}

/// True if a frame's header of `stream` takes more bytes for its length than it has to.
fn has_long_length(stream: &[u8]) -> bool {
    let mut rest = stream;
    while let [_, second, tail @ ..] = rest {
        let (bytes, least) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 0x1_0000),
            _ => (0, 0),
        };
        let Some((length, tail)) = tail.split_at_checked(bytes) else { return false };
        let length = length.iter().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        if bytes > 0 && length < least {
            return true;
        }
        let length = if bytes > 0 { length } else { u64::from(second & 0x7f) };
        let Some(next) = usize::try_from(length).ok().and_then(|length| tail.get(4..)?.get(length..)) else {
            return false;
        };
        rest = next;
    }
    false
}

/// A session behind the server's end, signed in as soon as it asks.
struct Driven {
    end: ServerEnd,
    session: Session,
    actions: Vec<Action>,
}

impl Driven {
    fn new() -> Self {
        let session = Session::new(Arc::new(SessionLimits::default()), 0);
        Self { end: ServerEnd::new(), session, actions: Vec::new() }
    }

    fn receive(&mut self, piece: &[u8]) {
        let mut out = Vec::new();
        self.end.receive(BytesMut::from(piece), &Origins::default(), &mut self.session, 1, &mut out);
        self.settle(out);
    }

    /// Answers sign-ins and goes on with what is held.
    fn settle(&mut self, mut out: Vec<Action>) {
        while out.iter().any(|action| matches!(action, Action::SignIn(_))) {
            self.actions.append(&mut out);
            assert!(self.session.signed_in(login(), 1, 0, &mut out));
            self.end.go_on(&mut self.session, 1, &mut out);
        }
        if let Some(code) = closed(&out) {
            self.end.close(code);
        }
        self.actions.append(&mut out);
    }

    fn answer(&mut self, request_id: u64) {
        let mut out = Vec::new();
        assert!(self.session.answered(request_id, Bytes::from_static(&[0]), Told::Nothing, 1, &mut out));
        if self.session.wants_bytes() {
            self.end.go_on(&mut self.session, 1, &mut out);
        }
        self.settle(out);
    }

    /// What the server would write by itself.
    fn own(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.end.outgoing.has_own() {
            let own = self.end.outgoing.next(std::iter::empty()).own.to_vec();
            self.end.outgoing.written(own.len());
            bytes.extend(own);
        }
        bytes
    }
}

/// A handshake, a sign-in, and sends in messages of three.
fn conversation(sends: u64) -> Vec<u8> {
    let request = ClientHandshake::new(Request { host: "h", path: PATH, origin: None }, [7; 16]).1;
    let mut stream = BytesMut::from(request.as_str());
    encode_masked(Opcode::Binary, &[&frame(1, sign_in())], [1, 2, 3, 4], &mut stream);
    let frames: Vec<_> = (2..2 + sends).map(|n| frame(n, send(&format!("m{n}")))).collect();
    for three in frames.chunks(3) {
        let parts: Vec<&[u8]> = three.iter().map(|frame| &frame[..]).collect();
        encode_masked(Opcode::Binary, &parts, [5, 6, 7, 8], &mut stream);
    }
    encode_masked(Opcode::Ping, &[b"p"], [5, 6, 7, 8], &mut stream);
    stream.to_vec()
}

#[test]
fn a_session_gets_every_frame_at_every_split_point() {
    let stream = conversation(7);
    for at in 0..=stream.len() {
        let mut driven = Driven::new();
        driven.receive(&stream[..at]);
        driven.receive(&stream[at..]);
        assert_eq!(forwarded(&driven.actions), (2..9).collect::<Vec<_>>(), "split at {at}");
        let own = driven.own();
        assert!(own.starts_with(b"HTTP/1.1 101 ") && own.ends_with(b"\x8a\x01p"), "split at {at}");
        assert!(!driven.end.holds_input());
    }
}

#[test]
fn what_a_full_table_cannot_take_is_held_and_goes_on_in_order() {
    let mut driven = Driven::new();
    driven.receive(&conversation(60));
    for request_id in 2..62 {
        assert!(forwarded(&driven.actions).contains(&request_id), "{request_id} is missing");
        assert!(driven.session.pending_requests() <= im_codec::limits::PENDING_WRITES_MAX);
        driven.answer(request_id);
    }
    assert_eq!(forwarded(&driven.actions), (2..62).collect::<Vec<_>>());
    assert!(driven.own().ends_with(b"\x8a\x01p"));
    assert_eq!(driven.end.held_bytes(), 0);
}

#[test]
fn a_message_that_ends_inside_a_frame_closes_the_session_also_when_it_was_held() {
    let mut stream = BytesMut::from(&conversation(36)[..]);
    encode_masked(Opcode::Binary, &[&frame(90, send("cut"))[..9]], [5, 6, 7, 8], &mut stream);
    let mut driven = Driven::new();
    driven.receive(&stream);
    assert_eq!(closed(&driven.actions), None);
    assert!(driven.end.holds_input());
    let mut request_id = 2;
    while !driven.session.is_closing() {
        driven.answer(request_id);
        request_id += 1;
    }
    assert_eq!(closed(&driven.actions), Some(CloseCode::ProtocolError));
    assert!(driven.own().ends_with(&[0x88, 2, 0x11, 0x94]), "the close frame says 4500");
}

#[test]
fn a_session_that_ends_in_the_handshake_answers_with_http() {
    let mut driven = Driven::new();
    driven.receive(b"GET /ws HTTP/1.1\r\n");
    let mut out = Vec::new();
    driven.session.on_time(60_000, &mut out);
    driven.settle(out);
    assert!(driven.own().starts_with(b"HTTP/1.1 408 "));
}
