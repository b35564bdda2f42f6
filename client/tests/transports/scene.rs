//! A server thread that plays one scene: it takes a send and breaks the link; on the next link it gets the same send, acks
//! it, pushes an answer of the peer, and waits for the client to end.

use bytes::{Bytes, BytesMut};
use im_client::websocket::Address;
use im_client::{Config, Event};
use im_codec::websocket::{
    self, Decoder, MessageLimits, Opcode, Origins, Role, ServerHandshake, encoder::encode_plain,
};
use im_codec::{Deframer, Incoming, encode_delimited};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{ClientFrame, Entry, EntryPushed, Message, Send, SendAck, ServerFrame, SignedIn, Synced, entry};
use im_proto::{DeviceId, LogId, UserId};
use prost::Message as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

const EPOCH: u64 = 3;

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn config() -> Config {
    Config::new(user("ann"), DeviceId::parse("phone").unwrap(), "token")
}

/// The last entry of the scene has been told.
pub fn is_last(event: &Event) -> bool {
    matches!(event, Event::Entry { entry, .. } if entry.seq == 2)
}

/// What the app must have been told, in this order, whatever else it was told.
pub fn check(events: &[Event]) {
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::SignedIn { .. } => Some("signed in"),
            Event::Disconnected { .. } => Some("disconnected"),
            Event::Entry { entry, .. } if entry.seq == 1 => Some("own entry"),
            Event::Entry { .. } => Some("peer's entry"),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["signed in", "disconnected", "signed in", "own entry", "peer's entry"]);
}

/// What the frames ride on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Websocket,
}

impl Over {
    pub fn address(self, socket: SocketAddr) -> Address {
        let text = match self {
            Self::Tcp => socket.to_string(),
            Self::Websocket => format!("ws://{socket}/ws"),
        };
        Address::parse(&text).unwrap()
    }
}

pub fn start(over: Over) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || play(&listener, over)))
}

fn play(listener: &TcpListener, over: Over) {
    let mut link = Link::accept(listener, over);
    // A client that says nothing to the point has another scene.
    let Some((_, first)) = link.until_send() else { return };
    drop(link);
    let mut link = Link::accept(listener, over);
    let (request_id, second) = link.until_send().expect("the send again");
    assert_eq!(first, second, "a send is repeated as it was");
    let log = LogId::direct(&user("ann"), &user("bob"));
    let ack = SendAck { conversation_id: (&log).into(), epoch: EPOCH, seq: 1, server_time_ms: 0, ordinal: 1 };
    link.say(request_id, Body::SendAck(ack));
    let message = Message { body: Bytes::from_static(b"hi"), to_user_id: "ann".to_owned() };
    let content = Some(entry::Content::Message(message));
    let entry = Entry { seq: 2, ordinal: 2, sender_user_id: "bob".to_owned(), content, ..Entry::default() };
    link.say(0, Body::Entry(EntryPushed { conversation_id: (&log).into(), epoch: EPOCH, entry: Some(entry) }));
    assert!(link.hear().is_none(), "the client says no more, and ends");
}

struct Link {
    stream: TcpStream,
    deframer: Deframer,
    input: Bytes,
    /// `None`: over TCP.
    websocket: Option<Decoder>,
    /// What the decoder has yet to look at.
    messages: BytesMut,
}

impl Link {
    fn accept(listener: &TcpListener, over: Over) -> Self {
        let (mut stream, _) = listener.accept().unwrap();
        let mut messages = BytesMut::new();
        let websocket = (over == Over::Websocket).then(|| {
            let mut handshake = ServerHandshake::default();
            let response = loop {
                if let Some(response) = handshake.receive(&mut messages, &Origins::default()).unwrap() {
                    break response;
                }
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                messages.extend_from_slice(&byte);
            };
            // With the answer comes a ping, which the client answers before anything else.
            let mut out = response.into_bytes();
            encode_plain(Opcode::Ping, b"there?", &mut out);
            stream.write_all(&out).unwrap();
            Decoder::new(Role::Server, MessageLimits::default())
        });
        Self { stream, deframer: Deframer::default(), input: Bytes::new(), websocket, messages }
    }

    fn say(&mut self, request_id: u64, body: Body) {
        let frame = encode_delimited(&ServerFrame { request_id, body: Some(body) });
        let mut out = Vec::new();
        match self.websocket {
            Some(_) => encode_plain(Opcode::Binary, &frame, &mut out),
            None => out.extend_from_slice(&frame),
        }
        self.stream.write_all(&out).unwrap();
    }

    /// `None`: the client has ended the link.
    fn hear(&mut self) -> Option<ClientFrame> {
        loop {
            if let Some(Incoming::Frame(frame)) = self.deframer.next(&mut self.input, 10_000).unwrap() {
                return Some(ClientFrame::decode(frame).unwrap());
            }
            self.input = self.next_bytes()?;
        }
    }

    fn next_bytes(&mut self) -> Option<Bytes> {
        loop {
            if let Some(decoder) = &mut self.websocket {
                match decoder.next(&mut self.messages).unwrap() {
                    Some(websocket::Event::Data { bytes, .. }) => return Some(bytes),
                    Some(websocket::Event::Pong(payload)) => {
                        assert_eq!(payload, &b"there?"[..]);
                        continue;
                    }
                    Some(other) => panic!("{other:?}"),
                    None => {}
                }
            }
            let mut buffer = [0; 1_000];
            let count = self.stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            match self.websocket {
                Some(_) => self.messages.extend_from_slice(&buffer[..count]),
                None => return Some(Bytes::copy_from_slice(&buffer[..count])),
            }
        }
    }

    /// Answers sign-in and sync until the send has come.
    fn until_send(&mut self) -> Option<(u64, Send)> {
        let mut found = None;
        let mut is_synced = false;
        while found.is_none() || !is_synced {
            let frame = self.hear()?;
            match frame.command.unwrap() {
                Command::SignIn(_) => self.say(frame.request_id, Body::SignedIn(signed_in())),
                Command::Sync(_) => {
                    let synced = Synced { complete: true, epoch: EPOCH, ..Synced::default() };
                    self.say(frame.request_id, Body::Synced(synced));
                    is_synced = true;
                }
                Command::Send(send) => found = Some((frame.request_id, send)),
                other => panic!("{other:?}"),
            }
        }
        found
    }
}

fn signed_in() -> SignedIn {
    SignedIn {
        user_id: "ann".to_owned(),
        epoch: EPOCH,
        heartbeat_interval_ms: 30_000,
        idle_timeout_ms: 90_000,
        frame_bytes_max: 10_000,
        pending_sends_max: 32,
        ..SignedIn::default()
    }
}
