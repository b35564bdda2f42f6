//! A session with a clock that the test turns, and streams cut at every place.
#![allow(dead_code, clippy::unwrap_used)]

use bytes::Bytes;
use im_codec::session::Told;
use im_codec::{Action, Deframer, Incoming, Login, Session, SessionLimits, encode_delimited};
use im_proto::client::{self, CloseCode, client_frame::Command, server_frame::Body};
use im_proto::{DeviceId, Epoch, Generation, InboxVersion, UserId};
use prost::Message as _;
use std::sync::Arc;

pub struct Driven {
    pub session: Session,
    pub now_ms: u64,
}

impl Driven {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut SessionLimits)) -> Self {
        let mut limits = SessionLimits::default();
        change(&mut limits);
        Self { session: Session::new(Arc::new(limits), 1_000), now_ms: 1_000 }
    }

    /// Signed in as alice, generation 5, with inbox version 10.
    pub fn signed_in() -> Self {
        Self::signed_in_with(|_| {})
    }

    pub fn signed_in_with(change: impl FnOnce(&mut SessionLimits)) -> Self {
        let mut driven = Self::with(change);
        assert!(matches!(driven.frame(1, sign_in())[..], [Action::SignIn(_)]));
        let actions = driven.sign_in_stands(login());
        assert!(matches!(bodies(&actions)[..], [Body::SignedIn(_)]), "{actions:?}");
        driven
    }

    pub fn sign_in_stands(&mut self, login: Login) -> Vec<Action> {
        let mut out = Vec::new();
        assert!(self.session.signed_in(login, self.now_ms, 0, &mut out));
        out
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.receive(Bytes::copy_from_slice(bytes), self.now_ms, &mut out);
        out
    }

    pub fn frame(&mut self, request_id: u64, command: Command) -> Vec<Action> {
        self.bytes(&frame(request_id, command))
    }

    pub fn answer(&mut self, request_id: u64) -> (bool, Vec<Action>) {
        self.answer_told(request_id, Told::Nothing)
    }

    pub fn answer_told(&mut self, request_id: u64, told: Told) -> (bool, Vec<Action>) {
        let mut out = Vec::new();
        let body = Body::SendAck(client::SendAck::default());
        let frame = encode_delimited(&client::ServerFrame { request_id, body: Some(body) });
        (self.session.answered(request_id, frame, told, self.now_ms, &mut out), out)
    }

    pub fn version(&mut self, version: u64) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.version(InboxVersion(version), false, &mut out);
        out
    }

    pub fn kick(&mut self, generation: u64) -> Vec<Action> {
        let mut out = Vec::new();
        self.session.kick(Generation(generation), client::kicked::Reason::Replaced, &mut out);
        out
    }

    /// Lets the time pass, and has the session do what is due.
    pub fn pass(&mut self, ms: u64) -> Vec<Action> {
        self.now_ms += ms;
        let mut out = Vec::new();
        self.session.on_time(self.now_ms, &mut out);
        out
    }
}

pub fn login() -> Login {
    Login {
        user: UserId::parse("alice").unwrap(),
        device: DeviceId::parse("phone").unwrap(),
        generation: Generation(5),
        inbox_version: InboxVersion(10),
        epoch: Epoch(7),
        token_expires_at_ms: None,
    }
}

pub fn frame(request_id: u64, command: Command) -> Vec<u8> {
    client::ClientFrame { request_id, command: Some(command), ..Default::default() }.encode_length_delimited_to_vec()
}

pub fn sign_in() -> Command {
    Command::SignIn(client::SignIn {
        protocol_version: 1,
        token: "token".into(),
        device_id: "phone".into(),
        platform: "test".into(),
        ..Default::default()
    })
}

pub fn send(id: &str) -> Command {
    Command::Send(client::Send {
        to: Some(client::send::To::UserId("bob".into())),
        client_message_id: id.into(),
        after: String::new(),
        body: Bytes::from_static(b"hello"),
    })
}

pub fn sync() -> Command {
    Command::Sync(client::Sync::default())
}

/// What is written, decoded; heartbeats are left out.
pub fn bodies(actions: &[Action]) -> Vec<Body> {
    let mut bodies = Vec::new();
    for action in actions {
        let (Action::Write(bytes) | Action::Refuse { frame: bytes, .. }) = action else { continue };
        let mut input = bytes.clone();
        while let Some(incoming) = Deframer::default().next(&mut input, 1 << 20).unwrap() {
            if let Incoming::Frame(bytes) = incoming {
                bodies.push(client::ServerFrame::decode(bytes).unwrap().body.unwrap());
            }
        }
    }
    bodies
}

pub fn errors(actions: &[Action]) -> Vec<(client::ErrorClass, client::ErrorCode)> {
    bodies(actions)
        .iter()
        .filter_map(|body| match body {
            Body::Error(error) => Some((error.class(), error.code())),
            _ => None,
        })
        .collect()
}

/// The code that the session was closed with, in the frame and the action.
pub fn closed(actions: &[Action]) -> Option<CloseCode> {
    let told = bodies(actions).iter().find_map(|body| match body {
        Body::Closing(closing) => Some(closing.code()),
        _ => None,
    });
    let closed = actions.iter().find_map(|action| match action {
        Action::Close { code, .. } => Some(*code),
        _ => None,
    });
    assert_eq!(told, closed, "the client is told the code it is closed with");
    closed
}

pub fn forwarded(actions: &[Action]) -> Vec<u64> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Forward { request_id, .. } => Some(*request_id),
            _ => None,
        })
        .collect()
}

pub fn asked(actions: &[Action]) -> Vec<u64> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Ask { request_id, .. } => Some(*request_id),
            _ => None,
        })
        .collect()
}

/// Calls `check` with the frames of `stream` cut in two at every place, and in single bytes.
pub fn at_every_split(stream: &[u8], mut check: impl FnMut(Vec<Incoming>, &str)) {
    for at in 0..=stream.len() {
        check(deframe(&[&stream[..at], &stream[at..]]), &format!("split at {at}"));
    }
    check(deframe(&stream.chunks(1).collect::<Vec<_>>()), "single bytes");
}

pub fn deframe(pieces: &[&[u8]]) -> Vec<Incoming> {
    let mut deframer = Deframer::default();
    let mut out = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(incoming) = deframer.next(&mut input, 1 << 20).unwrap() {
            out.push(incoming);
        }
    }
    out
}
