//! Bytes of a hostile client, cut by its own script, against the deframer and the session.
//!
//! In: two bytes of script per step (what happens, and how many bytes it takes), then the stream. Out: nothing. Always: no
//! panic; what is held is never more than was received and the limits; every command is answered at most once; after a
//! close nothing more happens.
#![no_main]

use bytes::Bytes;
use im_codec::given::Move;
use im_codec::limits::{PENDING_READS_MAX, PENDING_WRITES_MAX};
use im_codec::session::Told;
use im_codec::{Action, Login, Session, SessionLimits};
use im_proto::client::kicked::Reason;
use im_proto::{DeviceId, Epoch, Generation, InboxVersion, UserId};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const STEPS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((&steps, rest)) = data.split_first() else { return };
    let steps = usize::from(steps) % STEPS_MAX;
    let Some((script, mut stream)) = rest.split_at_checked(steps * 2) else { return };
    let mut run = Run {
        session: Session::new(Arc::new(SessionLimits::default()), 0),
        now_ms: 0,
        open: Vec::new(),
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
    open: Vec<u64>,
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
                if let Some(id) = self.open.pop() {
                    let step =
                        Move { previous: InboxVersion(u64::from(size)), version: InboxVersion(u64::from(size) + 1) };
                    self.session.answered(id, Bytes::from_static(&[0]), Told::Move(step), self.now_ms, &mut out);
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
            self.session.receive(Bytes::copy_from_slice(bytes), self.now_ms, &mut out);
            self.check(out);
        }
    }

    fn check(&mut self, out: Vec<Action>) {
        for action in out {
            assert!(!self.is_closed, "something after the close");
            match action {
                Action::Forward { request_id, .. } | Action::Ask { request_id, .. } => {
                    assert_ne!(request_id, 0);
                    self.open.push(request_id);
                }
                Action::Close { .. } | Action::Left { .. } | Action::Refused { .. } => self.is_closed = true,
                Action::Write(_) | Action::Refuse { .. } | Action::SignIn(_) | Action::Heartbeat => {}
            }
        }
        assert!(self.session.pending_requests() <= PENDING_WRITES_MAX + PENDING_READS_MAX);
        assert_eq!(self.is_closed, self.session.is_closing());
        assert!(self.is_closed || self.is_paused || self.session.deadline_ms().is_some());
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
