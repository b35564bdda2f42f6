//! The client on monoio: many clients on one thread, told to the app by calls instead of channels.
//!
//! In: an [`App`], commands, bytes of a stream (TCP, or WebSocket over it), time. Out: calls of the app. Always: the tasks decide nothing, they feed
//! the [`Core`]; everything is on one thread and never shared. The app may give commands from inside its calls; what one
//! read brings about is written with one write. Per client there is one task that dials and reads, one that writes and one
//! that keeps the time; no read or write is ever dropped half done, a link is ended by shutting it down.

use crate::connect::LinkAction;
use crate::core::Core;
use crate::event::{Command, Event, Full, Ticket};
use crate::websocket::{Address, Wire};
use bytes::BytesMut;
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _, AsyncWriteRentExt as _};
use monoio::io::{OwnedReadHalf, OwnedWriteHalf, Splitable as _};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes of one read. A client that waits holds so many.
const READ_BYTES: usize = 4 * 1024;

/// With no deadline of the core the time is looked at this often.
const IDLE_WAIT_MS: u64 = 60_000;

/// What is told of a client.
pub trait App: Sized + 'static {
    fn event(&self, client: &Client<Self>, event: Event);

    /// Everything that one input brought has been told.
    fn settled(&self, _client: &Client<Self>) {}

    /// Opens a stream.
    fn dial(&self, address: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> {
        TcpStream::connect_addr(address)
    }
}

/// One client. Its tasks keep it until [`end`](Client::end).
pub struct Client<A> {
    pub app: A,
    /// Where the stream goes, and what is spoken over it.
    socket: SocketAddr,
    address: Address,
    /// Of the present link, and what it has to answer by itself.
    wire: RefCell<Wire>,
    reply: RefCell<Vec<u8>>,
    core: RefCell<Core>,
    started: Instant,
    ended: Cell<bool>,
    redial: Signal,
    /// There is something to write, or the link is to be shut down.
    output: Signal,
    /// The time-keeper waits for longer than it should.
    hurry: Signal,
    waits_until_ms: Cell<u64>,
    /// Counts the links that have ended: reader and writer end when their link is not the present one.
    link: Cell<u64>,
}

impl<A: App> Client<A> {
    /// Starts a client that keeps itself connected. To be called on a monoio thread with its timer enabled.
    pub fn start(socket: SocketAddr, core: Core, app: A) -> Rc<Self> {
        Self::start_at(socket, Address::Tcp { socket: socket.to_string() }, core, app)
    }

    /// Like [`start`](Self::start), over what `address` names; `socket` is where its host was found.
    pub fn start_at(socket: SocketAddr, address: Address, core: Core, app: A) -> Rc<Self> {
        let client = Rc::new(Self {
            app,
            socket,
            address,
            wire: RefCell::new(Wire::Plain),
            reply: RefCell::default(),
            core: RefCell::new(core),
            started: Instant::now(),
            ended: Cell::new(false),
            redial: Signal::default(),
            output: Signal::default(),
            hurry: Signal::default(),
            waits_until_ms: Cell::new(u64::MAX),
            link: Cell::new(0),
        });
        client.feed(Core::connect);
        monoio::spawn(client.clone().dial_and_read());
        monoio::spawn(client.clone().keep_time());
        client
    }

    /// Takes a command; its answer carries the ticket.
    pub fn command(&self, command: Command) -> Result<Ticket, Full> {
        let ticket = self.core.borrow_mut().command(command, self.now_ms());
        self.act();
        ticket
    }

    /// Any other input: `client.feed(Core::sync_now)`.
    pub fn feed(&self, input: impl FnOnce(&mut Core, u64)) {
        input(&mut self.core.borrow_mut(), self.now_ms());
        self.act();
    }

    /// Ends the link and the tasks.
    pub fn end(&self) {
        self.ended.set(true);
        self.feed(Core::disconnect);
        self.redial.ring();
        self.hurry.ring();
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Wakes the tasks that have to do something now.
    fn act(&self) {
        let mut core = self.core.borrow_mut();
        while let Some(action) = core.poll_link() {
            match action {
                LinkAction::Close => {
                    self.link.set(self.link.get() + 1);
                    self.output.ring();
                }
                LinkAction::Connect => self.redial.ring(),
            }
        }
        if core.has_output() {
            self.output.ring();
        }
        let deadline_ms = core.deadline_ms(self.now_ms());
        if core.has_event() || deadline_ms.is_some_and(|at_ms| at_ms < self.waits_until_ms.get()) {
            self.hurry.ring();
        }
    }

    /// Tells the app what an input brought.
    fn tell(&self) {
        loop {
            let event = self.core.borrow_mut().poll_event();
            match event {
                Some(event) => self.app.event(self, event),
                None => break,
            }
        }
        self.app.settled(self);
        self.act();
    }

    async fn dial_and_read(self: Rc<Self>) {
        loop {
            self.redial.wait().await;
            if self.ended.get() {
                return;
            }
            let link = self.link.get();
            if let Ok(stream) = self.app.dial(self.socket).await
                && self.link.get() == link
            {
                // Without it small frames wait for the peer's delayed acks; a socket that refuses it still works.
                let _ = stream.set_nodelay(true);
                let (read, write) = stream.into_split();
                let mut wire = self.address.wire(rand::random());
                let opening = wire.opening();
                let is_open = wire.is_open();
                self.wire.replace(wire);
                self.reply.take();
                if is_open {
                    self.feed(Core::connected);
                }
                monoio::spawn(self.clone().write(write, opening, link));
                self.read(read, link).await;
            }
            // Otherwise the core has given the link up itself, and may be on its way to the next.
            if self.link.get() == link {
                self.feed(Core::disconnected);
            }
            self.tell();
        }
    }

    async fn read(&self, mut stream: OwnedReadHalf<TcpStream>, link: u64) {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        while self.link.get() == link {
            let (read, mut filled) = stream.read(buffer).await;
            if !matches!(read, Ok(1..)) || self.link.get() != link {
                return;
            }
            if !self.take_in(&mut filled) {
                return;
            }
            // The memory is used again unless the app has kept a body.
            filled.reserve(READ_BYTES);
            buffer = filled;
        }
    }

    /// Hands what was read to the core. False: the server does not speak WebSocket as it should.
    fn take_in(&self, input: &mut BytesMut) -> bool {
        let mut reply = Vec::new();
        let (received, has_opened) = {
            let mut wire = self.wire.borrow_mut();
            let was_open = wire.is_open();
            let received = wire.received(input, &mut reply);
            (received, !was_open && wire.is_open())
        };
        if has_opened {
            self.feed(Core::connected);
        }
        if !reply.is_empty() {
            self.reply.borrow_mut().append(&mut reply);
            self.output.ring();
        }
        match received {
            Ok(Some(frames)) => {
                self.core.borrow_mut().received(frames, self.now_ms());
                self.tell();
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Puts what the core and the wire want sent into `buffer`, which is empty.
    fn take_output(&self, frames: &mut Vec<u8>, buffer: &mut Vec<u8>) {
        buffer.append(&mut self.reply.borrow_mut());
        let mut wire = self.wire.borrow_mut();
        if wire.is_open() {
            self.core.borrow_mut().swap_output(frames);
            wire.send(frames, buffer);
        }
    }

    async fn write(self: Rc<Self>, mut stream: OwnedWriteHalf<TcpStream>, opening: Vec<u8>, link: u64) {
        let (mut frames, mut buffer) = (Vec::new(), opening);
        while self.link.get() == link {
            if buffer.is_empty() {
                self.take_output(&mut frames, &mut buffer);
            }
            if buffer.is_empty() {
                self.output.wait().await;
                continue;
            }
            let (written, sent) = stream.write_all(buffer).await;
            buffer = sent;
            buffer.clear();
            if written.is_err() {
                break;
            }
        }
        // The ring may have been meant for the writer of the next link.
        self.output.ring();
        // Ends the read too. A stream that is gone already needs no end.
        let _ = stream.shutdown().await;
    }

    async fn keep_time(self: Rc<Self>) {
        while !self.ended.get() {
            let now_ms = self.now_ms();
            let deadline_ms = self.core.borrow().deadline_ms(now_ms);
            let until_ms = deadline_ms.unwrap_or(u64::MAX).min(now_ms + IDLE_WAIT_MS);
            self.waits_until_ms.set(until_ms);
            self.wait_until(until_ms).await;
            if deadline_ms.is_some_and(|at_ms| at_ms <= self.now_ms()) {
                self.feed(Core::timer);
            }
            // Also what a command brought about at once.
            if self.core.borrow().has_event() {
                self.tell();
            }
        }
    }

    /// Until then, or until there is something to do earlier.
    async fn wait_until(&self, until_ms: u64) {
        let mut sleep = pin!(monoio::time::sleep_until((self.started + Duration::from_millis(until_ms)).into()));
        let mut hurry = pin!(self.hurry.wait());
        poll_fn(|context| match hurry.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(context),
        })
        .await;
    }
}

/// Wakes one waiting task of the same thread. A ring before the wait is not lost; several are one.
#[derive(Debug, Default)]
struct Signal {
    rung: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
