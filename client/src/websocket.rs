//! Where a server is, and the way there over WebSocket, without I/O.
//!
//! In: an address; then the bytes of a stream. Out: the handshake, delimited frames in both directions, answers to pings and
//! closes. Always: what goes to the [`Core`](crate::Core) is the same as over TCP; a server that only says a close code is
//! told to the core as if it had sent `Closing`.

use bytes::{Bytes, BytesMut};
use im_codec::encode_delimited;
use im_codec::websocket::{
    ClientHandshake, Decoder, Event, HandshakeFailed, Kind, MessageLimits, Opcode, PATH, Request, Role, Violation,
    close, encode_masked,
};
use im_proto::client::{self, server_frame::Body};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The close codes that are ours; those below are RFC 6455's own.
const OUR_CODES: std::ops::Range<u16> = 4_000..5_000;

/// `host:port` or `tcp://host:port` for TCP, `ws://host:port/path` for WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp { socket: String },
    Websocket { socket: String, host: String, path: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address like host:port, tcp://host:port or ws://host:port/ws")]
pub struct InvalidAddress(String);

impl Address {
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(rest) = text.strip_prefix("ws://") {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let path = if path.is_empty() { PATH } else { path };
            let is_clean = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_socket(host) || !is_clean(host) || !is_clean(path) {
                return Err(invalid());
            }
            return Ok(Self::Websocket { socket: host.to_owned(), host: host.to_owned(), path: path.to_owned() });
        }
        let socket = text.strip_prefix("tcp://").unwrap_or(text);
        if socket.contains('/') || !is_socket(socket) {
            return Err(invalid());
        }
        Ok(Self::Tcp { socket: socket.to_owned() })
    }

    /// What is dialed: `host:port`.
    pub fn socket(&self) -> &str {
        let (Self::Tcp { socket } | Self::Websocket { socket, .. }) = self;
        socket
    }

    /// The way over a new stream to this address.
    pub fn wire(&self, seed: u64) -> Wire {
        match self {
            Self::Tcp { .. } => Wire::Plain,
            Self::Websocket { host, path, .. } => Wire::Websocket(Box::new(WebsocketEnd::new(host, path, seed).0)),
        }
    }
}

fn is_socket(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebsocketFailed {
    #[error(transparent)]
    Handshake(#[from] HandshakeFailed),
    #[error("the server broke the rules of WebSocket: {0}")]
    Violation(#[from] Violation),
    #[error("the server sent text")]
    Text,
}

/// What a transport puts between a stream and the core.
#[derive(Debug)]
pub enum Wire {
    Plain,
    Websocket(Box<WebsocketEnd>),
}

impl Wire {
    /// True: the core may be told that it is connected, and its output may be sent.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Websocket(end) => end.is_open(),
        }
    }

    /// The frames in `input`, which is taken whole. What has to be written in answer is added to `reply`.
    pub fn received(&mut self, input: &mut BytesMut, reply: &mut Vec<u8>) -> Result<Option<Bytes>, WebsocketFailed> {
        match self {
            Self::Plain => Ok(Some(input.split().freeze())),
            Self::Websocket(end) => end.received(input, reply),
        }
    }

    /// Takes `frames`, which is left empty, to what is written next.
    pub fn send(&mut self, frames: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Self::Plain if out.is_empty() => std::mem::swap(frames, out),
            Self::Plain => out.append(frames),
            Self::Websocket(end) => {
                end.send(frames, out);
                frames.clear();
            }
        }
    }

    /// The first bytes of the stream.
    pub fn opening(&mut self) -> Vec<u8> {
        match self {
            Self::Plain => Vec::new(),
            Self::Websocket(end) => std::mem::take(&mut end.request),
        }
    }
}

/// A client's end of one WebSocket connection.
#[derive(Debug)]
pub struct WebsocketEnd {
    /// Until it is taken.
    request: Vec<u8>,
    /// `None`: done.
    handshake: Option<ClientHandshake>,
    decoder: Decoder,
    masks: StdRng,
    scratch: BytesMut,
    /// The server has said goodbye; nothing more is sent.
    is_closed: bool,
}

impl WebsocketEnd {
    /// The end, and the request that opens it. `seed`: of the key and the masks, which need not be secret for a client that
    /// is no browser.
    pub fn new(host: &str, path: &str, seed: u64) -> (Self, Vec<u8>) {
        let mut masks = StdRng::seed_from_u64(seed);
        let (handshake, request) = ClientHandshake::new(Request { host, path, origin: None }, masks.random());
        let end = Self {
            request: request.clone().into_bytes(),
            handshake: Some(handshake),
            decoder: Decoder::new(Role::Client, MessageLimits::default()),
            masks,
            scratch: BytesMut::new(),
            is_closed: false,
        };
        (end, request.into_bytes())
    }

    pub fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    /// The frames in `input`; `None` if there are none yet. `input` is taken whole; what has to be written in answer (a pong,
    /// a close) is added to `reply`.
    pub fn received(&mut self, input: &mut BytesMut, reply: &mut Vec<u8>) -> Result<Option<Bytes>, WebsocketFailed> {
        if let Some(handshake) = &mut self.handshake {
            if !handshake.receive(input)? {
                return Ok(None);
            }
            self.handshake = None;
        }
        let (mut first, mut more) = (None, BytesMut::new());
        let mut add = |bytes: Bytes| match &first {
            None => first = Some(bytes),
            Some(_) => more.extend_from_slice(&bytes),
        };
        while let Some(event) = self.decoder.next(input)? {
            match event {
                Event::Data { kind: Kind::Text, .. } => return Err(WebsocketFailed::Text),
                Event::Data { bytes, .. } => add(bytes),
                Event::Ping(payload) => self.control(Opcode::Pong, &payload, reply),
                Event::Pong(_) => {}
                Event::Close(frame) => {
                    self.control(Opcode::Close, &close::payload(frame.code), reply);
                    self.is_closed = true;
                    if let Some(code) = frame.code.filter(|code| OUR_CODES.contains(code)) {
                        add(closing(code));
                    }
                }
            }
        }
        Ok(first.map(|first| if more.is_empty() { first } else { [&first[..], &more].concat().into() }))
    }

    /// Puts whole delimited frames into one binary message.
    pub fn send(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if !frames.is_empty() {
            self.control(Opcode::Binary, frames, out);
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        if self.is_closed {
            return;
        }
        encode_masked(opcode, &[payload], self.masks.random(), &mut self.scratch);
        out.extend_from_slice(&self.scratch);
        self.scratch.clear();
    }
}

/// What the server would have said behind the code. Said twice, it changes nothing.
fn closing(code: u16) -> Bytes {
    let closing = client::Closing { code: i32::from(code), ..Default::default() };
    encode_delimited(&client::ServerFrame { request_id: 0, body: Some(Body::Closing(closing)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_transport() {
        let tcp = |socket: &str| Ok(Address::Tcp { socket: socket.to_owned() });
        let ws = |host: &str, path: &str| {
            let (socket, host, path) = (host.to_owned(), host.to_owned(), path.to_owned());
            Ok(Address::Websocket { socket, host, path })
        };
        assert_eq!(Address::parse("127.0.0.1:6100"), tcp("127.0.0.1:6100"));
        assert_eq!(Address::parse("tcp://im.example:6100"), tcp("im.example:6100"));
        assert_eq!(Address::parse("ws://[::1]:6101"), ws("[::1]:6101", "/ws"));
        assert_eq!(Address::parse("ws://im.example:80/a/b"), ws("im.example:80", "/a/b"));
        for wrong in
            ["", "im.example", "ws://im.example", "wss://im.example:1/ws", "host:99999", "ws://a:1/x y", "a:1/x"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
