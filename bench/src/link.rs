//! One connection of the load, over TCP or WebSocket: moves bytes and time between a socket and the shared client core, and
//! decides nothing.
//!
//! In: a core, a socket, commands of the load. Out: each raw push as the server sent it, then each event of the core.
//! Always: raw pushes are seen before the core has sorted them, so that a double or a swap cannot hide; an observer
//! may give commands from inside its calls; what one read brings is answered with one write.

use crate::clock::Clock;
use crate::connect::{Target, connect};
use crate::error::BenchError;
use crate::signal::Signal;
use bytes::{Bytes, BytesMut};
use im_client::websocket::Wire;
use im_client::{Answer, Cause, Command, Core, Counters, Event, Full, LinkAction, Refusal, Request, Ticket};
use im_proto::LogId;
use im_proto::client::{ServerFrame, entry, server_frame};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};

const READ_BYTES: usize = 16 << 10;

/// A message entry as the server pushed it.
pub struct RawPush {
    pub seq: u64,
    pub body: Bytes,
}

/// What the load wants to know of its connections.
pub trait Observer {
    fn pushed(&self, link: &Link, push: RawPush, now_ns: u64);
    fn event(&self, link: &Link, event: Event, now_ns: u64);
    /// Everything that one read brought has been told.
    fn settled(&self, link: &Link);
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Dialing,
    /// Signed in and synced.
    Ready,
    Ended(Cause),
}

pub struct Link {
    /// Its number in the run.
    pub serial: usize,
    target: Target,
    wire: RefCell<Wire>,
    /// What the wire itself has to answer.
    reply: RefCell<Vec<u8>>,
    clock: Clock,
    core: RefCell<Core>,
    observer: Weak<dyn Observer>,
    state: Cell<State>,
    /// Rung when `state` changes.
    pub changed: Signal,
    /// The last entry that the core handed over. A connection of the load is in one conversation only.
    last_seq: Cell<u64>,
    /// The answer to [`Link::ask`], which asks one thing at a time.
    answer: RefCell<Option<Result<Answer, Refusal>>>,
    answered: Signal,
    pushes: Arc<Mutex<Vec<RawPush>>>,
    output: Signal,
    closing: Cell<bool>,
    redial: Signal,
    /// Of the socket in use; a writer of an older one ends.
    socket: Cell<u64>,
}

impl Link {
    pub fn new(serial: usize, target: Target, clock: Clock, core: Core, observer: Weak<dyn Observer>) -> Rc<Self> {
        Rc::new(Self {
            serial,
            target,
            wire: RefCell::new(Wire::Plain),
            reply: RefCell::default(),
            clock,
            core: RefCell::new(core),
            observer,
            state: Cell::new(State::Dialing),
            changed: Signal::default(),
            last_seq: Cell::new(0),
            answer: RefCell::new(None),
            answered: Signal::default(),
            pushes: Arc::default(),
            output: Signal::default(),
            closing: Cell::new(false),
            redial: Signal::default(),
            socket: Cell::new(0),
        })
    }

    pub fn state(&self) -> State {
        self.state.get()
    }

    pub fn open(self: &Rc<Self>) {
        self.core.borrow_mut().connect(self.clock.now_ms());
        self.act();
        monoio::spawn(Rc::clone(self).live());
    }

    pub fn command(&self, command: Command) -> Result<Ticket, Full> {
        let ticket = self.core.borrow_mut().command(command, self.clock.now_ms());
        self.flush();
        ticket
    }

    pub fn counters(&self) -> Counters {
        self.core.borrow().counters()
    }

    pub fn last_seq(&self) -> u64 {
        self.last_seq.get()
    }

    /// Asks something other than a send and waits for the answer.
    pub async fn ask(&self, request: Request) -> Result<Answer, BenchError> {
        self.command(Command::Request(request)).map_err(|error| BenchError::Setup(error.to_string()))?;
        loop {
            if let Some(answer) = self.answer.take() {
                return answer.map_err(|refusal| BenchError::Setup(refusal.to_string()));
            }
            self.answered.wait().await;
        }
    }

    /// From now on raw pushes of messages of this conversation are told to the observer.
    pub fn watch(&self, conversation: &LogId) {
        let (conversation, pushes) = (conversation.clone(), Arc::clone(&self.pushes));
        let watch = move |frame: &ServerFrame| {
            let Some(server_frame::Body::Entry(pushed)) = &frame.body else { return false };
            let Some(entry) = &pushed.entry else { return false };
            if let (Some(entry::Content::Message(message)), true) =
                (&entry.content, pushed.conversation_id == conversation.as_str())
            {
                let push = RawPush { seq: entry.seq, body: message.body.clone() };
                pushes.lock().unwrap_or_else(PoisonError::into_inner).push(push);
            }
            // The core gets every push as it is.
            false
        };
        self.core.borrow_mut().lose_pushes(Some(Box::new(watch)));
    }

    /// Lets the core do what is due by now.
    pub fn timer(&self) {
        let now_ms = self.clock.now_ms();
        let due = self.core.borrow().deadline_ms(now_ms).is_some_and(|deadline_ms| deadline_ms <= now_ms);
        if due {
            self.core.borrow_mut().timer(now_ms);
            self.tell();
            self.act();
            self.flush();
        }
    }

    fn flush(&self) {
        if self.core.borrow().has_output() {
            self.output.ring();
        }
    }

    /// Does what the core asks of the socket.
    fn act(&self) {
        while let Some(action) = self.next_action() {
            match action {
                LinkAction::Close => {
                    self.closing.set(true);
                    self.output.ring();
                }
                LinkAction::Connect => self.redial.ring(),
            }
        }
    }

    fn next_action(&self) -> Option<LinkAction> {
        self.core.borrow_mut().poll_link()
    }

    fn next_event(&self) -> Option<Event> {
        self.core.borrow_mut().poll_event()
    }

    /// Tells the observer what the last input brought.
    fn tell(&self) {
        let Some(observer) = self.observer.upgrade() else { return };
        let now_ns = self.clock.now_ns();
        let mut pushes = mem::take(&mut *self.pushes.lock().unwrap_or_else(PoisonError::into_inner));
        for push in pushes.drain(..) {
            observer.pushed(self, push, now_ns);
        }
        // Its memory is used again.
        *self.pushes.lock().unwrap_or_else(PoisonError::into_inner) = pushes;
        while let Some(event) = self.next_event() {
            match &event {
                Event::Synced => self.enter(State::Ready),
                Event::Disconnected { cause, .. } => self.enter(State::Ended(*cause)),
                Event::Entry { entry, .. } => self.last_seq.set(entry.seq),
                Event::Answered { answer, .. } => self.hear(Ok(answer.clone())),
                Event::RequestRefused { refusal, .. } => self.hear(Err(refusal.clone())),
                _ => {}
            }
            observer.event(self, event, now_ns);
        }
        observer.settled(self);
    }

    fn hear(&self, answer: Result<Answer, Refusal>) {
        self.answer.replace(Some(answer));
        self.answered.ring();
    }

    fn enter(&self, state: State) {
        self.state.set(state);
        self.changed.ring();
    }

    /// Dials whenever the core asks for it.
    async fn live(self: Rc<Self>) {
        loop {
            self.redial.wait().await;
            if let Ok(stream) = connect(self.target.socket, self.serial) {
                self.closing.set(false);
                self.socket.set(self.socket.get() + 1);
                let (read_half, write_half) = stream.into_split();
                let mut wire = self.target.address.wire(self.serial as u64);
                self.reply.replace(wire.opening());
                let is_open = wire.is_open();
                self.wire.replace(wire);
                if is_open {
                    self.core.borrow_mut().connected(self.clock.now_ms());
                }
                monoio::spawn(Rc::clone(&self).write(write_half, self.socket.get()));
                self.output.ring();
                self.read(read_half).await;
            }
            self.core.borrow_mut().disconnected(self.clock.now_ms());
            self.tell();
            self.closing.set(true);
            self.output.ring();
            self.act();
        }
    }

    async fn read(&self, mut stream: OwnedReadHalf<TcpStream>) {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        while !self.closing.get() {
            let (read, filled) = stream.read(buffer).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
            // A copy of its own size: bodies may be kept, and must not keep the whole buffer with them.
            let bytes = BytesMut::from(&filled[..]);
            buffer = filled;
            buffer.clear();
            if !self.take_in(bytes) {
                return;
            }
            self.tell();
            self.act();
            self.flush();
        }
    }

    /// Hands what was read to the core. False: the server does not speak WebSocket as it should.
    fn take_in(&self, mut bytes: BytesMut) -> bool {
        let now_ms = self.clock.now_ms();
        let mut wire = self.wire.borrow_mut();
        let was_open = wire.is_open();
        let Ok(frames) = wire.received(&mut bytes, &mut self.reply.borrow_mut()) else { return false };
        let mut core = self.core.borrow_mut();
        if !was_open && wire.is_open() {
            core.connected(now_ms);
        }
        if let Some(frames) = frames {
            core.received(frames, now_ms);
        }
        if !self.reply.borrow().is_empty() {
            self.output.ring();
        }
        true
    }

    async fn write(self: Rc<Self>, mut stream: OwnedWriteHalf<TcpStream>, socket: u64) {
        let (mut frames, mut buffer) = (Vec::new(), Vec::new());
        loop {
            self.output.wait().await;
            if self.socket.get() != socket {
                // Meant for the writer of the socket now in use.
                return self.output.ring();
            }
            if self.closing.get() {
                let _ = stream.shutdown().await;
                return;
            }
            buffer.clear();
            buffer.append(&mut self.reply.borrow_mut());
            if self.wire.borrow().is_open() {
                self.core.borrow_mut().swap_output(&mut frames);
                self.wire.borrow_mut().send(&mut frames, &mut buffer);
            }
            if buffer.is_empty() {
                continue;
            }
            let (written, sent) = stream.write_all(buffer).await;
            buffer = sent;
            if written.is_err() {
                return;
            }
        }
    }
}
