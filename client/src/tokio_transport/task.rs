//! The task of one client: moves bytes, time, calls and events between tokio and the [`Core`].
//!
//! In: calls, bytes of a stream (TCP, or WebSocket over it), time. Out: bytes, answers, events. Always: it decides nothing. Every future awaited in
//! its `select!` may be dropped without losing a byte: `read_buf`, `write`, `recv` and `reserve` are cancel-safe.

use super::{Acked, Call, Outcome};
use crate::connect::LinkAction;
use crate::core::Core;
use crate::event::{Event, Full, Ticket};
use crate::websocket::{Address, InvalidAddress, Wire};
use bytes::BytesMut;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

const READ_BYTES: usize = 16 * 1024;

pub(super) struct Task {
    address: Result<Address, InvalidAddress>,
    core: Core,
    calls: mpsc::Receiver<Call>,
    /// `None`: the app has dropped its end, and events are not kept.
    events: Option<mpsc::Sender<Event>>,
    /// Events the channel had no room for. Nothing is read while there are any, so they are those of one input.
    backlog: VecDeque<Event>,
    waiting: HashMap<Ticket, oneshot::Sender<Outcome>>,
    stream: Stream,
    started: Instant,
}

enum Stream {
    Closed,
    Dialing(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(Open),
}

struct Open {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    wire: Wire,
    input: BytesMut,
    /// What the core wants sent, on its way to `output`; empty in between.
    frames: Vec<u8>,
    output: Vec<u8>,
    /// So much of `output` is written.
    written: usize,
}

impl Open {
    fn new(stream: TcpStream, mut wire: Wire) -> Self {
        let (read, write) = stream.into_split();
        let output = wire.opening();
        Self { read, write, wire, input: BytesMut::new(), frames: Vec::new(), output, written: 0 }
    }
}

async fn dial(address: Result<Address, InvalidAddress>) -> io::Result<TcpStream> {
    match address {
        Ok(address) => TcpStream::connect(address.socket()).await,
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
    }
}

/// What woke the task.
enum Woken {
    Call(Option<Call>),
    Dialed(io::Result<TcpStream>),
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Room,
    Time,
}

impl Task {
    pub fn new(address: &str, core: Core, calls: mpsc::Receiver<Call>, events: mpsc::Sender<Event>) -> Self {
        Self {
            address: Address::parse(address),
            core,
            calls,
            events: Some(events),
            backlog: VecDeque::new(),
            waiting: HashMap::new(),
            stream: Stream::Closed,
            started: Instant::now(),
        }
    }

    pub async fn run(mut self) {
        let now_ms = self.now_ms();
        self.core.connect(now_ms);
        loop {
            self.obey();
            self.hand_out_events();
            let woken = self.wait().await;
            let now_ms = self.now_ms();
            match woken {
                Woken::Call(None) => return,
                Woken::Call(Some(call)) => self.on_call(call, now_ms),
                Woken::Dialed(Ok(stream)) => {
                    // Without it small frames wait for the peer's delayed acks; a socket that refuses it still works.
                    let _ = stream.set_nodelay(true);
                    let Ok(address) = &self.address else { continue };
                    let open = Open::new(stream, address.wire(rand::random()));
                    if open.wire.is_open() {
                        self.core.connected(now_ms);
                    }
                    self.stream = Stream::Open(open);
                }
                Woken::Read(Ok(count)) if count > 0 => self.on_bytes(now_ms),
                Woken::Wrote(Ok(count)) if count > 0 => {
                    if let Stream::Open(open) = &mut self.stream {
                        open.written += count;
                    }
                }
                Woken::Dialed(Err(_)) | Woken::Read(_) | Woken::Wrote(_) => self.on_end(now_ms),
                Woken::Room => {}
                Woken::Time => self.core.timer(now_ms),
            }
        }
    }

    /// Does what the core wants of the stream.
    fn obey(&mut self) {
        while let Some(action) = self.core.poll_link() {
            self.stream = match action {
                LinkAction::Close => Stream::Closed,
                LinkAction::Connect => Stream::Dialing(Box::pin(dial(self.address.clone()))),
            };
        }
        if let Stream::Open(open) = &mut self.stream
            && open.written == open.output.len()
            && open.wire.is_open()
        {
            open.output.clear();
            open.written = 0;
            self.core.swap_output(&mut open.frames);
            open.wire.send(&mut open.frames, &mut open.output);
        }
    }

    fn on_bytes(&mut self, now_ms: u64) {
        let Stream::Open(open) = &mut self.stream else { return };
        let was_open = open.wire.is_open();
        match open.wire.received(&mut open.input, &mut open.output) {
            Ok(frames) => {
                if !was_open && open.wire.is_open() {
                    self.core.connected(now_ms);
                }
                if let Some(frames) = frames {
                    self.core.received(frames, now_ms);
                }
            }
            Err(_) => self.on_end(now_ms),
        }
    }

    fn on_end(&mut self, now_ms: u64) {
        self.stream = Stream::Closed;
        self.core.disconnected(now_ms);
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.core.deadline_ms(self.now_ms()).map(|at_ms| self.started + Duration::from_millis(at_ms));
        let has_backlog = !self.backlog.is_empty();
        let (mut dialing, mut reading, mut writing) = (None, None, None);
        match &mut self.stream {
            Stream::Closed => {}
            Stream::Dialing(dial) => dialing = Some(dial),
            Stream::Open(open) => {
                if !has_backlog {
                    reading = Some((&mut open.read, &mut open.input));
                }
                if open.written < open.output.len() {
                    writing = Some((&mut open.write, &open.output[open.written..]));
                }
            }
        }
        tokio::select! {
            call = self.calls.recv() => Woken::Call(call),
            dialed = async { match dialing { Some(dial) => dial.await, None => pending().await } } => Woken::Dialed(dialed),
            read = async {
                match reading {
                    Some((read, input)) => {
                        input.reserve(READ_BYTES);
                        read.read_buf(input).await
                    }
                    None => pending().await,
                }
            } => Woken::Read(read),
            wrote = async {
                match writing {
                    Some((write, bytes)) => write.write(bytes).await,
                    None => pending().await,
                }
            } => Woken::Wrote(wrote),
            () = async {
                match (&self.events, has_backlog) {
                    // An error means that nobody listens any more: that too is an end of waiting.
                    (Some(events), true) => drop(events.reserve().await),
                    _ => pending().await,
                }
            } => Woken::Room,
            () = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => pending().await,
                }
            } => Woken::Time,
        }
    }

    fn on_call(&mut self, call: Call, now_ms: u64) {
        match call {
            Call::Command(command, answer) => match self.core.command(command, now_ms) {
                Ok(ticket) => drop(self.waiting.insert(ticket, answer)),
                Err(Full) => drop(answer.send(Outcome::Full)),
            },
            Call::Post(command, answer) => drop(answer.send(self.core.command(command, now_ms))),
            Call::Connect => self.core.connect(now_ms),
            Call::Disconnect => self.core.disconnect(now_ms),
            Call::SetToken(token) => self.core.set_token(token, now_ms),
            Call::SyncNow => self.core.sync_now(now_ms),
            Call::State(answer) => drop(answer.send(self.core.state())),
            Call::CutLink => self.on_end(now_ms),
            Call::LosePushes(filter) => self.core.lose_pushes(filter),
            Call::WriteRaw(bytes) => self.core.write_raw(&bytes),
        }
    }

    fn hand_out_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            if let Some(event) = self.answer_call(event) {
                self.backlog.push_back(event);
            }
        }
        while let (Some(events), Some(event)) = (&self.events, self.backlog.pop_front()) {
            match events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => return self.backlog.push_front(event),
                Err(mpsc::error::TrySendError::Closed(_)) => self.events = None,
            }
        }
        self.backlog.clear();
    }

    /// Gives an answer to the call that waits for it; returns what nobody waits for.
    fn answer_call(&mut self, event: Event) -> Option<Event> {
        let ticket = match &event {
            Event::Acked { ticket, .. }
            | Event::Refused { ticket, .. }
            | Event::Answered { ticket, .. }
            | Event::RequestRefused { ticket, .. } => ticket,
            _ => return Some(event),
        };
        let Some(answer) = self.waiting.remove(ticket) else { return Some(event) };
        let outcome = match event {
            Event::Acked { conversation, client_message_id, seq, server_time_ms, .. } => {
                Outcome::Acked(Acked { conversation, client_message_id, seq, server_time_ms })
            }
            Event::Answered { answer, .. } => Outcome::Answered(answer),
            Event::Refused { refusal, .. } | Event::RequestRefused { refusal, .. } => Outcome::Refused(refusal),
            other => return Some(other),
        };
        // Whoever called may have stopped waiting.
        let _ = answer.send(outcome);
        None
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
