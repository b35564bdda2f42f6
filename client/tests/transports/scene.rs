//! A server thread that plays one scene: it takes a send and breaks the link; on the next link it gets the same send, acks
//! it, pushes an answer of the peer, and waits for the client to end.

use bytes::Bytes;
use im_client::{Config, Event};
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

pub fn start() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || play(&listener)))
}

fn play(listener: &TcpListener) {
    let mut link = Link::accept(listener);
    // A client that says nothing to the point has another scene.
    let Some((_, first)) = link.until_send() else { return };
    drop(link);
    let mut link = Link::accept(listener);
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
}

impl Link {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        Self { stream, deframer: Deframer::default(), input: Bytes::new() }
    }

    fn say(&mut self, request_id: u64, body: Body) {
        let frame = encode_delimited(&ServerFrame { request_id, body: Some(body) });
        self.stream.write_all(&frame).unwrap();
    }

    /// `None`: the client has ended the link.
    fn hear(&mut self) -> Option<ClientFrame> {
        loop {
            if let Some(Incoming::Frame(frame)) = self.deframer.next(&mut self.input, 10_000).unwrap() {
                return Some(ClientFrame::decode(frame).unwrap());
            }
            let mut buffer = [0; 1_000];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.input = Bytes::copy_from_slice(&buffer[..count]),
                _ => return None,
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
