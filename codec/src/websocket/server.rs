//! The server's end of one connection: a handshake, then messages of delimited frames for a session.
//!
//! In: what was read, the session. Out: the session's actions, and what is to be written. Always: before the handshake is
//! done the session sees nothing but that somebody is there; what the session cannot take yet is held as it came; a
//! violation of WebSocket ends the session too, with a close frame that names it; nothing is held but numbers once the
//! connection is idle.

use super::close;
use super::decoder::{Decoder, Event, Kind, MessageLimits, Role, Violation};
use super::handshake::origins::Origins;
use super::handshake::server::{Refusal, ServerHandshake};
use super::outgoing::Outgoing;
use crate::error::CloseReason;
use crate::session::{Action, Session};
use bytes::BytesMut;
use im_proto::client::CloseCode;

#[derive(Debug)]
pub struct ServerEnd {
    /// Until it is done.
    handshake: Option<Box<ServerHandshake>>,
    decoder: Decoder,
    /// Read and not yet decoded: the session waits for room or for the sign-in.
    held: BytesMut,
    pub outgoing: Outgoing,
}

impl ServerEnd {
    pub fn new() -> Self {
        Self {
            handshake: Some(Box::default()),
            decoder: Decoder::new(Role::Server, MessageLimits::default()),
            held: BytesMut::new(),
            outgoing: Outgoing::new(),
        }
    }

    /// Takes bytes from the socket. Call it only while the session wants bytes and nothing is held. `origins`: the pages
    /// that may connect.
    pub fn receive(
        &mut self,
        mut input: BytesMut,
        origins: &Origins,
        session: &mut Session,
        now_ms: u64,
        out: &mut Vec<Action>,
    ) {
        debug_assert!(self.held.is_empty(), "bytes received while earlier ones are held");
        if session.is_closing() {
            return;
        }
        if let Some(handshake) = &mut self.handshake {
            session.heard(now_ms);
            match handshake.receive(&mut input, origins) {
                Ok(None) => return,
                Ok(Some(response)) => self.outgoing.open(response),
                Err(refusal) => {
                    self.outgoing.refuse(refusal.response());
                    let origin = if let Refusal::Forbidden { origin } = refusal { Some(origin) } else { None };
                    session.refused(origin, out);
                }
            }
            self.handshake = None;
        }
        self.decode(input, session, now_ms, out);
    }

    /// The session can take more again.
    pub fn go_on(&mut self, session: &mut Session, now_ms: u64, out: &mut Vec<Action>) {
        let held = std::mem::take(&mut self.held);
        self.decode(held, session, now_ms, out);
    }

    pub fn holds_input(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes held of what has not come whole or cannot be taken yet. A head is not among them.
    pub fn held_bytes(&self) -> usize {
        self.held.len() + self.decoder.held_bytes()
    }

    /// The session is closed with `code`. True: its last frames can be sent; false: the client gets an HTTP answer.
    pub fn close(&mut self, code: CloseCode) -> bool {
        self.held = BytesMut::new();
        if self.outgoing.is_open() {
            self.outgoing.close(Some(code as u16));
            return true;
        }
        let refusal = match code {
            CloseCode::GoingAway | CloseCode::Overloaded | CloseCode::Internal => Refusal::Overloaded,
            _ => Refusal::TimedOut,
        };
        self.handshake = None;
        self.outgoing.refuse(refusal.response());
        false
    }

    fn decode(&mut self, mut input: BytesMut, session: &mut Session, now_ms: u64, out: &mut Vec<Action>) {
        while session.wants_bytes() && !session.is_closing() {
            match self.decoder.next(&mut input) {
                Ok(Some(event)) => self.event(event, session, now_ms, out),
                Ok(None) => break,
                Err(violation) => self.violated(violation, session, out),
            }
        }
        if session.is_closing() {
            return;
        }
        session.message_is_open(self.decoder.is_inside_message(), now_ms);
        if !input.is_empty() {
            // What waits must not keep a whole shared read buffer alive.
            self.held = BytesMut::from(&input[..]);
        }
    }

    fn event(&mut self, event: Event, session: &mut Session, now_ms: u64, out: &mut Vec<Action>) {
        match event {
            Event::Data { kind: Kind::Binary, bytes, is_last } => session.receive_part(bytes, is_last, now_ms, out),
            // Judged as a whole, so that text that is not UTF-8 is told so however it was cut.
            Event::Data { kind: Kind::Text, is_last: false, .. } => {}
            Event::Data { kind: Kind::Text, is_last: true, .. } => {
                self.outgoing.close(Some(close::UNSUPPORTED_DATA));
                session.close(CloseReason::new(CloseCode::ProtocolError, "text; frames come in binary messages"), out);
            }
            Event::Ping(payload) => {
                if session.control_frame(now_ms, out) {
                    self.outgoing.pong(payload);
                }
            }
            Event::Pong(_) => drop(session.control_frame(now_ms, out)),
            Event::Close(frame) => {
                self.outgoing.close(frame.code);
                session.left(out);
            }
        }
    }

    fn violated(&mut self, violation: Violation, session: &mut Session, out: &mut Vec<Action>) {
        self.outgoing.close(Some(violation.code()));
        let code = match violation {
            Violation::TooBig(_) => CloseCode::FrameTooLarge,
            Violation::Protocol(_) | Violation::NotUtf8 => CloseCode::ProtocolError,
        };
        session.close(CloseReason::new(code, violation.to_string()), out);
    }
}

impl Default for ServerEnd {
    fn default() -> Self {
        Self::new()
    }
}
