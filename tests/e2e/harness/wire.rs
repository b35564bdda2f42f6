//! What a connection without manners rides on: TCP as it is, or WebSocket written by hand.
//!
//! In: bytes of delimited frames, cut anywhere. Out: the same bytes of the server. Always: over WebSocket the stream of bytes
//! keeps its meaning: each write is a fragment, and a message ends where a frame ends, so what is cut in the middle stays cut;
//! a message of the server that is not binary or not of whole frames is a panic, and so is a ping.

use super::endpoint::Endpoint;
use bytes::{Buf as _, Bytes, BytesMut};
use im_codec::encode_delimited;
use im_codec::websocket::{ClientHandshake, Decoder, Event, HandshakeFailed, Kind, MessageLimits, PATH, Request, Role};
use im_proto::client::{CloseCode, Closing, ServerFrame, server_frame::Body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BINARY: u8 = 2;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x91];

pub enum Wire {
    Tcp,
    Websocket(Box<Websocket>),
}

pub struct Websocket {
    decoder: Decoder,
    /// Bytes of messages yet to be looked at.
    input: BytesMut,
    /// The message that was begun and not ended.
    is_open: bool,
    sent: Boundary,
    received: Boundary,
    closed: Closed,
}

/// How the server ended the WebSocket.
#[derive(Debug, PartialEq)]
enum Closed {
    NotYet,
    With(Option<u16>),
    /// It did not want one: this is what its HTTP answer means, until it is read.
    Refused(Bytes),
}

impl Wire {
    pub async fn open(stream: &mut TcpStream, endpoint: Endpoint) -> Self {
        if matches!(endpoint, Endpoint::Tcp(_)) {
            return Self::Tcp;
        }
        let (mut input, mut closed) = (BytesMut::new(), Closed::NotYet);
        match shake_hands(stream, &mut input).await {
            Ok(()) => {}
            // There is no frame yet that could say OVERLOADED.
            Err(Some((503, head))) => closed = Closed::Refused(overloaded(&head)),
            // The server was gone, or ended at once: the next read tells.
            Err(None) => {}
            Err(Some((status, head))) => panic!("the handshake was answered {status}: {head}"),
        }
        let decoder = Decoder::new(Role::Client, MessageLimits::default());
        let (sent, received) = (Boundary::default(), Boundary::default());
        Self::Websocket(Box::new(Websocket { decoder, input, is_open: false, sent, received, closed }))
    }

    /// What the stream has to carry for `bytes`.
    pub fn encode(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Tcp => bytes.to_vec(),
            Self::Websocket(websocket) => websocket.fragment(bytes),
        }
    }

    /// The close of a WebSocket that was open carried this code. Over TCP there is none to look at.
    #[track_caller]
    pub fn assert_closed_with(&self, code: u16) {
        if let Self::Websocket(websocket) = self
            && !matches!(websocket.closed, Closed::Refused(_))
        {
            assert_eq!(websocket.closed, Closed::With(Some(code)), "the WebSocket's close");
        }
    }

    /// More bytes into `buffer`; false at the end. Cancel-safe.
    pub async fn read(&mut self, stream: &mut TcpStream, buffer: &mut BytesMut) -> bool {
        let Self::Websocket(websocket) = self else {
            return matches!(stream.read_buf(buffer).await, Ok(1..));
        };
        if let Closed::Refused(said) = &mut websocket.closed {
            buffer.extend_from_slice(said);
            return !std::mem::take(said).is_empty();
        }
        loop {
            if websocket.take_in(buffer) {
                return true;
            }
            if !matches!(stream.read_buf(&mut websocket.input).await, Ok(1..)) {
                return false;
            }
        }
    }
}

impl Websocket {
    fn fragment(&mut self, bytes: &[u8]) -> Vec<u8> {
        let opcode = if self.is_open { 0 } else { BINARY };
        self.is_open = !self.sent.passes(bytes);
        let fin = if self.is_open { 0 } else { FIN };
        frame(fin | opcode, bytes)
    }

    /// Frames out of what came. True: `buffer` has more than before.
    fn take_in(&mut self, buffer: &mut BytesMut) -> bool {
        let before = buffer.len();
        while let Some(event) = self.decoder.next(&mut self.input).expect("the server breaks RFC 6455") {
            match event {
                Event::Data { kind, bytes, is_last } => {
                    assert_eq!(kind, Kind::Binary);
                    let is_whole = self.received.passes(&bytes);
                    assert!(is_whole || !is_last, "a message of the server ends inside a frame");
                    buffer.extend_from_slice(&bytes);
                }
                Event::Close(frame) => self.closed = Closed::With(frame.code),
                Event::Pong(_) => {}
                Event::Ping(_) => panic!("the server pings"),
            }
        }
        buffer.len() > before
    }
}

/// The status and the head, if it was answered by another one than 101; `None` if it was not answered.
async fn shake_hands(stream: &mut TcpStream, input: &mut BytesMut) -> Result<(), Option<(u16, String)>> {
    let host = stream.peer_addr().map_err(|_| None)?.to_string();
    let request = Request { host: &host, path: PATH, origin: None };
    let (mut handshake, request) = ClientHandshake::new(request, *b"sixteen bytes ok");
    stream.write_all(request.as_bytes()).await.map_err(|_| None)?;
    let mut head = String::new();
    loop {
        head.push_str(&String::from_utf8_lossy(input));
        match handshake.receive(input) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(HandshakeFailed::Refused { status }) => return Err(Some((status, head))),
            Err(HandshakeFailed::Invalid(what)) => panic!("a handshake that is none: {what}"),
        }
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return Err(None);
        }
    }
}

fn overloaded(head: &str) -> Bytes {
    let after_s = head.lines().find_map(|line| line.strip_prefix("Retry-After: ")?.trim().parse::<u32>().ok());
    let reconnect_after_ms = after_s.expect("a 503 says when to come again") * 1_000;
    let closing = Closing { code: CloseCode::Overloaded as i32, reconnect_after_ms, ..Default::default() };
    encode_delimited(&ServerFrame { request_id: 0, body: Some(Body::Closing(closing)) })
}

/// One masked frame of RFC 6455, made by hand.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Where delimited frames end in a stream of bytes.
#[derive(Default)]
struct Boundary {
    length: u64,
    length_bytes: u32,
    left: u64,
    /// The length is none: nothing behind it is a frame.
    is_lost: bool,
}

impl Boundary {
    /// Whether the stream is at the end of a frame behind `bytes`.
    fn passes(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_lost {
            if self.left > 0 {
                let taken = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= taken as u64;
                bytes.advance(taken);
                continue;
            }
            let byte = bytes.get_u8();
            self.length |= u64::from(byte & 0x7f) << (7 * self.length_bytes);
            self.length_bytes += 1;
            if byte < 0x80 {
                self.left = self.length;
                (self.length, self.length_bytes) = (0, 0);
            }
            self.is_lost = self.length_bytes > 5;
        }
        self.left == 0 && self.length_bytes == 0 && !self.is_lost
    }
}
