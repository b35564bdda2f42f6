//! Commands that write conversations, in order, until each has its final answer: go-back-N.
//!
//! In: sends and group commands of the app, acks, errors, the end of a connection. Out: commands on the wire and what became
//! of each. Always: what the app asks of one conversation is written in that order, each command naming in `after` the one
//! before it that has no final answer at that moment: one chain, with no command left out of it. After anything but a final
//! answer, everything from that command on is written again, in order. At most `pending_sends_max` attempts of a connection
//! are unanswered. Only an ack and `FINAL` end a command.

use crate::backoff::REPEAT;
use crate::event::{Event, Full, Refusal};
use crate::wire::Wire;
use crate::write::QueuedWrite;
use im_proto::client::{self, ErrorClass, ErrorCode};
use im_proto::{ClientId, LogId};
use rand::rngs::SmallRng;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Until `SignedIn` names it.
const PENDING_SENDS_FALLBACK: usize = 32;

#[derive(Debug)]
pub(crate) struct Outbox {
    lanes: HashMap<LogId, Lane>,
    /// Lanes with something to write, each once.
    ready: VecDeque<LogId>,
    /// Lanes that wait before they repeat, by time.
    held: BTreeSet<(u64, LogId)>,
    /// The server was `BUSY`: nothing is sent before.
    paused_until_ms: u64,
    /// Attempts of this connection without any answer; also those that were given up here, for the server counts them too.
    attempts_pending: usize,
    attempts_max: usize,
    writes: usize,
    writes_max: usize,
}

/// The commands of one conversation.
#[derive(Debug, Default)]
struct Lane {
    attempts: VecDeque<Attempt>,
    /// So many from the front are written and not given up.
    written: usize,
    failures: u32,
    place: Place,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Resting,
    Ready,
    Held {
        until_ms: u64,
    },
}

#[derive(Debug)]
struct Attempt {
    write: QueuedWrite,
    /// Of the latest attempt. 0: not written, or given up.
    request_id: u64,
}

impl Outbox {
    pub fn new(writes_max: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held: BTreeSet::new(),
            paused_until_ms: 0,
            attempts_pending: 0,
            attempts_max: PENDING_SENDS_FALLBACK,
            writes: 0,
            writes_max,
        }
    }

    pub fn add(&mut self, conversation: LogId, write: QueuedWrite) -> Result<(), Full> {
        if self.writes >= self.writes_max {
            return Err(Full);
        }
        self.restore(conversation, write);
        Ok(())
    }

    /// Like `add`, without its bound: what an earlier run had accepted is kept.
    pub fn restore(&mut self, conversation: LogId, write: QueuedWrite) {
        self.writes += 1;
        let lane = self.lanes.entry(conversation.clone()).or_default();
        lane.attempts.push_back(Attempt { write, request_id: 0 });
        if lane.place == Place::Resting {
            lane.place = Place::Ready;
            self.ready.push_back(conversation);
        }
    }

    /// What has no final answer, per conversation in its order.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, &QueuedWrite)> {
        self.lanes
            .iter()
            .flat_map(|(conversation, lane)| lane.attempts.iter().map(move |one| (conversation, &one.write)))
    }

    /// A new connection: everything is to be written again.
    pub fn restart(&mut self) {
        self.paused_until_ms = 0;
        self.attempts_pending = 0;
        self.held.clear();
        self.ready.clear();
        for (conversation, lane) in &mut self.lanes {
            lane.go_back(0);
            lane.failures = 0;
            lane.place = Place::Ready;
            self.ready.push_back(conversation.clone());
        }
    }

    pub fn set_pending_max(&mut self, pending_sends_max: u32) {
        if pending_sends_max > 0 {
            self.attempts_max = pending_sends_max as usize;
        }
    }

    /// Writes what may be written now, one command per conversation in turn.
    pub fn write(&mut self, wire: &mut Wire, events: &mut VecDeque<Event>, now_ms: u64) {
        if now_ms < self.paused_until_ms {
            return;
        }
        while self.attempts_pending < self.attempts_max {
            let Some(conversation) = self.ready.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&conversation) else { continue };
            match lane.write_next(&conversation, wire, now_ms) {
                Some(Written::Sent) => self.attempts_pending += 1,
                Some(Written::TooLarge(write)) => {
                    self.writes -= 1;
                    events.push_back(write.refused(conversation.clone(), too_large()));
                }
                None => {}
            }
            if lane.written < lane.attempts.len() {
                self.ready.push_back(conversation);
            } else {
                lane.place = Place::Resting;
                if lane.attempts.is_empty() {
                    self.lanes.remove(&conversation);
                }
            }
        }
    }

    /// The command is stored, whichever attempt the ack answers. `None`: it was known already.
    pub fn acked(&mut self, conversation: &LogId, id: &ClientId) -> Option<QueuedWrite> {
        self.attempts_pending = self.attempts_pending.saturating_sub(1);
        let lane = self.lanes.get_mut(conversation)?;
        let index = lane.attempts.iter().position(|attempt| attempt.write.id == *id)?;
        self.remove(conversation, index)
    }

    /// An error answered attempt `request_id`. An error to an attempt that was given up says nothing about the command.
    pub fn failed(
        &mut self,
        conversation: LogId,
        request_id: u64,
        error: client::Error,
        now_ms: u64,
        rng: &mut SmallRng,
    ) -> Option<Event> {
        self.attempts_pending = self.attempts_pending.saturating_sub(1);
        let lane = self.lanes.get_mut(&conversation)?;
        let index = lane.attempts.iter().position(|attempt| attempt.request_id == request_id)?;
        if error.class() == ErrorClass::Final {
            let write = self.remove(&conversation, index)?;
            return Some(write.refused(conversation, error.into()));
        }
        let delay_ms = REPEAT.delay_ms(lane.failures, error.retry_after_ms, rng);
        if error.class() == ErrorClass::Busy {
            self.paused_until_ms = self.paused_until_ms.max(now_ms + u64::from(error.retry_after_ms));
        }
        lane.failures += 1;
        lane.go_back(index);
        let until_ms = match lane.place {
            // An earlier command of the lane failed too, while a later one already waits: the longer wait counts.
            Place::Held { until_ms } => {
                self.held.remove(&(until_ms, conversation.clone()));
                until_ms.max(now_ms + delay_ms)
            }
            Place::Ready => {
                self.ready.retain(|ready| *ready != conversation);
                now_ms + delay_ms
            }
            Place::Resting => now_ms + delay_ms,
        };
        lane.place = Place::Held { until_ms };
        self.held.insert((until_ms, conversation));
        None
    }

    /// Lets go the lanes whose wait is over.
    pub fn release(&mut self, now_ms: u64) {
        while self.held.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            let Some((_, conversation)) = self.held.pop_first() else { return };
            if let Some(lane) = self.lanes.get_mut(&conversation) {
                lane.place = Place::Ready;
                self.ready.push_back(conversation);
            }
        }
    }

    pub fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let paused = (self.paused_until_ms > now_ms && !self.ready.is_empty()).then_some(self.paused_until_ms);
        let held = self.held.first().map(|(until_ms, _)| *until_ms);
        paused.into_iter().chain(held).min()
    }

    fn remove(&mut self, conversation: &LogId, index: usize) -> Option<QueuedWrite> {
        let lane = self.lanes.get_mut(conversation)?;
        let attempt = lane.attempts.remove(index)?;
        self.writes -= 1;
        lane.failures = 0;
        if index < lane.written {
            lane.written -= 1;
        }
        if lane.attempts.is_empty() && lane.place == Place::Resting {
            self.lanes.remove(conversation);
        }
        Some(attempt.write)
    }
}

enum Written {
    Sent,
    TooLarge(QueuedWrite),
}

impl Lane {
    fn write_next(&mut self, conversation: &LogId, wire: &mut Wire, now_ms: u64) -> Option<Written> {
        let before = self.written.checked_sub(1).and_then(|before| self.attempts.get(before));
        let after = before.map(|before| String::from(&before.write.id)).unwrap_or_default();
        let attempt = self.attempts.get_mut(self.written)?;
        match wire.ask(attempt.write.asked(conversation), attempt.write.command(after), now_ms) {
            Ok(request_id) => {
                attempt.request_id = request_id;
                self.written += 1;
                Some(Written::Sent)
            }
            Err(_) => self.attempts.remove(self.written).map(|attempt| Written::TooLarge(attempt.write)),
        }
    }

    /// Gives up the attempts from `index` on.
    fn go_back(&mut self, index: usize) {
        for attempt in self.attempts.range_mut(index.min(self.written)..self.written) {
            attempt.request_id = 0;
        }
        self.written = self.written.min(index);
    }
}

pub(crate) fn too_large() -> Refusal {
    Refusal { code: ErrorCode::TooLarge, detail: "larger than the server's frame limit".to_owned() }
}
