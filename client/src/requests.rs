//! Commands that write no conversation: each is repeated with the same id until its final answer, in no order.
//!
//! In: commands of the app, answers, errors, the end of a connection. Out: commands on the wire. Always: a command is
//! written again unchanged, so the server can tell a repetition; at most `requests_max` wait.

use crate::backoff::REPEAT;
use crate::event::{Event, Full, Ticket};
use crate::outbox::too_large;
use crate::wire::{Asked, Wire};
use im_proto::client::client_frame;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(crate) struct Requests {
    /// By ticket: in the order they were asked.
    waiting: BTreeMap<Ticket, Request>,
    unwritten: VecDeque<Ticket>,
    later: BTreeSet<(u64, Ticket)>,
    requests_max: usize,
}

#[derive(Debug)]
struct Request {
    command: client_frame::Command,
    failures: u32,
}

impl Requests {
    pub fn new(requests_max: usize) -> Self {
        Self { waiting: BTreeMap::new(), unwritten: VecDeque::new(), later: BTreeSet::new(), requests_max }
    }

    pub fn add(&mut self, ticket: Ticket, command: client_frame::Command) -> Result<(), Full> {
        if self.waiting.len() >= self.requests_max {
            return Err(Full);
        }
        self.waiting.insert(ticket, Request { command, failures: 0 });
        self.unwritten.push_back(ticket);
        Ok(())
    }

    /// A new connection: everything is written again, in the order it was asked.
    pub fn restart(&mut self) {
        self.later.clear();
        self.unwritten = self.waiting.keys().copied().collect();
    }

    pub fn write(&mut self, epoch: u64, wire: &mut Wire, events: &mut VecDeque<Event>, now_ms: u64) {
        while let Some(ticket) = self.unwritten.pop_front() {
            let Some(request) = self.waiting.get_mut(&ticket) else { continue };
            name_epoch(&mut request.command, epoch);
            if wire.ask(Asked::Request(ticket), request.command.clone(), now_ms).is_err() {
                self.waiting.remove(&ticket);
                events.push_back(Event::RequestRefused { ticket, refusal: too_large() });
            }
        }
    }

    /// A final answer came. False: it was known already.
    pub fn done(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// No final answer.
    pub fn failed(&mut self, ticket: Ticket, retry_after_ms: u32, now_ms: u64, rng: &mut SmallRng) {
        if let Some(request) = self.waiting.get_mut(&ticket) {
            let delay_ms = REPEAT.delay_ms(request.failures, retry_after_ms, rng);
            request.failures += 1;
            self.later.insert((now_ms + delay_ms, ticket));
        }
    }

    pub fn release(&mut self, now_ms: u64) {
        while self.later.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            let Some((_, ticket)) = self.later.pop_first() else { return };
            self.unwritten.push_back(ticket);
        }
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.later.first().map(|(until_ms, _)| *until_ms)
    }
}

/// A cursor belongs to the epoch it was made in: the one known when the command is first written.
fn name_epoch(command: &mut client_frame::Command, epoch: u64) {
    let named = match command {
        client_frame::Command::MarkRead(mark_read) => &mut mark_read.epoch,
        client_frame::Command::Pull(pull) => &mut pull.epoch,
        _ => return,
    };
    if *named == 0 {
        *named = epoch;
    }
}
