//! Sends, in order, until each has its final answer: go-back-N.
//!
//! In: sends of the app, acks, errors, the end of a connection. Out: `Send` commands on the wire and what became of each.
//! Always: a conversation's sends are written in their order, each naming in `after` the one before it that has no final
//! answer at that moment; after anything but a final answer, everything from that send on is written again, in order. At
//! most `pending_sends_max` attempts of a connection are unanswered. Only `SendAck` and `FINAL` end a send.

use crate::backoff::REPEAT;
use crate::event::{Event, Full, Recipient, Refusal, Ticket};
use crate::requests::Requests;
use crate::wire::{Asked, Wire};
use bytes::Bytes;
use im_proto::client::{self, ErrorClass, ErrorCode, client_frame, send};
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
    sends: usize,
    sends_max: usize,
}

/// The sends of one conversation.
#[derive(Debug, Default)]
struct Lane {
    sends: VecDeque<QueuedSend>,
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

pub(crate) struct QueuedSend {
    pub ticket: Ticket,
    pub to: Recipient,
    pub client_message_id: ClientId,
    pub body: Bytes,
    /// Of the latest attempt. 0: not written, or given up.
    request_id: u64,
}

impl std::fmt::Debug for QueuedSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueuedSend({}, {} bytes)", self.client_message_id, self.body.len())
    }
}

impl QueuedSend {
    pub fn new(ticket: Ticket, to: Recipient, client_message_id: ClientId, body: Bytes) -> Self {
        Self { ticket, to, client_message_id, body, request_id: 0 }
    }
}

impl Outbox {
    pub fn new(sends_max: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held: BTreeSet::new(),
            paused_until_ms: 0,
            attempts_pending: 0,
            attempts_max: PENDING_SENDS_FALLBACK,
            sends: 0,
            sends_max,
        }
    }

    pub fn add(&mut self, conversation: LogId, send: QueuedSend) -> Result<(), Full> {
        if self.sends >= self.sends_max {
            return Err(Full);
        }
        self.restore(conversation, send);
        Ok(())
    }

    /// Like `add`, without its bound: what an earlier run had accepted is kept.
    pub fn restore(&mut self, conversation: LogId, send: QueuedSend) {
        self.sends += 1;
        let lane = self.lanes.entry(conversation.clone()).or_default();
        lane.sends.push_back(send);
        if lane.place == Place::Resting {
            lane.place = Place::Ready;
            self.ready.push_back(conversation);
        }
    }

    /// The sends without a final answer, per conversation in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, &QueuedSend)> {
        self.lanes.iter().flat_map(|(conversation, lane)| lane.sends.iter().map(move |send| (conversation, send)))
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

    /// Writes what may be written now, one send per conversation in turn.
    pub fn write(&mut self, requests: &Requests, wire: &mut Wire, events: &mut VecDeque<Event>, now_ms: u64) {
        if now_ms < self.paused_until_ms {
            return;
        }
        while self.attempts_pending < self.attempts_max {
            let Some(conversation) = self.ready.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&conversation) else { continue };
            match lane.write_next(&conversation, requests, wire, now_ms) {
                Some(Written::Sent) => self.attempts_pending += 1,
                Some(Written::TooLarge(send)) => {
                    self.sends -= 1;
                    events.push_back(refused(conversation.clone(), send, too_large()));
                }
                None => {}
            }
            if lane.written < lane.sends.len() {
                self.ready.push_back(conversation);
            } else {
                lane.place = Place::Resting;
                if lane.sends.is_empty() {
                    self.lanes.remove(&conversation);
                }
            }
        }
    }

    /// The send is stored, whichever attempt the ack answers. `None`: it was known already.
    pub fn acked(&mut self, conversation: &LogId, id: &ClientId) -> Option<QueuedSend> {
        self.attempts_pending = self.attempts_pending.saturating_sub(1);
        let lane = self.lanes.get_mut(conversation)?;
        let index = lane.sends.iter().position(|send| send.client_message_id == *id)?;
        self.remove(conversation, index)
    }

    /// An error answered attempt `request_id`. An error to an attempt that was given up says nothing about the send.
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
        let index = lane.sends.iter().position(|send| send.request_id == request_id)?;
        if error.class() == ErrorClass::Final {
            let send = self.remove(&conversation, index)?;
            return Some(refused(conversation, send, error.into()));
        }
        let delay_ms = REPEAT.delay_ms(lane.failures, error.retry_after_ms, rng);
        if error.class() == ErrorClass::Busy {
            self.paused_until_ms = self.paused_until_ms.max(now_ms + u64::from(error.retry_after_ms));
        }
        lane.failures += 1;
        lane.go_back(index);
        let until_ms = match lane.place {
            // An earlier send of the lane failed too, while a later one already waits: the longer wait counts.
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

    fn remove(&mut self, conversation: &LogId, index: usize) -> Option<QueuedSend> {
        let lane = self.lanes.get_mut(conversation)?;
        let send = lane.sends.remove(index)?;
        self.sends -= 1;
        lane.failures = 0;
        if index < lane.written {
            lane.written -= 1;
        }
        if lane.sends.is_empty() && lane.place == Place::Resting {
            self.lanes.remove(conversation);
        }
        Some(send)
    }
}

enum Written {
    Sent,
    TooLarge(QueuedSend),
}

impl Lane {
    fn write_next(
        &mut self,
        conversation: &LogId,
        requests: &Requests,
        wire: &mut Wire,
        now_ms: u64,
    ) -> Option<Written> {
        let after = self.after(conversation, requests);
        let send = self.sends.get_mut(self.written)?;
        let to = match &send.to {
            Recipient::User(user) => send::To::UserId(user.into()),
            Recipient::Conversation(conversation) => send::To::ConversationId(conversation.into()),
        };
        let client_message_id = String::from(&send.client_message_id);
        let command = client::Send { client_message_id, after, body: send.body.clone(), to: Some(to) };
        let asked =
            Asked::Send { conversation: conversation.clone(), client_message_id: send.client_message_id.clone() };
        match wire.ask(asked, client_frame::Command::Send(command), now_ms) {
            Ok(request_id) => {
                send.request_id = request_id;
                self.written += 1;
                Some(Written::Sent)
            }
            Err(_) => self.sends.remove(self.written).map(Written::TooLarge),
        }
    }

    /// The id of the command before the next send that has no final answer: a send, or a command to the group.
    fn after(&self, conversation: &LogId, requests: &Requests) -> String {
        let Some(next) = self.sends.get(self.written) else { return String::new() };
        let before = self.written.checked_sub(1).and_then(|before| self.sends.get(before));
        match (before, requests.last_before(next.ticket, conversation)) {
            (Some(send), Some((ticket, _))) if ticket < send.ticket => (&send.client_message_id).into(),
            (_, Some((_, command_id))) => command_id.to_owned(),
            (Some(send), None) => (&send.client_message_id).into(),
            (None, None) => String::new(),
        }
    }

    /// Gives up the attempts from `index` on.
    fn go_back(&mut self, index: usize) {
        for send in self.sends.range_mut(index.min(self.written)..self.written) {
            send.request_id = 0;
        }
        self.written = self.written.min(index);
    }
}

fn refused(conversation: LogId, send: QueuedSend, refusal: Refusal) -> Event {
    Event::Refused { ticket: send.ticket, conversation, client_message_id: send.client_message_id, refusal }
}

pub(crate) fn too_large() -> Refusal {
    Refusal { code: ErrorCode::TooLarge, detail: "larger than the server's frame limit".to_owned() }
}
