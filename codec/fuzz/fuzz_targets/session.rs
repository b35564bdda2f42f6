//! Bytes of a hostile client, cut by its own script, against the deframer and the session.
//!
//! In: two bytes of script per step (what happens, and how many bytes it takes), then the stream. Out: nothing. Always: no
//! panic; what is held is never more than was received, nor than a frame and the last piece; every command that went on is
//! answered at most once, and nothing else is answered but what was refused at the door; after a close nothing more happens.
#![no_main]

use bytes::Bytes;
use im_codec::given::Move;
use im_codec::limits::{PENDING_READS_MAX, PENDING_WRITES_MAX};
use im_codec::session::Told;
use im_codec::{Action, Login, Session, SessionLimits, encode_delimited};
use im_proto::client::kicked::Reason;
use im_proto::client::{ServerFrame, server_frame::Body};
use im_proto::{DeviceId, Epoch, Generation, InboxVersion, UserId};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::Arc;

const STEPS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((&steps, rest)) = data.split_first() else { return };
    let steps = usize::from(steps) % STEPS_MAX;
    let Some((script, mut stream)) = rest.split_at_checked(steps * 2) else { return };
    let mut run = Run {
        session: Session::new(Arc::new(SessionLimits::default()), 0),
        now_ms: 0,
        asked: Vec::new(),
        unanswered: BTreeSet::new(),
        received_bytes: 0,
        piece_bytes: 0,
        is_closed: false,
        is_paused: false,
    };
    for step in script.chunks_exact(2) {
        let taken = stream.split_off(..usize::from(step[1]).min(stream.len())).unwrap_or_default();
        run.step(step[0], step[1], taken);
    }
    run.receive(stream);
});

struct Run {
    session: Session,
    now_ms: u64,
    /// Commands that went on; the logic answers each once, some of them too late.
    asked: Vec<u64>,
    /// Of these, what the client has no answer to.
    unanswered: BTreeSet<u64>,
    received_bytes: usize,
    /// The longest piece.
    piece_bytes: usize,
    is_closed: bool,
    /// Nobody reads: then silence has no deadline.
    is_paused: bool,
}

impl Run {
    fn step(&mut self, kind: u8, size: u8, taken: &[u8]) {
        let mut out = Vec::new();
        match kind % 8 {
            0 => {
                self.now_ms += u64::from(size) * 50;
                self.session.on_time(self.now_ms, &mut out);
            }
            1 => {
                if let Some(request_id) = self.asked.pop() {
                    let step =
                        Move { previous: InboxVersion(u64::from(size)), version: InboxVersion(u64::from(size) + 1) };
                    let frame = encode_delimited(&ServerFrame { request_id, body: None });
                    let is_awaited = self.unanswered.contains(&request_id);
                    let told = self.session.answered(request_id, frame, Told::Move(step), self.now_ms, &mut out);
                    assert_eq!(told, is_awaited && !self.is_closed);
                }
            }
            2 => self.session.version(InboxVersion(u64::from(size)), size % 2 == 1, &mut out),
            3 if size == 9 => self.session.kick(Generation(1), Reason::Replaced, &mut out),
            3 | 4 => drop(self.session.signed_in(login(), self.now_ms, 0, &mut out)),
            5 => {
                self.is_paused = true;
                self.session.pause();
            }
            6 => {
                self.is_paused = false;
                self.session.resume(self.now_ms);
            }
            _ => {}
        }
        self.check(out);
        self.receive(taken);
    }

    fn receive(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.session.wants_bytes() {
            let mut out = Vec::new();
            self.received_bytes += bytes.len();
            self.piece_bytes = self.piece_bytes.max(bytes.len());
            self.session.receive(Bytes::copy_from_slice(bytes), self.now_ms, &mut out);
            self.check(out);
        }
    }

    /// A heartbeat, a push, or the answer to a command that had none.
    fn written(&mut self, frame: &[u8]) {
        let ServerFrame { request_id, body } = answer(frame);
        if request_id != 0 && !matches!(body, Some(Body::SignedIn(_))) {
            assert!(self.unanswered.remove(&request_id), "{request_id} is answered again, or was never asked");
        }
    }

    fn check(&mut self, out: Vec<Action>) {
        for action in out {
            assert!(!self.is_closed, "something after the close");
            match action {
                Action::Forward { request_id, .. } | Action::Ask { request_id, .. } => {
                    assert_ne!(request_id, 0);
                    assert!(self.unanswered.insert(request_id), "{request_id} goes on while it is unanswered");
                    self.asked.push(request_id);
                }
                Action::Write(frame) => self.written(&frame),
                // In time, or refused before it went on.
                Action::Refuse { request_id, frame, .. } => {
                    assert_eq!(answer(&frame).request_id, request_id);
                    self.unanswered.remove(&request_id);
                }
                Action::Close { .. } | Action::Left { .. } | Action::Refused { .. } => self.is_closed = true,
                Action::SignIn(_) | Action::Heartbeat => {}
            }
        }
        let pending = self.session.pending_requests();
        assert!(pending <= PENDING_WRITES_MAX + PENDING_READS_MAX);
        assert!(self.is_closed || pending == self.unanswered.len());
        assert_eq!(self.is_closed, self.session.is_closing());
        let held_bytes = self.session.held_bytes();
        assert!(held_bytes <= self.received_bytes);
        assert!(held_bytes <= SessionLimits::default().frame_bytes_max as usize + self.piece_bytes);
        assert!(self.is_closed || self.is_paused || self.session.deadline_ms().is_some());
    }
}

fn answer(frame: &[u8]) -> ServerFrame {
    ServerFrame::decode_length_delimited(frame).expect("a frame")
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
