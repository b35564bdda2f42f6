//! What moved while this device was away: asked before anything live is applied.
//!
//! In: sign-ins, sync hints, pages. Out: `Sync` commands, states for the app, heads for `gaps`. Always: pushes that come
//! while a sync is unanswered are applied after its last page; of more than [`HELD_PUSHES_MAX`] the head alone is kept, and
//! the entries are pulled.

use crate::backoff::REPEAT;
use crate::event::Event;
use crate::gaps::Gaps;
use crate::wire::{Asked, Wire};
use bytes::Bytes;
use im_proto::client::{self, client_frame};
use im_proto::{LogId, Ordinal, Seq};
use rand::rngs::SmallRng;
use std::collections::VecDeque;

const HELD_PUSHES_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Sync {
    token: Bytes,
    /// No sync without a token has been complete yet.
    beginning: bool,
    step: Step,
    attempts: u64,
    /// A hint or wish that came while a sync was underway: at least this version is wanted. 0: whatever there is.
    wanted: Option<u64>,
    /// The last complete answer covers everything up to here.
    covered: u64,
    /// `Synced` is still to be told to the app.
    announce: bool,
    failures: u32,
    held: VecDeque<(LogId, client::Entry)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Live,
    Due,
    Asked { attempt: u64 },
    Later { until_ms: u64 },
}

impl Sync {
    /// Goes on from a stored token; empty: from the beginning.
    pub fn new(token: Bytes) -> Self {
        Self {
            beginning: token.is_empty(),
            token,
            step: Step::Live,
            attempts: 0,
            wanted: None,
            covered: 0,
            announce: false,
            failures: 0,
            held: VecDeque::new(),
        }
    }

    pub fn token(&self) -> &Bytes {
        &self.token
    }

    /// A new connection: sync before live.
    pub fn restart(&mut self) {
        self.step = Step::Due;
        self.wanted = None;
        self.failures = 0;
        self.covered = 0;
        self.held.clear();
    }

    /// The cursors are void: from the beginning.
    pub fn forget(&mut self) {
        *self = Self { attempts: self.attempts, ..Self::new(Bytes::new()) };
        self.restart();
    }

    /// The server told of version `version` (0: not known), or the app asks (0).
    pub fn hint(&mut self, version: u64) {
        if version != 0 && version <= self.covered {
            return;
        }
        if self.step == Step::Live {
            self.step = Step::Due;
        } else {
            self.wanted = self.wanted.max(Some(version));
        }
    }

    pub fn write(&mut self, wire: &mut Wire, now_ms: u64) {
        if self.step == Step::Due {
            let sync = client::Sync { token: self.token.clone(), limit: 0 };
            self.attempts += 1;
            let attempt = self.attempts;
            if wire.ask(Asked::Sync(attempt), client_frame::Command::Sync(sync), now_ms).is_ok() {
                self.step = Step::Asked { attempt };
            }
        }
    }

    /// Returns the entry if it may be applied now.
    pub fn admit(&mut self, log: LogId, entry: client::Entry, gaps: &mut Gaps) -> Option<(LogId, client::Entry)> {
        if self.step == Step::Live {
            return Some((log, entry));
        }
        if self.held.len() < HELD_PUSHES_MAX {
            self.held.push_back((log, entry));
        } else {
            gaps.saw_head(log, Seq(entry.seq));
        }
        None
    }

    /// An entry of which this device knows the place alone: it is pulled; during a sync, whatever the next one tells.
    pub fn admit_seq(&mut self, log: LogId, seq: Seq, gaps: &mut Gaps) {
        match self.step {
            Step::Live => gaps.saw_head(log, seq),
            _ => self.hint(0),
        }
    }

    /// False for an attempt that was given up.
    pub fn expects(&self, attempt: u64) -> bool {
        self.step == Step::Asked { attempt }
    }

    /// One page. `from_now`: what exists at the first sync of all begins behind its head.
    pub fn page(
        &mut self,
        synced: client::Synced,
        user_log: &LogId,
        from_now: bool,
        gaps: &mut Gaps,
        events: &mut VecDeque<Event>,
    ) {
        let from_now = from_now && self.beginning;
        for state in synced.conversations {
            let Ok(log) = LogId::parse(&state.conversation_id) else { continue };
            if from_now && !gaps.knows(&log) {
                gaps.begin(log.clone(), Seq(state.head_seq), Ordinal(state.head_ordinal));
            }
            gaps.saw_head(log.clone(), Seq(state.head_seq));
            gaps.saw_peer(&log, &state.peer_user_id);
            events.push_back(Event::ConversationState(state));
        }
        for entry in synced.user_entries {
            // Without a cursor of our own the token is one: its next entry is the first here.
            if !gaps.knows(user_log) {
                gaps.begin(user_log.clone(), Seq(entry.seq.saturating_sub(1)), Ordinal(0));
            }
            gaps.apply(user_log.clone(), entry, events);
        }
        self.token = synced.token;
        self.failures = 0;
        self.step = Step::Due;
        if synced.complete {
            self.covered = synced.inbox_version;
            gaps.cover(user_log.clone(), Seq(synced.user_log_seq), events);
            self.complete(gaps, events);
        }
    }

    /// No answer of use: none, a repeatable error, or a refusal other than `RESET`, which asking at once would only repeat.
    pub fn failed(&mut self, retry_after_ms: u32, now_ms: u64, rng: &mut SmallRng) {
        let until_ms = now_ms + REPEAT.delay_ms(self.failures, retry_after_ms, rng);
        self.failures += 1;
        self.step = Step::Later { until_ms };
    }

    pub fn release(&mut self, now_ms: u64) {
        if matches!(self.step, Step::Later { until_ms } if until_ms <= now_ms) {
            self.step = Step::Due;
        }
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        match self.step {
            Step::Later { until_ms } => Some(until_ms),
            Step::Live | Step::Due | Step::Asked { .. } => None,
        }
    }

    /// True once per sync, when its entries have been handed over.
    pub fn is_finished(&mut self, gaps: &Gaps) -> bool {
        self.step == Step::Live && self.announce && gaps.is_caught_up() && std::mem::take(&mut self.announce)
    }

    fn complete(&mut self, gaps: &mut Gaps, events: &mut VecDeque<Event>) {
        self.step = Step::Live;
        self.beginning = false;
        self.announce = true;
        for (log, entry) in std::mem::take(&mut self.held) {
            gaps.apply(log, entry, events);
        }
        if let Some(version) = self.wanted.take() {
            self.hint(version);
        }
    }
}
