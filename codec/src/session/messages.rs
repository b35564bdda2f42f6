//! What a transport with messages of its own (WebSocket) brings to a session besides bytes.
//!
//! In: the parts of messages, where they end, control frames, the client's goodbye. Out: the session's actions. Always: a
//! message holds whole frames, at least one; a control frame counts as a heartbeat for the rate and as nothing for the
//! silence: it brings no answer about the inbox, so it cannot stand for a heartbeat.

use super::{Action, Session};
use crate::error::CloseReason;
use crate::limits::{HEARTBEATS_BURST, HEARTBEATS_PER_S_MAX};
use bytes::Bytes;
use im_proto::client::CloseCode;

impl Session {
    /// Takes the next part of a message. Call it only while [`wants_bytes`](Self::wants_bytes).
    pub fn receive_part(&mut self, part: Bytes, ends_message: bool, now_ms: u64, out: &mut Vec<Action>) {
        self.message_has_bytes |= !part.is_empty();
        if ends_message && !std::mem::take(&mut self.message_has_bytes) {
            return self.protocol_error("a message without a frame", out);
        }
        self.held_ends_message = ends_message;
        self.receive(part, now_ms, out);
    }

    /// Whether the transport is between the first and the last byte of a message: it has to end in time, as a frame has.
    pub fn message_is_open(&mut self, is_open: bool, now_ms: u64) {
        if is_open && !self.is_inside() {
            self.frame_started_at_ms = now_ms;
        }
        self.is_inside_message = is_open;
    }

    /// A ping or pong came. False: one too many; the session is closed.
    pub fn control_frame(&mut self, now_ms: u64, out: &mut Vec<Action>) -> bool {
        let is_within = self.heartbeats.take(HEARTBEATS_PER_S_MAX, HEARTBEATS_BURST, now_ms).is_ok();
        if !is_within {
            self.close(CloseReason::new(CloseCode::Overloaded, "too many control frames"), out);
        }
        is_within
    }

    /// Bytes came that are no frames yet: somebody is there.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_at_ms = now_ms;
        self.heard_anything = true;
    }

    /// The client said goodbye in the transport's own way.
    pub fn left(&mut self, out: &mut Vec<Action>) {
        if !self.is_closing() {
            let login = self.end().map(Box::new);
            out.push(Action::Left { login });
        }
    }

    /// The transport refused the client before a frame could come. `origin`: of a page that may not connect.
    pub fn refused(&mut self, origin: Option<String>, out: &mut Vec<Action>) {
        if !self.is_closing() {
            self.end();
            out.push(Action::Refused { origin });
        }
    }
}
