//! What comes down a core's lane, to its connections.
//!
//! In: answers, pushes, kicks, the logic's answers, commands of the handle. Out: calls of sessions, frames queued. Always:
//! a delivery for a connection that is gone is counted and dropped; a connection's "given" moves only when what carries the
//! move was queued to it.

use crate::connection::Connection;
use crate::core::{Core, yield_now};
use crate::faults;
use crate::lane::{Command, LaneEvent};
use crate::planted::{self, Bug, planted};
use crate::ports::{LogicAnswer, SignInRefused, SignedIn};
use crate::sweep::Sweep;
use bytes::Bytes;
use im_codec::given::Move;
use im_codec::session::Told;
use im_codec::{CloseReason, Login};
use im_observe::TRACE;
use im_proto::client::kicked::Reason;
use im_proto::{ConnectionId, Generation, InboxVersion, TraceId, internal};
use std::future::poll_fn;
use std::rc::Rc;
use tracing::field::display;

/// Events taken before the sockets are written and other tasks run.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// The task that empties the lane.
pub async fn receive(core: Rc<Core>) {
    while !core.is_stopping.get() {
        poll_fn(|context| core.lane.poll_ready(context)).await;
        while let Some(command) = core.lane.take_command() {
            core.command(command);
            if command == Command::Stop {
                return;
            }
        }
        for _ in 0..EVENTS_PER_TURN_MAX {
            let Some(event) = core.lane.pop() else { break };
            core.deliver(event);
        }
        yield_now().await;
    }
}

impl Core {
    fn command(self: &Rc<Self>, command: Command) {
        let now_ms = self.now_ms();
        match command {
            Command::Hint => {
                let spread_ms = u64::from(self.shared.config.hint_spread_ms);
                self.sweep(Sweep::hint(self.connection_ids(), spread_ms, now_ms));
            }
            Command::Drain { spread_ms } => {
                self.is_draining.set(true);
                self.sweep(Sweep::drain(self.connection_ids(), spread_ms, now_ms));
            }
            Command::Stop => self.is_stopping.set(true),
        }
    }

    fn connection_ids(&self) -> Vec<ConnectionId> {
        self.connections.borrow().keys().copied().collect()
    }

    fn deliver(self: &Rc<Self>, event: LaneEvent) {
        match event {
            LaneEvent::Answer { answer, trace } => self.answer(answer, trace),
            push @ (LaneEvent::Push { .. } | LaneEvent::Large(_)) => self.came(push),
            LaneEvent::Kick(kick) => self.kick(kick),
            LaneEvent::Logic(LogicAnswer::SignedIn { connection, outcome }) => self.signed_in(connection, outcome),
            LaneEvent::Logic(LogicAnswer::Read { connection, request_id, frame, inbox_version, large }) => {
                let told = inbox_version.map_or(Told::Nothing, Told::UpTo);
                if self.answered(connection, request_id, frame, told) {
                    self.large_told(connection, &large);
                }
            }
            LaneEvent::Logic(LogicAnswer::LargeMembers { log, members }) => self.large_members(&log, members),
            LaneEvent::Logic(LogicAnswer::LargeHeads { heads }) => self.large_heads(&heads),
            LaneEvent::Logic(LogicAnswer::LargeOfUsers { changes, users }) => self.large_of_users(changes, &users),
            LaneEvent::Logic(LogicAnswer::Heartbeats { answers }) => {
                for (connection, version) in answers {
                    match version {
                        Ok(version) => self.version(connection, version),
                        Err(reason) => self.ended(connection, reason),
                    }
                }
            }
        }
    }

    /// A push, on which a fault may strike: it comes twice, or behind the next.
    fn came(self: &Rc<Self>, push: LaneEvent) {
        let held_back = self.held_back.take();
        if held_back.is_none() && self.dice.stirs_push() {
            *self.held_back.borrow_mut() = Some(push);
            return;
        }
        if self.dice.stirs_push() {
            self.take(&push);
        }
        self.take(&push);
        held_back.iter().for_each(|held_back| self.take(held_back));
    }

    fn take(self: &Rc<Self>, push: &LaneEvent) {
        match push {
            LaneEvent::Push { frame, targets, trace } => self.push(frame, targets, *trace),
            LaneEvent::Large(record) => self.large_record(record),
            _ => unreachable!("a push is one of two"),
        }
    }

    fn here(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        let connection = self.connection(id);
        if connection.is_none() {
            self.metrics().not_here.add(1);
        }
        connection
    }

    fn answer(self: &Rc<Self>, answer: internal::Answer, trace: Option<TraceId>) {
        let (connection, request, trace) = (answer.connection_id, answer.request_id, trace.map(display));
        tracing::debug!(target: TRACE, hop = "receive", trace, connection, request);
        let told = answer.inbox.as_ref().map_or(Told::Nothing, |inbox| Told::Move(step(inbox)));
        let waited = self.answered(ConnectionId(connection), request, answer.frame, told);
        tracing::debug!(target: TRACE, hop = "send", trace, connection, request, waited);
    }

    /// False: nobody waited for the answer.
    fn answered(self: &Rc<Self>, id: ConnectionId, request_id: u64, frame: Bytes, told: Told) -> bool {
        let Some(connection) = self.here(id) else { return false };
        let now_ms = self.now_ms();
        let waited = connection
            .with_session(self, |session, actions| session.answered(request_id, frame, told, now_ms, actions));
        let metrics = self.metrics();
        if waited {
            metrics.answers.add(1)
        } else {
            metrics.answers_late.add(1)
        }
        waited
    }

    fn push(self: &Rc<Self>, frame: &Bytes, targets: &[internal::Target], trace: Option<TraceId>) {
        let trace = trace.map(display);
        tracing::debug!(target: TRACE, hop = "receive", trace, targets = targets.len());
        let dropped = self.metrics().pushes_dropped.get();
        if faults::holds(frame, self.shared.config.faults.core_panic_needle.as_ref()) {
            panic!("a fault asked for by a test");
        }
        for target in targets {
            let Some(connection) = self.here(ConnectionId(target.connection_id)) else { continue };
            if !connection.session.borrow().is_signed_in() {
                self.metrics().not_here.add(1);
                continue;
            }
            if self.dice.loses_push() {
                continue;
            }
            self.push_to(&connection, frame, target.inbox.as_ref());
        }
        let dropped = self.metrics().pushes_dropped.get() - dropped;
        tracing::debug!(target: TRACE, hop = "send", trace, targets = targets.len(), dropped);
    }

    /// False: dropped, since the client reads too slowly.
    pub fn push_to(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        frame: &Bytes,
        inbox: Option<&internal::InboxMove>,
    ) -> bool {
        self.metrics().pushes.add(1);
        // An empty frame: the connection has the content by its answer, only its inbox moves.
        let mut queued = frame.is_empty() || self.queue(connection, frame);
        if !queued {
            self.metrics().pushes_dropped.add(1);
            if planted(Bug::PushDroppedSilently) {
                connection.output.borrow_mut().forget_lag();
                queued = true;
            }
        }
        if let (true, Some(inbox)) = (queued, inbox) {
            let mut session = connection.session.borrow_mut();
            let mut step = step(inbox);
            if planted(Bug::GivenSkips) {
                step.previous = InboxVersion(0);
            }
            session.pushed(step);
        }
        queued
    }

    fn queue(self: &Rc<Self>, connection: &Rc<Connection>, frame: &Bytes) -> bool {
        let strikes = self.metrics().pushes.get().is_multiple_of(planted::EVERY);
        if strikes && planted(Bug::DropOne) {
            return true;
        }
        if strikes && planted(Bug::DoubleOne) {
            connection.push(self, frame.clone());
        }
        if planted(Bug::SwapTwo) {
            let mut held = self.swapped.borrow_mut();
            if held.is_none() && strikes {
                *held = Some((connection.id, frame.clone()));
                return true;
            }
            if let Some((_, first)) = held.take_if(|(id, _)| *id == connection.id) {
                return connection.push(self, frame.clone()) && connection.push(self, first);
            }
        }
        connection.push(self, frame.clone())
    }

    fn kick(self: &Rc<Self>, kick: internal::Kick) {
        let Some(connection) = self.here(ConnectionId(kick.connection_id)) else { return };
        let reason = Reason::try_from(kick.reason as i32).unwrap_or(Reason::Unspecified);
        self.metrics().kicks.add(1);
        connection.with_session(self, |session, actions| session.kick(Generation(kick.generation), reason, actions));
    }

    /// The kick that should have said so was lost.
    fn ended(self: &Rc<Self>, id: ConnectionId, reason: Reason) {
        let generation = self.here(id).and_then(|held| held.session.borrow().login().map(|login| login.generation));
        if let Some(Generation(generation)) = generation.filter(|_| !planted(Bug::LostKickStays)) {
            self.kick(internal::Kick { connection_id: id.0, generation, reason: reason as u32 });
        }
    }

    fn version(self: &Rc<Self>, id: ConnectionId, version: InboxVersion) {
        let Some(connection) = self.here(id) else { return };
        let version = if planted(Bug::NoHeartbeatHint) { InboxVersion(0) } else { version };
        let given = connection.session.borrow().given();
        let is_behind = self.is_behind_large(id);
        if is_behind || given.is_some_and(|given| version > given) {
            self.metrics().hints.add(1);
        }
        connection.with_session(self, |session, actions| session.version(version, is_behind, actions));
    }

    fn signed_in(self: &Rc<Self>, id: ConnectionId, outcome: Result<SignedIn, SignInRefused>) {
        let connection = self.here(id);
        match (connection, outcome) {
            (None, Err(_)) => {}
            // The route was registered and nobody is there: it must not stay.
            (None, Ok(signed_in)) => self.take_back(id, signed_in),
            (Some(connection), Err(refused)) => {
                let SignInRefused { code, reconnect_after_ms, detail } = refused;
                let reason = CloseReason { code, reconnect_after_ms, detail };
                connection.with_session(self, |session, actions| session.sign_in_refused(reason, actions));
            }
            (Some(connection), Ok(signed_in)) => {
                let (now_ms, unix_ms) = (self.now_ms(), self.unix_ms());
                let login = login(&signed_in, now_ms, unix_ms);
                // Before the session goes on: what it asks for is answered to a member.
                self.large_signed_in(&connection, signed_in.user.clone(), &signed_in.large);
                let stands = connection.with_session(self, |session, actions| {
                    // Counted before the session goes on, which may end at once.
                    let stands = session.signed_in(login, now_ms, unix_ms, actions);
                    self.metrics().signed_in.add(u64::from(stands));
                    stands
                });
                if stands {
                    connection.permit.borrow_mut().authenticated();
                } else {
                    self.large_gone(id, signed_in.user.clone());
                    self.take_back(id, signed_in);
                }
            }
        }
    }
}

fn step(inbox: &internal::InboxMove) -> Move {
    Move { previous: InboxVersion(inbox.previous), version: InboxVersion(inbox.version) }
}

fn login(signed_in: &SignedIn, now_ms: u64, unix_ms: i64) -> Login {
    let expires_at_ms = |at: i64| now_ms.saturating_add_signed(at.saturating_sub(unix_ms).max(0));
    Login {
        user: signed_in.user.clone(),
        device: signed_in.device.clone(),
        generation: signed_in.generation,
        inbox_version: signed_in.inbox_version,
        epoch: signed_in.epoch,
        token_expires_at_ms: signed_in.token_expires_at_ms.map(expires_at_ms),
    }
}
