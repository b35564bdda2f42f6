//! The client on tokio: one task per client, a handle to command it, a stream of its events.
//!
//! In: calls of the handle, bytes of a TCP stream, time. Out: answers to the calls, events. Always: the task decides
//! nothing, it feeds the [`Core`]. When the app does not take its events, [`EVENTS_MAX`] wait, then the task stops reading
//! from the server until there is room. The task ends with the last handle. Every future awaited in its `select!` may be
//! dropped without losing a byte: `read_buf`, `write`, `recv` and `reserve` are cancel-safe.

use crate::config::{Config, Token};
use crate::connect::LinkAction;
use crate::core::{Core, PushFilter};
use crate::event::{Answer, Command, Event, Full, Recipient, Refusal, Request, Ticket};
use crate::state::{ClientState, InvalidState};
use bytes::{Bytes, BytesMut};
use im_proto::client::{self, MessageBody};
use im_proto::{ClientId, LogId, Seq, UserId};
use prost::Message as _;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Events the app has not taken.
pub const EVENTS_MAX: usize = 4096;

/// Calls the task has not taken; one more waits.
const CALLS_MAX: usize = 256;

const READ_BYTES: usize = 16 * 1024;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the client has ended")]
    Ended,
    #[error("the server gave the answer to another kind of command")]
    OtherAnswer,
}

/// A send that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    pub conversation: LogId,
    pub client_message_id: ClientId,
    pub seq: Seq,
    pub server_time_ms: i64,
}

enum Outcome {
    Acked(Acked),
    Answered(Answer),
    Refused(Refusal),
    Full,
}

enum Call {
    Command(Command, oneshot::Sender<Outcome>),
    /// The answer tells only that it was accepted.
    Post(Command, oneshot::Sender<Result<Ticket, Full>>),
    Connect,
    Disconnect,
    SetToken(Token),
    SyncNow,
    State(oneshot::Sender<ClientState>),
    CutLink,
    LosePushes(Option<PushFilter>),
    WriteRaw(Bytes),
}

/// Commands one client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    calls: mpsc::Sender<Call>,
}

/// What happens to one client, in order. Acks and answers that a call of the handle waits for go to that call instead.
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// `None`: the client has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Client {
    /// Starts a client that keeps itself connected to `address` ("host:port"). It returns at once; events tell the rest.
    pub fn connect(address: impl Into<String>, config: Config) -> (Self, Events) {
        Self::start(address.into(), Core::new(config, rand::make_rng()))
    }

    /// Goes on where an earlier run of this device stopped.
    pub fn resume(
        address: impl Into<String>,
        config: Config,
        state: ClientState,
    ) -> Result<(Self, Events), InvalidState> {
        Ok(Self::start(address.into(), Core::restore(config, state, rand::make_rng())?))
    }

    fn start(address: String, core: Core) -> (Self, Events) {
        let (calls, calls_in) = mpsc::channel(CALLS_MAX);
        let (events_out, events) = mpsc::channel(EVENTS_MAX);
        let task = Task {
            address,
            core,
            calls: calls_in,
            events: Some(events_out),
            backlog: VecDeque::new(),
            waiting: HashMap::new(),
            stream: Stream::Closed,
            started: Instant::now(),
        };
        tokio::spawn(task.run());
        (Self { calls }, Events { events })
    }

    /// Sends a text and waits until it is durable.
    pub async fn send(&self, to: Recipient, text: &str) -> Result<Acked, CallError> {
        let body = MessageBody { text: text.to_owned(), ..MessageBody::default() };
        self.send_body(to, None, body.encode_to_vec().into()).await
    }

    /// Sends an encoded `MessageBody` under an id of the app's own and waits until it is durable.
    pub async fn send_body(&self, to: Recipient, id: Option<ClientId>, body: Bytes) -> Result<Acked, CallError> {
        match self.call(Command::Send { to, client_message_id: id, body }).await? {
            Outcome::Acked(acked) => Ok(acked),
            _ => Err(CallError::OtherAnswer),
        }
    }

    /// Queues a send. Its `Acked` or `Refused` comes as an event with this ticket.
    pub async fn post(&self, to: Recipient, id: Option<ClientId>, body: Bytes) -> Result<Ticket, CallError> {
        let (answer, accepted) = oneshot::channel();
        self.tell(Call::Post(Command::Send { to, client_message_id: id, body }, answer)).await?;
        Ok(accepted.await.map_err(|_| CallError::Ended)??)
    }

    pub async fn create_group(&self, name: &str, users: Vec<UserId>) -> Result<client::CommandAck, CallError> {
        self.group_command(Request::CreateGroup { name: name.to_owned(), users, command_id: None }).await
    }

    pub async fn add_members(&self, group: LogId, users: Vec<UserId>) -> Result<client::CommandAck, CallError> {
        self.group_command(Request::AddMembers { group, users, command_id: None }).await
    }

    pub async fn remove_member(&self, group: LogId, user: UserId) -> Result<client::CommandAck, CallError> {
        self.group_command(Request::RemoveMember { group, user, command_id: None }).await
    }

    pub async fn leave(&self, group: LogId) -> Result<client::CommandAck, CallError> {
        self.group_command(Request::Leave { group, command_id: None }).await
    }

    pub async fn list_members(&self, conversation: LogId, after: Option<UserId>) -> Result<client::Members, CallError> {
        match self.request(Request::ListMembers { conversation, after, limit: 0 }).await? {
            Answer::Members(members) => Ok(members),
            _ => Err(CallError::OtherAnswer),
        }
    }

    pub async fn mark_read(&self, conversation: LogId, seq: Seq) -> Result<client::ReadMarked, CallError> {
        match self.request(Request::MarkRead { conversation, seq, command_id: None }).await? {
            Answer::ReadMarked(marked) => Ok(marked),
            _ => Err(CallError::OtherAnswer),
        }
    }

    /// Reads history; the cursors stay. `limit` 0: the server's maximum.
    pub async fn pull(&self, conversation: LogId, from: Seq, limit: u32) -> Result<client::Pulled, CallError> {
        match self.request(Request::Pull { conversation, from, limit }).await? {
            Answer::Pulled(pulled) => Ok(pulled),
            _ => Err(CallError::OtherAnswer),
        }
    }

    /// Any request, with an id of the app's own where wanted.
    pub async fn request(&self, request: Request) -> Result<Answer, CallError> {
        match self.call(Command::Request(request)).await? {
            Outcome::Answered(answer) => Ok(answer),
            _ => Err(CallError::OtherAnswer),
        }
    }

    /// Asks what moved; `Synced` follows.
    pub async fn sync_now(&self) -> Result<(), CallError> {
        self.tell(Call::SyncNow).await
    }

    /// Brings a fresh token after `NeedToken`.
    pub async fn set_token(&self, token: Token) -> Result<(), CallError> {
        self.tell(Call::SetToken(token)).await
    }

    /// Ends the link until [`reconnect`](Client::reconnect).
    pub async fn disconnect(&self) -> Result<(), CallError> {
        self.tell(Call::Disconnect).await
    }

    /// Dials now instead of later, or again after the client stayed away.
    pub async fn reconnect(&self) -> Result<(), CallError> {
        self.tell(Call::Connect).await
    }

    /// What to store for [`resume`](Client::resume). Events not taken yet are behind its cursors already: take them all
    /// first, or store it with them.
    pub async fn state(&self) -> Result<ClientState, CallError> {
        let (answer, state) = oneshot::channel();
        self.tell(Call::State(answer)).await?;
        state.await.map_err(|_| CallError::Ended)
    }

    /// For tests: the stream breaks, as if the network did it.
    pub async fn cut_link(&self) -> Result<(), CallError> {
        self.tell(Call::CutLink).await
    }

    /// For tests: loses the pushes for which `filter` says true; `None` ends it.
    pub async fn lose_pushes(&self, filter: Option<PushFilter>) -> Result<(), CallError> {
        self.tell(Call::LosePushes(filter)).await
    }

    /// For tests of the server: writes bytes as they are.
    pub async fn write_raw(&self, bytes: Bytes) -> Result<(), CallError> {
        self.tell(Call::WriteRaw(bytes)).await
    }

    async fn group_command(&self, request: Request) -> Result<client::CommandAck, CallError> {
        match self.request(request).await? {
            Answer::Done(ack) => Ok(ack),
            _ => Err(CallError::OtherAnswer),
        }
    }

    async fn call(&self, command: Command) -> Result<Outcome, CallError> {
        let (answer, outcome) = oneshot::channel();
        self.tell(Call::Command(command, answer)).await?;
        match outcome.await {
            Ok(Outcome::Refused(refusal)) => Err(refusal.into()),
            Ok(Outcome::Full) => Err(Full.into()),
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(CallError::Ended),
        }
    }

    async fn tell(&self, call: Call) -> Result<(), CallError> {
        self.calls.send(call).await.map_err(|_| CallError::Ended)
    }
}

struct Task {
    address: String,
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
    Dialing(std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    Open(Open),
}

struct Open {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    input: BytesMut,
    output: Vec<u8>,
    /// So much of `output` is written.
    written: usize,
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
    async fn run(mut self) {
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
                    let (read, write) = stream.into_split();
                    self.stream =
                        Stream::Open(Open { read, write, input: BytesMut::new(), output: Vec::new(), written: 0 });
                    self.core.connected(now_ms);
                }
                Woken::Read(Ok(count)) if count > 0 => {
                    if let Stream::Open(open) = &mut self.stream {
                        self.core.received(open.input.split().freeze(), now_ms);
                    }
                }
                Woken::Wrote(Ok(count)) if count > 0 => {
                    if let Stream::Open(open) = &mut self.stream {
                        open.written += count;
                    }
                }
                Woken::Dialed(Err(_)) | Woken::Read(_) | Woken::Wrote(_) => {
                    self.stream = Stream::Closed;
                    self.core.disconnected(now_ms);
                }
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
                LinkAction::Connect => Stream::Dialing(Box::pin(TcpStream::connect(self.address.clone()))),
            };
        }
        if let Stream::Open(open) = &mut self.stream
            && open.written == open.output.len()
        {
            self.core.swap_output(&mut open.output);
            open.written = 0;
        }
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
            Call::CutLink => {
                self.stream = Stream::Closed;
                self.core.disconnected(now_ms);
            }
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
