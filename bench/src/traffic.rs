//! Messages on the fleet: sends them at a rate or with so many under way, and has every one verified.
//!
//! In: streams (one sender, one or more receivers each), a model of load. Out: counts, latencies, violations. Always:
//! a message's latency runs from the moment it was due, so a server that stalls is not spared; each connection belongs
//! to one stream, as its sender or as one of its receivers.

use crate::clock::Clock;
use crate::in_flight::InFlight;
use crate::link::{Link, Observer, RawPush};
use crate::measure::Counts;
use crate::payload::Payload;
use crate::verify::{Arrival, Receiver, Sender, Violation, Violations};
use im_client::{Command, Event, Recipient};
use im_proto::client::{Entry, entry};
use im_proto::{ClientId, LogId};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How often a rate is caught up with; the clock of the event loop is no finer.
const RATE_INTERVAL: Duration = Duration::from_millis(1);

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub enum Model {
    /// A message is sent when fewer than so many of its stream are under way.
    Outstanding(u64),
    /// So many messages a second of all streams together, whatever the server does.
    Rate(f64),
}

/// Of a whole run, warm-up and drain included.
#[derive(Debug, Default)]
pub struct Totals {
    pub answered: u64,
    pub pushed: u64,
    pub repaired: u64,
    /// Commands that the client had to repeat: the server was busy, or answered nothing in time.
    pub repeated: u64,
}

/// One sender and its receivers, by the serials of their connections.
pub struct Stream {
    pub to: Recipient,
    pub conversation: LogId,
    pub sender: usize,
    pub receivers: Vec<usize>,
}

/// What a connection does.
enum Role {
    Sends { stream: usize },
    Receives { stream: usize, receiver: RefCell<Receiver> },
}

struct Running {
    stream: Stream,
    sender: RefCell<Sender>,
    in_flight: RefCell<InFlight>,
}

pub struct Traffic {
    clock: Clock,
    payload_bytes: usize,
    pub counts: Counts,
    pub violations: RefCell<Violations>,
    sending: Cell<Option<Model>>,
    plan: OnceCell<Plan>,
}

/// Set once, when the streams are known.
struct Plan {
    links: Vec<Rc<Link>>,
    streams: Vec<Running>,
    /// By connection.
    roles: Vec<Option<Role>>,
}

impl Traffic {
    pub fn new(clock: Clock, counts: Counts, payload_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            clock,
            payload_bytes,
            counts,
            violations: RefCell::default(),
            sending: Cell::new(None),
            plan: OnceCell::new(),
        })
    }

    /// Begins to send. Called once.
    pub fn start(self: &Rc<Self>, links: &[Rc<Link>], streams: Vec<Stream>, model: Model) {
        let mut roles: Vec<Option<Role>> = links.iter().map(|_| None).collect();
        for (index, stream) in streams.iter().enumerate() {
            roles[stream.sender] = Some(Role::Sends { stream: index });
            links[stream.sender].watch(&stream.conversation);
            for receiver in &stream.receivers {
                let verifier = RefCell::new(Receiver::new(index as u32, *receiver as u32));
                roles[*receiver] = Some(Role::Receives { stream: index, receiver: verifier });
                links[*receiver].watch(&stream.conversation);
            }
        }
        let streams = streams
            .into_iter()
            .enumerate()
            .map(|(index, stream)| Running {
                sender: RefCell::new(Sender::new(index as u32)),
                in_flight: RefCell::new(InFlight::new(stream.receivers.len())),
                stream,
            })
            .collect();
        let plan = self.plan.get_or_init(|| Plan { links: links.to_vec(), streams, roles });
        self.sending.set(Some(model));
        match model {
            Model::Outstanding(_) => (0..plan.streams.len()).for_each(|stream| self.fill(plan, stream)),
            Model::Rate(per_second) => drop(monoio::spawn(Rc::clone(self).keep_rate(per_second))),
        }
    }

    pub fn stop(&self) {
        self.sending.set(None);
    }

    /// Messages under way.
    pub fn in_flight(&self) -> usize {
        let Some(plan) = self.plan.get() else { return 0 };
        plan.streams.iter().map(|running| running.in_flight.borrow().len()).sum()
    }

    /// Judges what never came, and what came unasked.
    pub fn finish(&self) -> Totals {
        let mut totals = Totals::default();
        let Some(plan) = self.plan.get() else { return totals };
        let mut found = self.violations.borrow_mut();
        for link in &plan.links {
            let counters = link.counters();
            totals.repeated += counters.repeatable_errors;
            // An attempt that was told UNKNOWN may get its true answer later.
            if counters.answers_unasked > counters.repeatable_errors {
                let place = format_args!("connection {}: {} answers too many", link.serial, counters.answers_unasked);
                found.add(Violation::AnsweredTwice, place);
            }
        }
        for running in &plan.streams {
            let sender = running.sender.borrow();
            sender.finish(&mut found);
            totals.answered += sender.answered_count();
            for receiver in &running.stream.receivers {
                let Some(Role::Receives { receiver, .. }) = &plan.roles[*receiver] else { continue };
                let receiver = receiver.borrow();
                receiver.finish(&sender, &mut found);
                totals.pushed += receiver.pushed;
                totals.repaired += receiver.repaired;
            }
        }
        totals
    }

    async fn keep_rate(self: Rc<Self>, per_second: f64) {
        let Some(plan) = self.plan.get() else { return };
        let mut pace = Pace { start_ns: self.clock.now_ns(), interval_ns: 1e9 / per_second, sent: 0 };
        while self.sending.get().is_some() {
            while let Some(due_ns) = pace.due(self.clock.now_ns()) {
                if !self.send(plan, pace.sent as usize % plan.streams.len(), due_ns) {
                    // The client's outbox is full. The message stays due, and its latency grows.
                    break;
                }
                pace.sent += 1;
            }
            monoio::time::sleep(RATE_INTERVAL).await;
        }
    }

    /// Sends as many as the model allows.
    fn fill(&self, plan: &Plan, stream: usize) {
        let Some(Model::Outstanding(outstanding)) = self.sending.get() else { return };
        let under_way = plan.streams[stream].in_flight.borrow().len() as u64;
        let now_ns = self.clock.now_ns();
        for _ in under_way..outstanding {
            self.send(plan, stream, now_ns);
        }
    }

    /// False: the client takes no more for now.
    fn send(&self, plan: &Plan, stream: usize, due_ns: u64) -> bool {
        let running = &plan.streams[stream];
        let serial = running.sender.borrow().next_serial();
        let payload = Payload { stream: stream as u32, serial, due_ns };
        let Ok(id) = ClientId::parse(&serial.to_string()) else { return false };
        let command = Command::Send {
            to: running.stream.to.clone(),
            client_message_id: Some(id),
            body: payload.body(self.payload_bytes),
        };
        let accepted = plan.links[running.stream.sender].command(command).is_ok();
        if accepted {
            running.sender.borrow_mut().sent();
            running.in_flight.borrow_mut().sent(due_ns);
        }
        accepted
    }

    fn arrived(&self, link: &Link, seq: u64, payload: Option<Payload>, arrival: Arrival, now_ns: u64) {
        let Some(plan) = self.plan.get() else { return };
        let mut found = self.violations.borrow_mut();
        let role = &plan.roles[link.serial];
        let Some(Role::Receives { stream, receiver }) = role else {
            let is_own =
                |payload: Payload| matches!(role, Some(Role::Sends { stream }) if *stream == payload.stream as usize);
            let violation = if payload.is_some_and(is_own) { Violation::PushedBack } else { Violation::WrongReceiver };
            found.add(violation, format_args!("connection {}, seq {seq}", link.serial));
            return;
        };
        let first_time = receiver.borrow_mut().arrived(seq, payload, arrival, &mut found);
        if let (true, Some(payload)) = (first_time, payload) {
            self.counts.delivered(latency(payload.due_ns, now_ns));
            plan.streams[*stream].in_flight.borrow_mut().step(payload.serial);
        }
    }

    /// The core hands over an entry: one that was pushed and told already, or one that it pulled.
    fn handed_over(&self, link: &Link, entry: Entry, now_ns: u64) {
        let role = self.plan.get().and_then(|plan| plan.roles[link.serial].as_ref());
        let (Some(Role::Receives { receiver, .. }), Some(entry::Content::Message(message))) = (role, entry.content)
        else {
            return;
        };
        let is_known = receiver.borrow().has_seq(entry.seq);
        if !is_known {
            self.arrived(link, entry.seq, Payload::parse(message.body), Arrival::Repaired, now_ns);
        }
    }

    /// The sender's message has its answer.
    fn answered(&self, link: &Link, id: &ClientId, seq: u64, now_ns: u64) {
        let Some((plan, stream)) = self.stream_of(link) else { return };
        let running = &plan.streams[stream];
        let Ok(serial) = id.as_str().parse() else { return };
        running.sender.borrow_mut().answered(serial, seq, &mut self.violations.borrow_mut());
        if let Some(due_ns) = running.in_flight.borrow_mut().step(serial) {
            self.counts.answered(latency(due_ns, now_ns));
        }
    }

    fn stream_of(&self, link: &Link) -> Option<(&Plan, usize)> {
        let plan = self.plan.get()?;
        match plan.roles.get(link.serial)?.as_ref()? {
            Role::Sends { stream } | Role::Receives { stream, .. } => Some((plan, *stream)),
        }
    }
}

impl Observer for Traffic {
    fn pushed(&self, link: &Link, push: RawPush, now_ns: u64) {
        self.arrived(link, push.seq, Payload::parse(push.body), Arrival::Pushed, now_ns);
    }

    fn event(&self, link: &Link, event: Event, now_ns: u64) {
        match event {
            Event::Acked { client_message_id, seq, .. } => self.answered(link, &client_message_id, seq.0, now_ns),
            Event::Entry { entry, .. } => self.handed_over(link, entry, now_ns),
            Event::Refused { refusal, client_message_id, .. } => {
                let place = format_args!("connection {}, message {client_message_id}: {refusal}", link.serial);
                self.violations.borrow_mut().add(Violation::Refused, place);
            }
            Event::Disconnected { cause, .. } => {
                let place = format_args!("connection {}: {cause:?}", link.serial);
                self.violations.borrow_mut().add(Violation::Disconnected, place);
            }
            _ => {}
        }
    }

    fn settled(&self, link: &Link) {
        if let Some((plan, stream)) = self.stream_of(link) {
            self.fill(plan, stream);
        }
    }
}

/// Messages at a rate: the first is due at the start.
struct Pace {
    start_ns: u64,
    interval_ns: f64,
    sent: u64,
}

impl Pace {
    /// When the next message was due, if it is.
    fn due(&self, now_ns: u64) -> Option<u64> {
        let due_ns = self.start_ns + (self.sent as f64 * self.interval_ns) as u64;
        (due_ns <= now_ns).then_some(due_ns)
    }
}

fn latency(due_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(due_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_when_it_is_due_and_not_when_the_next_one_is() {
        let mut pace = Pace { start_ns: 7, interval_ns: 10.0, sent: 0 };
        for due_ns in [7, 17, 27] {
            assert_eq!(pace.due(due_ns - 1), None);
            assert_eq!(pace.due(due_ns), Some(due_ns));
            assert_eq!(pace.due(due_ns + 1_000), Some(due_ns), "late, and its latency counts from then all the same");
            pace.sent += 1;
        }
    }
}
