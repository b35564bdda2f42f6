//! What a connection without manners rides on: TCP as it is, or WebSocket written by hand.
//!
//! In: bytes of delimited frames, cut anywhere. Out: the same bytes of the server. Always: over WebSocket the stream of bytes
//! keeps its meaning: each write is a fragment, and a message ends where a frame ends, so what is cut in the middle stays cut.

use bytes::{Buf as _, Bytes, BytesMut};
use im_codec::encode_delimited;
use im_codec::websocket::{ClientHandshake, Decoder, Event, HandshakeFailed, MessageLimits, Request, Role};
use im_proto::client::{CloseCode, Closing, ServerFrame, server_frame::Body};
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BINARY: u8 = 2;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x91];

/// What the tests of this run ride on: `IM_TEST_TRANSPORT`, tcp or ws.
pub fn is_websocket() -> bool {
    match std::env::var("IM_TEST_TRANSPORT").as_deref() {
        Ok("ws") => true,
        Ok("tcp") | Err(_) => false,
        Ok(other) => panic!("IM_TEST_TRANSPORT is tcp or ws, not {other}"),
    }
}

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
    boundary: Boundary,
    /// The server did not want a WebSocket: this is what it says instead.
    refused: Option<Bytes>,
}

impl Wire {
    pub async fn open(stream: &mut TcpStream) -> Self {
        if !is_websocket() {
            return Self::Tcp;
        }
        let (mut input, mut refused) = (BytesMut::new(), None);
        match shake_hands(stream, &mut input).await {
            Ok(()) => {}
            // There is no frame yet that could say OVERLOADED.
            Err(Some((503, head))) => refused = Some(overloaded(&head)),
            // The server was gone, or ended at once: the next read tells.
            Err(None) => {}
            Err(Some((status, head))) => panic!("the handshake was answered {status}: {head}"),
        }
        let decoder = Decoder::new(Role::Client, MessageLimits::default());
        let boundary = Boundary::default();
        Self::Websocket(Box::new(Websocket { decoder, input, is_open: false, boundary, refused }))
    }

    pub async fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp => stream.write_all(bytes).await,
            Self::Websocket(websocket) => {
                let fragment = websocket.fragment(bytes);
                stream.write_all(&fragment).await
            }
        }
    }

    /// More bytes into `buffer`; false at the end. Cancel-safe.
    pub async fn read(&mut self, stream: &mut TcpStream, buffer: &mut BytesMut) -> bool {
        let Self::Websocket(websocket) = self else {
            return matches!(stream.read_buf(buffer).await, Ok(1..));
        };
        if let Some(said) = websocket.refused.take() {
            buffer.extend_from_slice(&said);
            return true;
        }
        loop {
            if websocket.take_in(stream, buffer) {
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
        self.is_open = !self.boundary.passes(bytes);
        let fin = if self.is_open { 0 } else { FIN };
        frame(fin | opcode, bytes)
    }

    /// Frames out of what came. True: `buffer` has more than before.
    fn take_in(&mut self, stream: &TcpStream, buffer: &mut BytesMut) -> bool {
        let before = buffer.len();
        while let Some(event) = self.decoder.next(&mut self.input).expect("the server breaks RFC 6455") {
            match event {
                Event::Data { bytes, .. } => buffer.extend_from_slice(&bytes),
                // As much as fits: a test that stops reading wants no more.
                Event::Ping(payload) => drop(stream.try_write(&frame(FIN | PONG, &payload))),
                Event::Pong(_) | Event::Close(_) => {}
            }
        }
        buffer.len() > before
    }
}

/// The status and the head, if it was answered by another one than 101; `None` if it was not answered.
async fn shake_hands(stream: &mut TcpStream, input: &mut BytesMut) -> Result<(), Option<(u16, String)>> {
    let host = stream.peer_addr().map_err(|_| None)?.to_string();
    let request = Request { host: &host, path: "/ws", origin: None };
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
