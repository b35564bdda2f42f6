//! What the logic and the workers say to a session.
//!
//! In: answers, versions, kicks, as they come off the core's lane. Out: frames to write, and the commands that waited for
//! room. Always: an answer reaches the request it was made for or nobody; a kick ends exactly the login it names.

use super::{Action, Kicked, Login, Session, SignedIn, State, answer, push};
use crate::error::CloseReason;
use crate::frame::HEARTBEAT;
use crate::given::{Given, Move};
use crate::limits::{PENDING_WRITES_MAX, SessionLimits, VERSIONS_TIMEOUT_MS};
use crate::pending::Pending;
use crate::rate::Bucket;
use bytes::Bytes;
use im_proto::client::{self, CloseCode, kicked::Reason, server_frame};
use im_proto::{Generation, InboxVersion, LogId};

/// What an answer tells the connection of its user's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Nothing,
    /// It carries this move.
    Move(Move),
    /// It covers everything up to here.
    UpTo(InboxVersion),
}

impl Session {
    /// The logic knows who this is. False: the session no longer waits for it, and the login must be taken back.
    #[must_use]
    pub fn signed_in(&mut self, login: Login, now_ms: u64, server_time_ms: i64, out: &mut Vec<Action>) -> bool {
        let State::SigningIn { request_id, kicked } = self.state else { return false };
        out.push(Action::Write(answer(request_id, signed_in_body(&login, &self.limits, server_time_ms))));
        self.state = State::SignedIn(SignedIn {
            given: Given::new(login.inbox_version),
            login,
            pending: Pending::default(),
            commands: Bucket::full(self.limits.command_burst, now_ms),
            heartbeats_waiting: 0,
            heartbeat_deadline_ms: 0,
            asked_at_ms: now_ms,
            stalled: None,
        });
        self.heard_at_ms = now_ms;
        if let Some(Kicked { generation, reason }) = kicked {
            self.kick(generation, reason, out);
        }
        self.parse(now_ms, out);
        true
    }

    pub fn sign_in_refused(&mut self, reason: CloseReason, out: &mut Vec<Action>) {
        if matches!(self.state, State::SigningIn { .. }) {
            self.close(reason, out);
        }
    }

    /// The answer to a command. False: nobody waits for it any more.
    pub fn answered(&mut self, request_id: u64, frame: Bytes, told: Told, now_ms: u64, out: &mut Vec<Action>) -> bool {
        let State::SignedIn(signed_in) = &mut self.state else { return false };
        if !signed_in.pending.answer(request_id) {
            return false;
        }
        out.push(Action::Write(frame));
        match told {
            Told::Nothing => {}
            Told::Move(step) => signed_in.given.queued(step),
            Told::UpTo(version) => signed_in.given.told(version),
        }
        self.go_on(now_ms, out);
        true
    }

    /// A push that carries this move was queued to the connection.
    pub fn pushed(&mut self, step: Move) {
        if let State::SignedIn(signed_in) = &mut self.state {
            signed_in.given.queued(step);
        }
    }

    /// Up to where the connection knows its user's inbox.
    pub fn given(&self) -> Option<InboxVersion> {
        match &self.state {
            State::SignedIn(signed_in) => Some(signed_in.given.version()),
            _ => None,
        }
    }

    /// A client that sends commands and no heartbeats is never silent, but its login may have ended, or a push got lost.
    pub(super) fn ask_for_the_silent(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let State::SignedIn(signed_in) = &mut self.state else { return };
        // Who keeps to the interval is asked about by its own heartbeats.
        if now_ms >= signed_in.asked_at_ms + 2 * u64::from(self.limits.heartbeat_interval_ms) {
            signed_in.asked_at_ms = now_ms;
            out.push(Action::Heartbeat);
        }
    }

    /// The user's inbox version, asked for by [`Action::Heartbeat`]. `is_behind`: something moved that the inbox does not
    /// know, and the connection was not told of it.
    pub fn version(&mut self, version: InboxVersion, is_behind: bool, out: &mut Vec<Action>) {
        if let State::SignedIn(signed_in) = &mut self.state {
            signed_in.answer_heartbeats(version, is_behind, out);
        }
    }

    /// Ends the session if it is the login of this generation, or as soon as it turns out to be.
    pub fn kick(&mut self, generation: Generation, reason: Reason, out: &mut Vec<Action>) {
        match &mut self.state {
            State::SigningIn { kicked, .. } => *kicked = Some(Kicked { generation, reason }),
            State::SignedIn(signed_in) if signed_in.login.generation == generation => {
                let told = client::Kicked { reason: reason as i32, generation: generation.0 };
                out.push(Action::Write(push(server_frame::Body::Kicked(told))));
                let (code, detail) = match reason {
                    Reason::SignedOut => (CloseCode::SignedOutRemotely, "signed out"),
                    Reason::Banned => (CloseCode::UserBanned, "banned"),
                    Reason::Replaced | Reason::Unspecified => {
                        (CloseCode::ReplacedByNewer, "a newer login of this device")
                    }
                };
                self.close(CloseReason::new(code, detail), out);
            }
            _ => {}
        }
    }

    /// A request came free: takes up the command that waited for it, and what lies behind.
    pub(super) fn go_on(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let State::SignedIn(signed_in) = &mut self.state else { return };
        let Some(decoded) = signed_in.stalled.take() else { return };
        // While the session was stalled nobody read: the client was not silent.
        self.heard_at_ms = now_ms;
        self.frame_started_at_ms = now_ms;
        self.command(*decoded, now_ms, out);
        self.parse(now_ms, out);
    }
}

impl SignedIn {
    pub(super) fn heartbeat(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.asked_at_ms = now_ms;
        if self.heartbeats_waiting == 0 {
            self.heartbeat_deadline_ms = now_ms + VERSIONS_TIMEOUT_MS;
            out.push(Action::Heartbeat);
        }
        self.heartbeats_waiting += 1;
    }

    /// One answer for each heartbeat that waits; the first is a hint if the inbox moved past what was given, or if the
    /// connection is behind in another way. That has no version: a client must not think that it has it already. News is
    /// hinted also where nothing waits: an older version that came late may have answered the heartbeat that asked for it.
    pub(super) fn answer_heartbeats(&mut self, version: InboxVersion, is_behind: bool, out: &mut Vec<Action>) {
        let waiting = std::mem::take(&mut self.heartbeats_waiting);
        let is_news = is_behind || version > self.given.version();
        if is_news {
            let hint = if is_behind { InboxVersion(0) } else { version };
            out.push(Action::Write(sync_hint(hint)));
        }
        let left = waiting.saturating_sub(u32::from(is_news));
        out.extend((0..left).map(|_| Action::Write(Bytes::from_static(HEARTBEAT))));
    }
}

/// A pushed `SyncHint`. Version 0: not known.
pub fn sync_hint(version: InboxVersion) -> Bytes {
    push(server_frame::Body::SyncHint(client::SyncHint { inbox_version: version.0 }))
}

fn signed_in_body(login: &Login, limits: &SessionLimits, server_time_ms: i64) -> server_frame::Body {
    server_frame::Body::SignedIn(client::SignedIn {
        user_id: (&login.user).into(),
        device_id: (&login.device).into(),
        epoch: login.epoch.0,
        generation: login.generation.0,
        inbox_version: login.inbox_version.0,
        server_time_ms,
        heartbeat_interval_ms: limits.heartbeat_interval_ms,
        frame_bytes_max: limits.frame_bytes_max,
        pending_sends_max: PENDING_WRITES_MAX as u32,
        idle_timeout_ms: limits.idle_timeout_ms,
        user_log_id: (&LogId::user(&login.user)).into(),
    })
}
