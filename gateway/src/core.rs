//! The state of one core, and the end of its loop turn.
//!
//! In: calls from the files of the path, all on the core's own thread. Out: work that is gathered over a turn of the event
//! loop and done once at its end: records forwarded, heartbeats asked about, sockets written. Always: no `RefCell` is borrowed
//! while the forwarder, the logic or a session is called, so calls may come back here.

use crate::connection::Connection;
use crate::connection_map::ConnectionMap;
use crate::driver::Chosen;
use crate::faults::Dice;
use crate::forward::Backlog;
use crate::gateway::Shared;
use crate::lane::{CoreLane, LaneEvent};
use crate::large::Large;
use crate::metrics::CoreMetrics;
use crate::ports::{ASKED_AT_ONCE_MAX, HeldLogin, Question, SignedIn};
use crate::sweep::Sweep;
use crate::timer::{Due, Wheel};
use bytes::{Bytes, BytesMut};
use im_codec::{Action, Login};
use im_observe::LineLimit;
use im_proto::{ConnectionId, TraceId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Lines about refused commands a second, of one core; how many more there were stands on the next line.
const REFUSED_LINES_PER_S_MAX: u32 = 100;
/// Lines about pages that may not connect: such a page tries again and again.
const ORIGIN_LINES_PER_S_MAX: u32 = 1;

pub struct Core {
    pub index: u16,
    pub shared: Arc<Shared>,
    pub lane: CoreLane,
    pub dice: Dice,
    pub connections: RefCell<ConnectionMap<Rc<Connection>>>,
    pub backlog: RefCell<Backlog>,
    pub refused_lines: LineLimit,
    pub origin_lines: LineLimit,
    pub sweeps: RefCell<Vec<Sweep>>,
    pub large: RefCell<Large>,
    /// Where all connections read to; what is left of a frame is copied out of it.
    pub read_buffer: RefCell<BytesMut>,
    /// A push that a fault holds back: it comes behind the next.
    pub held_back: RefCell<Option<LaneEvent>>,
    /// A push that a planted bug holds back to swap it with the next.
    pub swapped: RefCell<Option<(ConnectionId, Bytes)>>,
    wheel: RefCell<Wheel>,
    turn: RefCell<Turn>,
    turn_ends: Cell<bool>,
    actions: Cell<Vec<Action>>,
    /// No new connections.
    pub is_draining: Cell<bool>,
    /// Everything ends: the tasks of this core return.
    pub is_stopping: Cell<bool>,
}

/// What a turn gathered.
#[derive(Default)]
struct Turn {
    dirty: Vec<Rc<Connection>>,
    heartbeats: Vec<HeldLogin>,
    has_records: bool,
}

impl Core {
    pub fn new(index: u16, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            index,
            lane: shared.lanes[usize::from(index)].clone(),
            dice: Dice::new(shared.config.faults.pushes, index),
            connections: RefCell::default(),
            backlog: RefCell::default(),
            refused_lines: LineLimit::new(REFUSED_LINES_PER_S_MAX),
            origin_lines: LineLimit::new(ORIGIN_LINES_PER_S_MAX),
            sweeps: RefCell::default(),
            large: RefCell::default(),
            read_buffer: RefCell::default(),
            held_back: RefCell::default(),
            swapped: RefCell::default(),
            wheel: RefCell::new(Wheel::new(shared.now_ms())),
            turn: RefCell::default(),
            turn_ends: Cell::new(false),
            actions: Cell::default(),
            is_draining: Cell::new(false),
            is_stopping: Cell::new(false),
            shared,
        })
    }

    pub fn metrics(&self) -> &CoreMetrics {
        &self.shared.metrics[usize::from(self.index)]
    }

    /// Milliseconds of a clock that never goes back.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// The wall clock, for what leaves this process.
    pub fn unix_ms(&self) -> i64 {
        (self.shared.config.wall_clock_ms)()
    }

    pub fn next_connection_id(&self) -> ConnectionId {
        let counter = &self.shared.connection_counters[usize::from(self.index)];
        ConnectionId::new(self.index, counter.fetch_add(1, Ordering::Relaxed))
    }

    /// For a command whose client made none. The first half is the gateway's run, the second never comes twice in it; mixed,
    /// because tools take a share of traces by their last bytes.
    pub fn next_trace(&self) -> Option<TraceId> {
        let count = self.shared.trace_counters[usize::from(self.index)].fetch_add(1, Ordering::Relaxed);
        TraceId::from_halves(self.shared.boot, mix(u64::from(self.index) << 48 | count))
    }

    pub fn connection(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&id).cloned()
    }

    /// A list to gather actions in, without an allocation in the usual case.
    pub fn take_actions(&self) -> Vec<Action> {
        self.actions.take()
    }

    pub fn give_actions_back(&self, mut actions: Vec<Action>) {
        actions.clear();
        self.actions.set(actions);
    }

    pub fn arm(&self, due: Due) {
        self.wheel.borrow_mut().arm(due);
    }

    pub fn take_due(&self, out: &mut Vec<Due>) {
        self.wheel.borrow_mut().take_due(self.now_ms(), out);
    }

    /// The connection has something to write: it is written once, at the end of this turn.
    pub fn mark_dirty(self: &Rc<Self>, connection: &Rc<Connection>) {
        if !connection.is_dirty.replace(true) {
            self.turn.borrow_mut().dirty.push(connection.clone());
            self.end_turn_later();
        }
    }

    pub fn ask_about(self: &Rc<Self>, login: HeldLogin) {
        self.turn.borrow_mut().heartbeats.push(login);
        self.end_turn_later();
    }

    pub fn forward_later(self: &Rc<Self>) {
        self.turn.borrow_mut().has_records = true;
        self.end_turn_later();
    }

    pub fn ask(&self, question: Question) {
        self.shared.logic.ask(question, self.lane.clone());
    }

    pub fn sign_out(&self, connection: ConnectionId, login: Login) {
        let Login { user, device, generation, .. } = login;
        self.large_gone(connection, user.clone());
        self.ask(Question::SignedOut { connection, user, device, generation });
    }

    /// The login of a connection that went away while the logic was signing it in.
    pub fn take_back(&self, connection: ConnectionId, signed_in: SignedIn) {
        let SignedIn { user, device, generation, .. } = signed_in;
        self.ask(Question::SignedOut { connection, user, device, generation });
    }

    /// A spawned task goes to the end of the run queue: it runs behind every task that is ready now.
    fn end_turn_later(self: &Rc<Self>) {
        if !self.turn_ends.replace(true) {
            let core = self.clone();
            monoio::spawn(async move { core.end_turn() });
        }
    }

    fn end_turn(self: &Rc<Self>) {
        self.turn_ends.set(false);
        let Turn { mut dirty, heartbeats, has_records } = std::mem::take(&mut *self.turn.borrow_mut());
        if has_records {
            self.forward_now();
        }
        heartbeat_questions(heartbeats).for_each(|question| self.ask(question));
        for connection in dirty.drain(..) {
            connection.is_dirty.set(false);
            connection.write_waiting(self);
        }
        let mut turn = self.turn.borrow_mut();
        if turn.dirty.is_empty() {
            // Keeps the allocation.
            turn.dirty = dirty;
        }
    }
}

/// As many as it takes for all logins.
fn heartbeat_questions(mut logins: Vec<HeldLogin>) -> impl Iterator<Item = Question> {
    std::iter::from_fn(move || {
        let behind = logins.split_off(logins.len().min(ASKED_AT_ONCE_MAX));
        let logins = std::mem::replace(&mut logins, behind);
        (!logins.is_empty()).then_some(Question::Heartbeats { logins })
    })
}

/// Splitmix64's last step: no two numbers give the same.
const fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Lets every other task that is ready run first. (A task that wakes itself is put at the front of monoio's queue.)
pub async fn yield_now() {
    monoio::spawn(std::future::ready(())).await;
}

/// Reading from an epoll core never waits while there are bytes, so it has to yield by itself.
pub fn must_yield(core: &Core) -> bool {
    core.shared.driver == Chosen::Epoll
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::{DeviceId, Generation, UserId};

    #[test]
    fn every_heartbeat_of_a_turn_is_asked_about_in_questions_that_are_not_too_large() {
        let login = |number| HeldLogin {
            connection: ConnectionId(number),
            user: UserId::parse("ann").expect("an id"),
            device: DeviceId::parse("phone").expect("an id"),
            generation: Generation(1),
        };
        for count in [0, 1, ASKED_AT_ONCE_MAX, 2 * ASKED_AT_ONCE_MAX + 1] {
            let questions = heartbeat_questions((0..count as u64).map(login).collect());
            let asked: Vec<Vec<u64>> = questions
                .map(|question| match question {
                    Question::Heartbeats { logins } => logins.iter().map(|login| login.connection.0).collect(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert!(asked.iter().all(|logins| logins.len() <= ASKED_AT_ONCE_MAX), "{count}");
            assert_eq!(asked.len(), count.div_ceil(ASKED_AT_ONCE_MAX));
            assert_eq!(asked.concat(), (0..count as u64).collect::<Vec<_>>());
        }
    }
}
