//! Bytes of a hostile peer against the WebSocket codec, and against a session behind it.
//!
//! In: a byte of mode, a byte of step, then the stream. Out: nothing. Always: no panic; what is held of a stream is never
//! more than came of it; however the stream is cut, the same is read, done and answered.
#![no_main]

use bytes::BytesMut;
use im_codec::websocket::{ClientHandshake, Decoder, Event, MessageLimits, Origins, PATH, Request, Role, ServerEnd};
use im_codec::{Action, Login, Session, SessionLimits};
use im_proto::{DeviceId, Epoch, Generation, InboxVersion, UserId};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let [mode, step, stream @ ..] = data else { return };
    let step = usize::from(*step).max(1);
    match mode % 4 {
        0 => decode(Role::Server, stream, step),
        1 => decode(Role::Client, stream, step),
        2 => serve(stream, step),
        // Behind a handshake, which chance would not find.
        _ => {
            let request = ClientHandshake::new(Request { host: "h", path: PATH, origin: None }, [7; 16]).1;
            serve(&[request.as_bytes(), stream].concat(), step);
        }
    }
});

fn decode(role: Role, stream: &[u8], step: usize) {
    assert_eq!(read(role, stream, stream.len().max(1)), read(role, stream, step));
}

/// What is read, without how data was cut: whole messages, control frames, a violation.
fn read(role: Role, stream: &[u8], step: usize) -> Vec<String> {
    let limits = MessageLimits { bytes_max: 4096, fragments_max: 8 };
    let mut decoder = Decoder::new(role, limits);
    let mut read = Vec::new();
    let mut message = Vec::new();
    for piece in stream.chunks(step) {
        let mut input = BytesMut::from(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Data { kind, bytes, is_last })) => {
                    assert!(is_last || !bytes.is_empty());
                    message.extend_from_slice(&bytes);
                    assert!(message.len() as u64 <= limits.bytes_max);
                    if is_last {
                        read.push(format!("{kind:?} {:x?}", std::mem::take(&mut message)));
                    }
                }
                Ok(Some(event)) => read.push(format!("{event:?}")),
                Err(violation) => read.push(format!("{violation:?}")),
            }
        }
        assert!(input.is_empty());
        assert!(decoder.held_bytes() <= 14 + 125);
    }
    read
}

fn serve(stream: &[u8], step: usize) {
    let whole = Served::all(stream, stream.len().max(1));
    let cut = Served::all(stream, step);
    assert_eq!(whole.done, cut.done);
    assert_eq!(whole.own, cut.own);
}

/// A connection that answers no command, and signs in whoever asks.
struct Served {
    end: ServerEnd,
    session: Session,
    /// What was done.
    done: Vec<String>,
    /// What was answered by the transport itself.
    own: Vec<u8>,
}

impl Served {
    fn all(stream: &[u8], step: usize) -> Self {
        let session = Session::new(Arc::new(SessionLimits::default()), 0);
        let mut served = Self { end: ServerEnd::new(), session, done: Vec::new(), own: Vec::new() };
        for piece in stream.chunks(step) {
            if !served.session.wants_bytes() || served.session.is_closing() {
                break;
            }
            served.receive(piece);
        }
        while served.end.outgoing.has_own() {
            let own = served.end.outgoing.next(std::iter::empty()).own.to_vec();
            assert_eq!(served.end.outgoing.written(own.len()), 0);
            served.own.extend(own);
        }
        served
    }

    fn receive(&mut self, piece: &[u8]) {
        let mut out = Vec::new();
        self.end.receive(BytesMut::from(piece), &Origins::default(), &mut self.session, 0, &mut out);
        assert!(self.end.held_bytes() <= piece.len() + 14 + 125);
        while let Some(at) = out.iter().position(|action| matches!(action, Action::SignIn(_))) {
            assert_eq!(at + 1, out.len(), "something behind a sign-in");
            self.act(&mut out);
            assert!(self.session.signed_in(login(), 0, 0, &mut out));
            if self.session.wants_bytes() {
                self.end.go_on(&mut self.session, 0, &mut out);
            }
        }
        self.act(&mut out);
    }

    fn act(&mut self, out: &mut Vec<Action>) {
        for action in out.drain(..) {
            if let Action::Close { code, .. } = &action {
                self.end.close(*code);
            }
            self.done.push(match &action {
                Action::Write(frame) => format!("Write {frame:x?}"),
                Action::Forward { frame, .. } => format!("{action:?} {frame:x?}"),
                _ => format!("{action:?}"),
            });
        }
    }
}

fn login() -> Login {
    Login {
        user: UserId::parse("alice").expect("an id"),
        device: DeviceId::parse("phone").expect("an id"),
        generation: Generation(1),
        inbox_version: InboxVersion(1),
        epoch: Epoch(1),
        token_expires_at_ms: None,
    }
}
