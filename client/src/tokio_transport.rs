//! The client on tokio: a handle to command it, a stream of its events, and one task per client.
//!
//! In: calls of the handle. Out: answers to the calls, events. Always: when the app does not take its events, [`EVENTS_MAX`]
//! wait, then the task stops reading from the server until there is room. The task ends with the last handle. A call whose
//! future is dropped is carried out all the same.

mod task;

use crate::config::{Config, Token};
use crate::core::{Core, PushFilter};
use crate::event::{Answer, Command, Event, Full, Recipient, Refusal, Request, Ticket};
use crate::state::{ClientState, InvalidState};
use bytes::Bytes;
use im_proto::client::{self, MessageBody};
use im_proto::{ClientId, LogId, Seq, UserId};
use prost::Message as _;
use task::Task;
use tokio::sync::{mpsc, oneshot};

/// Events the app has not taken.
pub const EVENTS_MAX: usize = 4096;

/// Calls the task has not taken; one more waits.
const CALLS_MAX: usize = 256;

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
    /// Starts a client that keeps itself connected to `address` (`host:port`, or `ws://host:port/ws` for WebSocket). It
    /// returns at once; events tell the rest. To an address that is none it never connects.
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
        let task = Task::new(&address, core, calls_in, events_out);
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
