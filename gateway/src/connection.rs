//! One client's connection: the loop that reads it, and what its session wants done.
//!
//! In: a transport, events for the session. Out: the session's actions, taken. Always: one task reads, nothing cancels it;
//! it ends only because the transport ended, and then everything of the connection is given back. While the client may not
//! go on (its requests are unanswered, its output is full, the queue is full) nothing is read, and TCP slows it down.

use crate::admission::Permit;
use crate::core::{Core, must_yield, yield_now};
use crate::faults;
use crate::forward::Command;
use crate::planted::{Bug, planted};
use crate::ports::{HeldLogin, Question};
use crate::send::Output;
use crate::timer::{Due, TICK_MS};
use crate::transport::{Kind, Transport};
use bytes::BytesMut;
use im_codec::{Action, CloseReason, Session};
use im_proto::client::CloseCode;
use im_proto::{ConnectionId, UserId};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// How long a closed connection may take to see the end. Until then what the client sends is thrown away, because closing
/// with bytes unread would destroy the last frame on its way.
const LINGER_MS: u64 = 1_000;

const NEVER: u64 = u64::MAX;

pub struct Connection {
    pub id: ConnectionId,
    pub transport: Transport,
    pub session: RefCell<Session>,
    pub output: RefCell<Output>,
    pub permit: RefCell<Permit>,
    pub is_dirty: Cell<bool>,
    /// A command of this connection waits in the core's backlog.
    pub is_forward_blocked: Cell<bool>,
    /// How often members of large conversations had changed when the logic was asked who this is.
    pub asked_at_change: Cell<u64>,
    /// The deadline of this connection's entry in the wheel.
    armed_ms: Cell<u64>,
    /// When a closing connection is cut off.
    linger_until_ms: Cell<u64>,
    is_over: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

impl Connection {
    pub fn new(id: ConnectionId, transport: Transport, permit: Permit, core: &Core) -> Rc<Self> {
        let now_ms = core.now_ms();
        Rc::new(Self {
            id,
            transport,
            session: RefCell::new(Session::new(core.shared.session_limits.clone(), now_ms)),
            output: RefCell::default(),
            permit: RefCell::new(permit),
            is_dirty: Cell::new(false),
            is_forward_blocked: Cell::new(false),
            asked_at_change: Cell::new(0),
            armed_ms: Cell::new(NEVER),
            linger_until_ms: Cell::new(NEVER),
            is_over: Cell::new(false),
            reader: RefCell::default(),
        })
    }

    /// Reads until the connection ends.
    pub async fn read(self: Rc<Self>, core: Rc<Core>) {
        self.arm(&core);
        while self.may_read(&core).await {
            if self.transport.holds_input() {
                self.take(&core, None);
                continue;
            }
            if self.transport.readable().await.is_err() {
                break;
            }
            let received = self.transport.try_read(&mut core.read_buffer.borrow_mut());
            match received {
                Ok(input) if input.is_empty() => break,
                Ok(input) => self.receive(&core, input),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
            if must_yield(&core) {
                yield_now().await;
            }
        }
    }

    fn receive(self: &Rc<Self>, core: &Rc<Core>, input: BytesMut) {
        core.metrics().bytes_in.add(input.len() as u64);
        if faults::holds(&input, core.shared.config.faults.connection_panic_needle.as_ref()) {
            panic!("a fault asked for by a test");
        }
        if core.now_ms() % TICK_MS < TICK_MS / 5 && planted(Bug::ReadCancelLosesBytes) {
            return;
        }
        self.take(core, Some(input));
    }

    /// Brings the session what was read, or what the transport held of it.
    fn take(self: &Rc<Self>, core: &Rc<Core>, input: Option<BytesMut>) {
        let now_ms = core.now_ms();
        self.with_session(core, |session, actions| {
            self.transport.bring(input, &core.shared.config, session, now_ms, actions);
        });
        if self.transport.has_own() {
            self.output.borrow_mut().own_bytes_wait(now_ms);
            core.mark_dirty(self);
        }
    }

    /// Waits until the client may go on. False: the connection is over.
    async fn may_read(&self, core: &Core) -> bool {
        let mut waited = false;
        let goes_on = poll_fn(|context| {
            if self.is_over.get() {
                return Poll::Ready(false);
            }
            if self.can_read(core) {
                return Poll::Ready(true);
            }
            if !std::mem::replace(&mut waited, true) {
                self.session.borrow_mut().pause();
            }
            *self.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        if waited {
            self.session.borrow_mut().resume(core.now_ms());
            self.arm(core);
        }
        goes_on
    }

    fn can_read(&self, core: &Core) -> bool {
        let session = self.session.borrow();
        session.is_closing()
            || (session.wants_bytes()
                && !self.is_forward_blocked.get()
                && !self.output.borrow().holds_reader(core.shared.config.output_bytes_max))
    }

    /// Something changed that the reading task may wait for.
    pub fn wake_reader(&self) {
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Has the session do something, then does what it wants.
    pub fn with_session<T>(
        self: &Rc<Self>,
        core: &Rc<Core>,
        with: impl FnOnce(&mut Session, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = core.take_actions();
        let result = with(&mut self.session.borrow_mut(), &mut actions);
        for action in actions.drain(..) {
            self.act(core, action);
        }
        core.give_actions_back(actions);
        self.arm(core);
        self.wake_reader();
        result
    }

    fn act(self: &Rc<Self>, core: &Rc<Core>, action: Action) {
        match action {
            Action::Write(frame) => {
                self.output.borrow_mut().push_answer(frame, core.now_ms());
                core.mark_dirty(self);
            }
            Action::Forward { log, request_id, frame, trace } => {
                core.metrics().commands.add(1);
                self.forward(core, log, Command { request_id, frame, trace });
            }
            Action::Refuse { request_id, code, trace, frame } => {
                self.log_refused(core, request_id, code, trace);
                self.act(core, Action::Write(frame));
            }
            Action::Ask { request_id, frame } => {
                core.metrics().commands.add(1);
                if let Some(user) = self.user() {
                    core.ask(Question::Read { connection: self.id, request_id, user, frame });
                }
            }
            Action::Heartbeat => {
                core.metrics().heartbeats.add(1);
                if let Some(login) = self.held_login() {
                    core.ask_about(login);
                }
            }
            Action::SignIn(sign_in) => {
                core.metrics().commands.add(1);
                self.asked_at_change.set(core.large_changes());
                core.ask(Question::SignIn { connection: self.id, sign_in });
            }
            Action::Close { code, login } => {
                core.metrics().closed(code);
                tracing::debug!(connection = %self.id, code = code.as_str_name(), "closing a connection");
                if let Some(login) = login {
                    core.metrics().signed_in.subtract(1);
                    core.sign_out(self.id, *login);
                }
                if !self.transport.close(code) {
                    self.output.borrow_mut().clear();
                }
                self.linger(core);
            }
            Action::Left { login } => {
                core.metrics().closed_by_client.add(1);
                if let Some(login) = login {
                    core.metrics().signed_in.subtract(1);
                    core.sign_out(self.id, *login);
                }
                self.linger(core);
            }
            Action::Refused { origin } => {
                core.metrics().handshakes_refused.add(1);
                if let Some(origin) = origin
                    && let Some(left_out) = core.origin_lines.line()
                {
                    // Escaped: a stranger wrote it.
                    tracing::warn!(?origin, left_out, "a page was refused; gateway.origins does not list its origin");
                }
                self.linger(core);
            }
        }
    }

    /// Writes what waits, then ends the connection.
    fn linger(self: &Rc<Self>, core: &Rc<Core>) {
        self.linger_until_ms.set(core.now_ms() + LINGER_MS);
        core.mark_dirty(self);
    }

    fn held_login(&self) -> Option<HeldLogin> {
        let session = self.session.borrow();
        let im_codec::Login { user, device, generation, .. } = session.login()?;
        let (user, device) = (user.clone(), device.clone());
        Some(HeldLogin { connection: self.id, user, device, generation: *generation })
    }

    pub fn user(&self) -> Option<UserId> {
        self.session.borrow().login().map(|login| login.user.clone())
    }

    pub fn close(self: &Rc<Self>, core: &Rc<Core>, reason: CloseReason) {
        self.with_session(core, |session, actions| session.close(reason, actions));
    }

    /// A deadline that was armed has come; perhaps an outdated one.
    pub fn on_time(self: &Rc<Self>, core: &Rc<Core>, due: Due) {
        if due.deadline_ms != self.armed_ms.get() {
            return;
        }
        self.armed_ms.set(NEVER);
        let now_ms = core.now_ms();
        if now_ms >= self.linger_until_ms.get() {
            return self.end();
        }
        let stalled = self.output.borrow().stall_deadline_ms(core.shared.config.stall_timeout_ms);
        if stalled.is_some_and(|at| now_ms >= at) {
            self.close(core, CloseReason::new(CloseCode::SlowConsumer, "takes none of its output"));
        }
        self.with_session(core, |session, actions| session.on_time(now_ms, actions));
    }

    /// Puts the next deadline into the wheel, if an earlier one is not there already.
    pub fn arm(&self, core: &Core) {
        if self.is_over.get() {
            return;
        }
        let session = self.session.borrow().deadline_ms();
        let stall = self.output.borrow().stall_deadline_ms(core.shared.config.stall_timeout_ms);
        let deadline_ms = session.into_iter().chain(stall).fold(self.linger_until_ms.get(), u64::min);
        if deadline_ms < self.armed_ms.get() {
            self.armed_ms.set(deadline_ms);
            core.arm(Due { deadline_ms, connection: self.id });
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Ends the transport now, whatever waits.
    pub fn end(&self) {
        self.is_over.set(true);
        self.output.borrow_mut().clear();
        self.transport.end();
        self.wake_reader();
    }

    /// The reading task is over, by the transport's end or by a panic: gives everything back.
    pub fn gone(&self, core: &Core) {
        self.end();
        core.connections.borrow_mut().remove(&self.id);
        core.metrics().connections.subtract(1);
        core.metrics().websocket_connections.subtract(u64::from(self.transport.kind() == Kind::WebSocket));
        let was_closing = self.session.borrow().is_closing();
        if !was_closing {
            core.metrics().closed_by_client.add(1);
        }
        let login = self.session.borrow_mut().end();
        if let Some(login) = login {
            core.metrics().signed_in.subtract(1);
            core.sign_out(self.id, login);
        }
    }
}
