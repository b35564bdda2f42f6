//! A client on a real socket, over either transport.
//!
//! In: frames to send, or bytes. Out: frames as they came, the WebSocket close frame, pongs. Always: over WebSocket what is
//! written is a fragment, and the last of its message when a frame ends with it; so every test that writes a frame in
//! pieces says the same over both transports.

use super::{PATIENCE, Transport};
use bytes::{Bytes, BytesMut};
use im_codec::websocket::close::CloseFrame;
use im_codec::websocket::{ClientHandshake, Decoder, Event, MessageLimits, Opcode, PATH, Request, Role, encode_masked};
use im_codec::{Deframer, Incoming, encode_delimited};
use im_proto::client::{self, CloseCode, client_frame::Command, kicked::Reason, server_frame::Body};
use prost::Message as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

pub struct Client {
    pub socket: TcpStream,
    /// `None` over TCP.
    pub websocket: Option<WebSocket>,
    deframer: Deframer,
    input: Bytes,
}

pub struct WebSocket {
    decoder: Decoder,
    raw: BytesMut,
    /// Cuts what is sent, to know where a frame ends.
    sent: Deframer,
    is_message_open: bool,
    pub mask_key: [u8; 4],
    pub messages: usize,
    pub pongs: Vec<Bytes>,
    pub close: Option<CloseFrame>,
}

impl WebSocket {
    fn new(raw: BytesMut) -> Self {
        Self {
            decoder: Decoder::new(Role::Client, MessageLimits::default()),
            raw,
            sent: Deframer::default(),
            is_message_open: false,
            mask_key: [0x37, 0xfa, 0x21, 0x3d],
            messages: 0,
            pongs: Vec::new(),
            close: None,
        }
    }

    /// `bytes` as the next fragment.
    fn fragment(&mut self, bytes: &[u8]) -> BytesMut {
        let mut input = Bytes::copy_from_slice(bytes);
        let is_whole = loop {
            match self.sent.next(&mut input, u32::MAX) {
                Ok(Some(_)) => {}
                Ok(None) => break !self.sent.is_inside_frame(),
                Err(_) => break true,
            }
        };
        let opcode = if self.is_message_open { Opcode::Continuation } else { Opcode::Binary };
        self.is_message_open = !is_whole;
        let mut frame = BytesMut::new();
        encode_masked(opcode, &[bytes], self.mask_key, &mut frame);
        if !is_whole {
            frame[0] &= 0x7f;
        }
        frame
    }

    /// The next payload of what was read. Empty: more is needed.
    fn next(&mut self) -> Bytes {
        loop {
            match self.decoder.next(&mut self.raw).unwrap() {
                None => return Bytes::new(),
                Some(Event::Data { bytes, is_last, .. }) => {
                    self.messages += usize::from(is_last);
                    return bytes;
                }
                Some(Event::Pong(payload)) => self.pongs.push(payload),
                Some(Event::Ping(_)) => panic!("the server pings"),
                Some(Event::Close(frame)) => self.close = Some(frame),
            }
        }
    }
}

impl Client {
    /// `None`: the server was gone before the handshake was done.
    pub fn over(socket: TcpStream, transport: Transport) -> Option<Self> {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { socket, websocket: None, deframer: Deframer::default(), input: Bytes::new() };
        if transport == Transport::WebSocket {
            client.websocket = Some(WebSocket::new(client.shake_hands()?));
        }
        Some(client)
    }

    /// Answers what came behind the server's answer.
    fn shake_hands(&mut self) -> Option<BytesMut> {
        let (mut handshake, request) =
            ClientHandshake::new(Request { host: "127.0.0.1", path: PATH, origin: None }, [7; 16]);
        self.socket.write_all(request.as_bytes()).ok()?;
        let mut raw = BytesMut::new();
        while !handshake.receive(&mut raw).unwrap() {
            let mut buffer = [0; 1024];
            match self.socket.read(&mut buffer) {
                Ok(count) if count > 0 => raw.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no answer to a handshake"),
                _ => return None,
            }
        }
        Some(raw)
    }

    pub fn websocket(&mut self) -> &mut WebSocket {
        self.websocket.as_mut().expect("a client over WebSocket")
    }

    /// Whole frames or pieces of them.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.websocket {
            Some(websocket) => self.socket.write_all(&websocket.fragment(bytes)).unwrap(),
            None => self.socket.write_all(bytes).unwrap(),
        }
    }

    /// What is sent from now on stands in the stream as it is.
    pub fn send_unmasked(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            websocket.mask_key = [0; 4];
        }
    }

    /// A WebSocket frame that is a message of its own, or a control frame.
    pub fn write_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = BytesMut::new();
        encode_masked(opcode, &[payload], self.websocket().mask_key, &mut frame);
        self.socket.write_all(&frame).unwrap();
    }

    pub fn send(&mut self, request_id: u64, command: Command) {
        self.write(&encode_delimited(&client::ClientFrame {
            request_id,
            command: Some(command),
            ..Default::default()
        }));
    }

    pub fn send_sign_in(&mut self, user: &str) {
        let sign_in = client::SignIn {
            protocol_version: 1,
            token: user.into(),
            device_id: "phone".into(),
            platform: "test".into(),
            ..Default::default()
        };
        self.send(1, Command::SignIn(sign_in));
    }

    pub fn heartbeat(&mut self) {
        self.write(&[0]);
    }

    pub fn expect_heartbeat(&mut self) {
        assert_eq!(self.next(), Some(Incoming::Heartbeat));
    }

    pub fn expect_kicked(&mut self) -> Reason {
        match self.next_frame().body {
            Some(Body::Kicked(kicked)) => kicked.reason(),
            other => panic!("{other:?} instead of a kick"),
        }
    }

    pub fn expect_hint(&mut self) -> u64 {
        match self.next_body() {
            Body::SyncHint(hint) => hint.inbox_version,
            other => panic!("expected a hint, got {other:?}"),
        }
    }

    /// The answer to a heartbeat: a hint, or none.
    pub fn next_is_hint(&mut self) -> bool {
        match self.next() {
            Some(Incoming::Heartbeat) => false,
            Some(Incoming::Frame(bytes)) => {
                matches!(client::ServerFrame::decode(bytes).unwrap().body, Some(Body::SyncHint(_)))
            }
            None => panic!("the connection ended"),
        }
    }

    /// The next thing the server sent; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Incoming> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(incoming) = self.deframer.next(&mut self.input, 1 << 20).unwrap() {
                return Some(incoming);
            }
            if let Some(websocket) = &mut self.websocket {
                self.input = websocket.next();
                if !self.input.is_empty() {
                    continue;
                }
            }
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("the server sent nothing: {error}"),
            };
            match &mut self.websocket {
                Some(websocket) => websocket.raw.extend_from_slice(&buffer[..count]),
                None => self.input = Bytes::copy_from_slice(&buffer[..count]),
            }
        }
    }

    pub fn next_frame(&mut self) -> client::ServerFrame {
        match self.next() {
            Some(Incoming::Frame(bytes)) => client::ServerFrame::decode(bytes).unwrap(),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    pub fn next_body(&mut self) -> Body {
        self.next_frame().body.expect("a body")
    }

    pub fn expect_signed_in(&mut self) -> client::SignedIn {
        match self.next_body() {
            Body::SignedIn(signed_in) => signed_in,
            other => panic!("expected SignedIn, got {other:?}"),
        }
    }

    /// The number of the next push.
    pub fn expect_push(&mut self) -> u64 {
        match self.next_body() {
            Body::Entry(pushed) => pushed.entry.unwrap().seq,
            other => panic!("expected a push, got {other:?}"),
        }
    }

    pub fn expect_error(&mut self) -> (u64, client::Error) {
        let frame = self.next_frame();
        match frame.body {
            Some(Body::Error(error)) => (frame.request_id, error),
            other => panic!("expected an error, got {other:?}"),
        }
    }

    pub fn expect_ack(&mut self, request_id: u64) {
        let frame = self.next_frame();
        assert!(matches!(frame.body, Some(Body::SendAck(_))), "{frame:?}");
        assert_eq!(frame.request_id, request_id);
    }

    /// The server closes with `code`, behind whatever it still had to write; over WebSocket with the same number.
    pub fn expect_closed(&mut self, code: CloseCode) -> client::Closing {
        self.expect_closed_with(code, code as u16)
    }

    /// Over WebSocket the close frame says `websocket_code`.
    pub fn expect_closed_with(&mut self, code: CloseCode, websocket_code: u16) -> client::Closing {
        let mut closing = None;
        while let Some(incoming) = self.next() {
            if let Incoming::Frame(bytes) = incoming
                && let Some(Body::Closing(last)) = client::ServerFrame::decode(bytes).unwrap().body
            {
                closing = Some(last);
            }
        }
        let closing = closing.expect("a Closing before the end");
        assert_eq!(closing.code(), code, "{closing:?}");
        if let Some(websocket) = &self.websocket {
            let told = websocket.close.as_ref().expect("a close frame before the end");
            assert_eq!(told.code, Some(websocket_code), "{closing:?}");
        }
        closing
    }
}

/// Everything that comes until the end, as text.
pub fn read_to_end(mut socket: TcpStream) -> String {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no end: {error}"),
        }
    }
    String::from_utf8(bytes).expect("text")
}
