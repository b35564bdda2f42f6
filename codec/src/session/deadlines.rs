//! What time brings to a session.
//!
//! In: the time. Out: answers UNKNOWN, late heartbeats, closes. Always: whatever a session waits for has a deadline, and
//! [`Session::deadline_ms`] is never later than the first of them; silence does not count while nobody reads.

use super::{Action, Session, State, error, refuse};
use crate::error::CloseReason;
use im_proto::InboxVersion;
use im_proto::client::{CloseCode, ErrorClass, ErrorCode};

impl Session {
    /// When [`on_time`](Self::on_time) is to be called at the latest. `None`: nothing is waited for.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            State::Closing => None,
            State::AwaitingSignIn | State::SigningIn { .. } => Some(self.sign_in_deadline_ms()),
            State::SignedIn(signed_in) => {
                let heartbeat = (signed_in.heartbeats_waiting > 0).then_some(signed_in.heartbeat_deadline_ms);
                [
                    self.silence_deadline_ms(),
                    signed_in.pending.deadline_ms(),
                    heartbeat,
                    signed_in.login.token_expires_at_ms,
                ]
                .into_iter()
                .flatten()
                .min()
            }
        }
    }

    /// Does what is due.
    pub fn on_time(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        match &self.state {
            State::Closing => {}
            State::AwaitingSignIn | State::SigningIn { .. } => {
                if now_ms >= self.sign_in_deadline_ms() {
                    self.close(CloseReason::new(CloseCode::SignInTimeout, "not signed in in time"), out);
                }
            }
            State::SignedIn(_) => self.on_time_signed_in(now_ms, out),
        }
    }

    /// The caller stops reading for reasons of its own: from here on silence is not the client's.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The caller reads again.
    pub fn resume(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.paused) {
            self.heard_at_ms = now_ms;
            self.frame_started_at_ms = now_ms;
        }
    }

    fn on_time_signed_in(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let State::SignedIn(signed_in) = &mut self.state else { return };
        if signed_in.login.token_expires_at_ms.is_some_and(|at| now_ms >= at) {
            return self.close(CloseReason::new(CloseCode::TokenExpired, "the token has expired"), out);
        }
        if signed_in.heartbeats_waiting > 0 && now_ms >= signed_in.heartbeat_deadline_ms {
            // The connection is alive, whatever the logic is doing; the next heartbeat asks again.
            signed_in.answer_heartbeats(InboxVersion(0), false, out);
        }
        let mut any_timed_out = false;
        while let Some(request_id) = signed_in.pending.time_out(now_ms) {
            any_timed_out = true;
            let unknown = error(ErrorClass::Unknown, ErrorCode::TimedOut, 0, "no answer in time");
            out.push(refuse(request_id, None, unknown));
        }
        if any_timed_out {
            self.go_on(now_ms, out);
        }
        if self.silence_deadline_ms().is_some_and(|at| now_ms >= at) {
            let reason = match self.frame_deadline_ms() {
                Some(at) if now_ms >= at => CloseReason::new(CloseCode::ProtocolError, "a frame took too long"),
                _ => CloseReason::new(CloseCode::IdleTimeout, "no heartbeat in time"),
            };
            self.close(reason, out);
        }
    }

    fn sign_in_deadline_ms(&self) -> u64 {
        let limits = &self.limits;
        let whole = limits.sign_in_timeout_ms;
        self.opened_at_ms + if self.heard_anything { whole } else { limits.first_byte_timeout_ms.min(whole) }
    }

    /// When the client has been silent for too long, in a frame or between two.
    fn silence_deadline_ms(&self) -> Option<u64> {
        if self.paused || !self.wants_bytes() {
            return None;
        }
        let idle = self.heard_at_ms + u64::from(self.limits.idle_timeout_ms);
        Some(self.frame_deadline_ms().map_or(idle, |frame| frame.min(idle)))
    }

    fn frame_deadline_ms(&self) -> Option<u64> {
        self.is_inside().then(|| self.frame_started_at_ms + self.limits.frame_timeout_ms)
    }
}
