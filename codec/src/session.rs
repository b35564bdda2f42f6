//! One connection as the gateway sees it, from its first byte to its end.
//!
//! In: bytes, the time, what the logic answered. Out: [`Action`]s, in the order they are to be taken. Always: nothing but
//! a sign-in is looked at before sign-in; every command is answered once; a connection that is closing does nothing more.
//!
//! The states: awaiting sign-in → signing in → signed in → closing. `receive` and the parsing are here, what the logic
//! answers is in `answers`, what time brings in `deadlines`, what WebSocket adds in `messages`.

mod answers;
mod deadlines;
mod messages;

use crate::command::{self, Route};
use crate::error::{CloseReason, Refused};
use crate::frame::{Deframer, Incoming, encode_delimited};
use crate::given::Given;
use crate::limits::{HEARTBEATS_BURST, HEARTBEATS_PER_S_MAX, SessionLimits};
use crate::pending::{Kind, Pending};
use crate::rate::Bucket;
pub use answers::{Told, sync_hint};
use bytes::Bytes;
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, client_frame::Command, server_frame};
use im_proto::{DeviceId, Epoch, Generation, InboxVersion, LogId, TraceId, UserId};
use prost::Message as _;
use std::fmt;
use std::sync::Arc;

/// What the gateway has to do.
pub enum Action {
    /// Ask the logic who this is.
    SignIn(client::SignIn),
    /// Put the command into the queue. `frame` is the client's frame as received, `trace` what it asks to be traced by.
    Forward { log: LogId, request_id: u64, frame: Bytes, trace: Option<TraceId> },
    /// Write this error, as [`Write`](Self::Write) does: the command goes no further, or had no answer in time.
    Refuse { request_id: u64, code: ErrorCode, trace: Option<TraceId>, frame: Bytes },
    /// Ask the logic.
    Ask { request_id: u64, frame: Bytes },
    /// Ask the logic for the user's inbox version.
    Heartbeat,
    /// Write these bytes; they may not be dropped.
    Write(Bytes),
    /// Write what waits, then close. `login`: the login that ended, if there was one.
    Close { code: CloseCode, login: Option<Box<Login>> },
    /// The client left in an orderly way: write what waits, then close.
    Left { login: Option<Box<Login>> },
    /// The transport has an answer of its own for a client that it does not take: write it, then close.
    /// `origin`: of a page that may not connect.
    Refused { origin: Option<String> },
}

/// Without tokens and bodies: it may come into a log.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignIn(sign_in) => write!(f, "SignIn({})", sign_in.device_id),
            Self::Refuse { request_id, code, .. } => write!(f, "Refuse({request_id}, {})", code.as_str_name()),
            Self::Forward { log, request_id, frame, .. } => {
                write!(f, "Forward({request_id}, {log}, {} B)", frame.len())
            }
            Self::Ask { request_id, frame } => write!(f, "Ask({request_id}, {} B)", frame.len()),
            Self::Heartbeat => f.write_str("Heartbeat"),
            Self::Write(frame) => write!(f, "Write({} B)", frame.len()),
            Self::Close { code, .. } => write!(f, "Close({})", code.as_str_name()),
            Self::Left { .. } => f.write_str("Left"),
            Self::Refused { .. } => f.write_str("Refused"),
        }
    }
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: UserId,
    pub device: DeviceId,
    pub generation: Generation,
    pub inbox_version: InboxVersion,
    pub epoch: Epoch,
    /// By the clock that `now_ms` is of. `None`: the token does not end.
    pub token_expires_at_ms: Option<u64>,
}

pub struct Session {
    limits: Arc<SessionLimits>,
    state: State,
    deframer: Deframer,
    /// Received and not yet parsed: the session waits for room or for the sign-in.
    held: Bytes,
    /// What is held is the end of a message: there a frame must end too.
    held_ends_message: bool,
    message_has_bytes: bool,
    is_inside_message: bool,
    /// The rate of heartbeats and of a transport's own control frames.
    heartbeats: Bucket,
    /// The caller does not read from the socket for reasons of its own.
    paused: bool,
    opened_at_ms: u64,
    /// `opened_at_ms` until the first byte.
    heard_at_ms: u64,
    heard_anything: bool,
    frame_started_at_ms: u64,
}

enum State {
    AwaitingSignIn,
    SigningIn { request_id: u64, kicked: Option<Kicked> },
    SignedIn(SignedIn),
    Closing,
}

#[derive(Debug, Clone, Copy)]
struct Kicked {
    generation: Generation,
    reason: client::kicked::Reason,
}

struct SignedIn {
    login: Login,
    given: Given,
    pending: Pending,
    commands: Bucket,
    /// Heartbeats without an answer, and when the first must have one.
    heartbeats_waiting: u32,
    heartbeat_deadline_ms: u64,
    /// When the logic was last asked whether this login stands and what moved; at sign-in it said so.
    asked_at_ms: u64,
    /// A command that found its table full.
    stalled: Option<Box<Decoded>>,
}

/// What is kept of a command once its route is known.
struct Known {
    request_id: u64,
    trace: Option<TraceId>,
    bytes: Bytes,
}

struct Decoded {
    frame: client::ClientFrame,
    bytes: Bytes,
}

impl Session {
    pub fn new(limits: Arc<SessionLimits>, now_ms: u64) -> Self {
        Self {
            limits,
            state: State::AwaitingSignIn,
            deframer: Deframer::default(),
            held: Bytes::new(),
            held_ends_message: false,
            message_has_bytes: false,
            is_inside_message: false,
            heartbeats: Bucket::full(HEARTBEATS_BURST, now_ms),
            paused: false,
            opened_at_ms: now_ms,
            heard_at_ms: now_ms,
            heard_anything: false,
            frame_started_at_ms: now_ms,
        }
    }

    /// Takes bytes from the socket. Call it only while [`wants_bytes`](Self::wants_bytes).
    pub fn receive(&mut self, input: Bytes, now_ms: u64, out: &mut Vec<Action>) {
        debug_assert!(self.held.is_empty(), "bytes received while earlier ones are held");
        self.heard_at_ms = now_ms;
        self.heard_anything = true;
        self.held = input;
        self.parse(now_ms, out);
    }

    /// False while the session cannot take more: the socket is left alone and TCP slows the client down.
    pub fn wants_bytes(&self) -> bool {
        match &self.state {
            State::AwaitingSignIn | State::Closing => true,
            State::SigningIn { .. } => false,
            State::SignedIn(signed_in) => signed_in.stalled.is_none(),
        }
    }

    pub fn login(&self) -> Option<&Login> {
        match &self.state {
            State::SignedIn(signed_in) => Some(&signed_in.login),
            _ => None,
        }
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    /// The login stands or is being asked for: the connection no longer counts as unauthenticated once it does.
    pub fn is_signed_in(&self) -> bool {
        matches!(self.state, State::SignedIn(_))
    }

    pub fn pending_requests(&self) -> usize {
        match &self.state {
            State::SignedIn(signed_in) => signed_in.pending.len(),
            _ => 0,
        }
    }

    /// Bytes of the client's that are kept: an unfinished frame, what is not parsed yet, a command that waits for room.
    pub fn held_bytes(&self) -> usize {
        let stalled = match &self.state {
            State::SignedIn(signed_in) => signed_in.stalled.as_ref().map_or(0, |decoded| decoded.bytes.len()),
            _ => 0,
        };
        self.deframer.held_bytes() + self.held.len() + stalled
    }

    /// Ends the session from the server's side: the client is told, then the connection is closed.
    pub fn close(&mut self, reason: CloseReason, out: &mut Vec<Action>) {
        if self.is_closing() {
            return;
        }
        out.push(Action::Write(push(server_frame::Body::Closing(client::Closing {
            code: reason.code as i32,
            reconnect_after_ms: reason.reconnect_after_ms,
            detail: reason.detail,
        }))));
        let login = self.end().map(Box::new);
        out.push(Action::Close { code: reason.code, login });
    }

    /// The connection is gone. Answers the login that ended with it.
    pub fn end(&mut self) -> Option<Login> {
        self.held = Bytes::new();
        self.deframer = Deframer::default();
        match std::mem::replace(&mut self.state, State::Closing) {
            State::SignedIn(signed_in) => Some(signed_in.login),
            _ => None,
        }
    }

    /// Parses what is held for as long as the state allows.
    fn parse(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let was_inside = self.is_inside();
        let mut any_whole = false;
        while self.wants_bytes() && !self.is_closing() {
            let frame_bytes_max = match self.state {
                State::SignedIn(_) => self.limits.frame_bytes_max,
                _ => self.limits.frame_bytes_max_before_sign_in,
            };
            match self.deframer.next(&mut self.held, frame_bytes_max) {
                Ok(Some(incoming)) => {
                    any_whole = true;
                    self.incoming(incoming, now_ms, out);
                }
                Ok(None) => {
                    if std::mem::take(&mut self.held_ends_message) && self.deframer.is_inside_frame() {
                        return self.protocol_error("a message that ends inside a frame", out);
                    }
                    break;
                }
                Err(error) => return self.close(error.into(), out),
            }
        }
        if self.is_closing() {
            self.held = Bytes::new();
        } else if !self.held.is_empty() {
            // What waits must not keep a whole shared read buffer alive.
            self.held = Bytes::copy_from_slice(&self.held);
        }
        if self.is_inside() && (any_whole || !was_inside) {
            self.frame_started_at_ms = now_ms;
        }
    }

    /// True between the first byte of a frame or of a message, and its last.
    fn is_inside(&self) -> bool {
        self.deframer.is_inside_frame() || self.is_inside_message
    }

    fn incoming(&mut self, incoming: Incoming, now_ms: u64, out: &mut Vec<Action>) {
        match (&mut self.state, incoming) {
            (State::AwaitingSignIn, Incoming::Frame(bytes)) => self.sign_in(bytes, out),
            (State::SignedIn(_), Incoming::Frame(bytes)) => match client::ClientFrame::decode(bytes.clone()) {
                Ok(frame) => {
                    self.ask_for_the_silent(now_ms, out);
                    self.command(Decoded { frame, bytes }, now_ms, out);
                }
                Err(error) => self.protocol_error(format!("not a ClientFrame: {error}"), out),
            },
            (State::SignedIn(signed_in), Incoming::Heartbeat) => {
                if self.heartbeats.take(HEARTBEATS_PER_S_MAX, HEARTBEATS_BURST, now_ms).is_err() {
                    return self.close(CloseReason::new(CloseCode::Overloaded, "too many heartbeats"), out);
                }
                signed_in.heartbeat(now_ms, out);
            }
            (_, Incoming::Heartbeat) => self.protocol_error("a heartbeat before sign-in", out),
            (State::SigningIn { .. } | State::Closing, Incoming::Frame(_)) => {
                debug_assert!(false, "parsed a frame in a state that parses none");
            }
        }
    }

    fn sign_in(&mut self, bytes: Bytes, out: &mut Vec<Action>) {
        let frame = match client::ClientFrame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.protocol_error(format!("not a ClientFrame: {error}"), out),
        };
        let Some(Command::SignIn(sign_in)) = frame.command else {
            return self.protocol_error("a command before sign-in", out);
        };
        if frame.request_id == 0 {
            return self.protocol_error("request_id 0", out);
        }
        if let Err((code, detail)) = command::check_sign_in(&sign_in) {
            return self.close(CloseReason::new(code, detail), out);
        }
        self.state = State::SigningIn { request_id: frame.request_id, kicked: None };
        out.push(Action::SignIn(sign_in));
    }

    /// Routes one command of a signed-in client, or stalls the session on it.
    fn command(&mut self, decoded: Decoded, now_ms: u64, out: &mut Vec<Action>) {
        let State::SignedIn(signed_in) = &mut self.state else { return };
        let request_id = decoded.frame.request_id;
        if request_id == 0 || signed_in.pending.is_open(request_id) {
            return self.protocol_error("request_id is 0 or still unanswered", out);
        }
        let routed = match &decoded.frame.command {
            Some(command) => match command::route(&signed_in.login.user, command, &self.limits) {
                Some(routed) => routed,
                None => return self.protocol_error("a second sign-in", out),
            },
            None => Err(Refused { code: ErrorCode::UnknownCommand, detail: "this server does not know the command" }),
        };
        let kind = match &routed {
            Ok(Route::Write(_)) => Some(Kind::Write),
            Ok(Route::Read) => Some(Kind::Read),
            Err(_) => None,
        };
        if let Some(kind) = kind
            && !signed_in.pending.has_room(kind)
        {
            let bytes = Bytes::copy_from_slice(&decoded.bytes);
            signed_in.stalled = Some(Box::new(Decoded { bytes, ..decoded }));
            return;
        }
        let (rate, burst) = (self.limits.command_rate_per_s, self.limits.command_burst);
        let trace = TraceId::from_bytes(&decoded.frame.trace_id);
        if let Err(retry_after_ms) = signed_in.commands.take(rate, burst, now_ms) {
            let busy = error(ErrorClass::Busy, ErrorCode::RateLimited, retry_after_ms, "too many commands");
            return out.push(refuse(request_id, trace, busy));
        }
        let Decoded { bytes, .. } = decoded;
        signed_in.go(Known { request_id, trace, bytes }, routed, now_ms, out);
    }

    fn protocol_error(&mut self, detail: impl Into<String>, out: &mut Vec<Action>) {
        self.close(CloseReason::new(CloseCode::ProtocolError, detail), out);
    }
}

impl SignedIn {
    fn go(&mut self, command: Known, routed: Result<Route, Refused>, now_ms: u64, out: &mut Vec<Action>) {
        let Known { request_id, trace, bytes: frame } = command;
        let body = match routed {
            // The late answer of the timed-out request could be taken for the answer of this one.
            Ok(_) if self.pending.is_timed_out(request_id) => {
                error(ErrorClass::Retry, ErrorCode::Unavailable, 0, "this request_id timed out; choose another")
            }
            Ok(Route::Write(log)) => {
                self.pending.open(request_id, Kind::Write, now_ms);
                return out.push(Action::Forward { log, request_id, frame, trace });
            }
            Ok(Route::Read) => {
                self.pending.open(request_id, Kind::Read, now_ms);
                return out.push(Action::Ask { request_id, frame: Bytes::copy_from_slice(&frame) });
            }
            Err(refused) => error(ErrorClass::Final, refused.code, 0, refused.detail),
        };
        out.push(refuse(request_id, trace, body));
    }
}

fn refuse(request_id: u64, trace: Option<TraceId>, error: client::Error) -> Action {
    let code = error.code();
    Action::Refuse { request_id, code, trace, frame: answer(request_id, server_frame::Body::Error(error)) }
}

fn error(class: ErrorClass, code: ErrorCode, retry_after_ms: u32, detail: &str) -> client::Error {
    client::Error { class: class as i32, code: code as i32, retry_after_ms, detail: detail.to_owned() }
}

fn answer(request_id: u64, body: server_frame::Body) -> Bytes {
    encode_delimited(&client::ServerFrame { request_id, body: Some(body) })
}

fn push(body: server_frame::Body) -> Bytes {
    answer(0, body)
}
