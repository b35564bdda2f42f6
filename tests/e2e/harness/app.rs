//! An app on one device: the Rust client, with everything it does and is shown written to the history.
//!
//! In: what the app's user does. Out: events of the history; waiting for what the app has seen. Always: one task hands the
//! commands to the client, so the order of the history is the order of sending; every command's end is recorded.

use super::history::{Device, Event, History, Op, What};
use super::raw::{DEADLINE, within_time};
use super::server::Server;
use im_client::tokio_transport::{CallError, Client, Events};
use im_client::{Answer, Config, Recipient, Request};
use im_proto::client::MessageBody;
use im_proto::{ClientId, DeviceId, LogId, Seq, UserId};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct App {
    pub device: Device,
    pub client: Client,
    user: UserId,
    history: History,
    seen: Arc<watch::Sender<Seen>>,
    /// The ops of sends without an end, by their client id.
    sends: Arc<Mutex<HashMap<String, Op>>>,
    next_id: u64,
    tasks: Vec<JoinHandle<()>>,
}

/// What has reached the app so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The last entry shown, by conversation.
    pub cursors: BTreeMap<String, u64>,
    /// The user's own read cursors, merged as an app does.
    pub reads: BTreeMap<String, u64>,
    /// Commands without an end.
    pub open: BTreeSet<Op>,
    /// Commands that were answered for good.
    pub answered: u64,
    /// Messages among them that were acked.
    pub acked: u64,
    pub syncs: usize,
    pub disconnects: usize,
    /// How often the server closed the link with a code behind which no client dials again by itself.
    pub sent_away: usize,
}

impl App {
    pub fn start(server: &Server, user: &str, device: &str, history: &History) -> Self {
        let id = UserId::parse(user).unwrap();
        let config = Config::new(id.clone(), DeviceId::parse(device).unwrap(), server.key.token(user));
        let (client, events) = Client::connect(server.clients().to_string(), config);
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let mut app = Self {
            device: Device { user: user.to_owned(), device: device.to_owned() },
            client,
            user: id,
            history: history.clone(),
            seen,
            sends: Arc::default(),
            next_id: 0,
            tasks: Vec::new(),
        };
        app.tasks.push(tokio::spawn(app.recorder().run(events)));
        app
    }

    fn recorder(&self) -> Recorder {
        let (device, history) = (self.device.clone(), self.history.clone());
        Recorder { device, history, seen: self.seen.clone(), sends: self.sends.clone() }
    }

    /// An id never used by this device before.
    fn fresh_id(&mut self, kind: &str) -> ClientId {
        self.next_id += 1;
        ClientId::parse(&format!("{kind}-{}-{}", self.device.device, self.next_id)).unwrap()
    }

    pub async fn send_to_user(&mut self, user: &str) {
        let conversation = self.conversation_with(user);
        self.send(Recipient::User(UserId::parse(user).unwrap()), &conversation).await;
    }

    /// The direct conversation with this user.
    pub fn conversation_with(&self, user: &str) -> LogId {
        LogId::direct(&self.user, &UserId::parse(user).unwrap())
    }

    /// The app was shown something of it.
    pub fn has_seen(&self, conversation: &LogId) -> bool {
        self.seen.borrow().cursors.contains_key(conversation.as_str())
    }

    pub async fn send_to(&mut self, conversation: &LogId) {
        self.send(Recipient::Conversation(conversation.clone()), conversation).await;
    }

    /// Hands a message to the client; its end is recorded when it comes.
    async fn send(&mut self, to: Recipient, conversation: &LogId) {
        let id = self.fresh_id("m");
        let text = format!("{} says {id}", self.device.user);
        let body = MessageBody { text, ..Default::default() }.encode_to_vec();
        let what = What::Message(body.clone());
        let op = self.history.lock().invoked(&self.device, conversation.as_str(), id.as_str(), what);
        self.sends.lock().unwrap().insert(id.to_string(), op);
        self.seen.send_modify(|seen| {
            seen.open.insert(op);
        });
        self.client.post(to, Some(id), body.into()).await.unwrap();
    }

    pub fn mark_read(&mut self, conversation: &LogId, seq: u64) {
        let command_id = Some(self.fresh_id("r"));
        let request = Request::MarkRead { conversation: conversation.clone(), seq: Seq(seq), command_id };
        self.request(conversation, What::Cursor, request);
    }

    /// The id of the group is known before the server is asked.
    pub fn create_group(&mut self, users: &[&str]) -> LogId {
        let id = self.fresh_id("g");
        let group = LogId::group(&self.user, &id);
        let request = Request::CreateGroup { name: "a group".to_owned(), users: ids(users), command_id: Some(id) };
        self.request(&group.clone(), What::Membership, request);
        group
    }

    pub fn add_member(&mut self, group: &LogId, user: &str) {
        let command_id = Some(self.fresh_id("a"));
        let request = Request::AddMembers { group: group.clone(), users: ids(&[user]), command_id };
        self.request(group, What::Membership, request);
    }

    pub fn remove_member(&mut self, group: &LogId, user: &str) {
        let command_id = Some(self.fresh_id("x"));
        let user = UserId::parse(user).unwrap();
        self.request(group, What::Membership, Request::RemoveMember { group: group.clone(), user, command_id });
    }

    pub fn leave(&mut self, group: &LogId) {
        let command_id = Some(self.fresh_id("l"));
        self.request(group, What::Membership, Request::Leave { group: group.clone(), command_id });
    }

    /// Sends a request and records its end, whenever it comes.
    fn request(&mut self, log: &LogId, what: What, request: Request) {
        let id = command_id(&request);
        let op = self.history.lock().invoked(&self.device, log.as_str(), &id, what);
        self.seen.send_modify(|seen| {
            seen.open.insert(op);
        });
        let (client, recorder) = (self.client.clone(), self.recorder());
        self.tasks.push(tokio::spawn(async move {
            match client.request(request).await {
                Ok(answer) => recorder.answered(op, answer),
                Err(CallError::Refused(_)) => recorder.ended(Event::Refused { op }),
                // The test ended first.
                Err(CallError::Ended) => {}
                Err(error) => panic!("{error}"),
            }
        }));
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Waits until the app has seen what `wanted` asks for.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) {
        self.until_within(DEADLINE, what, wanted).await;
    }

    async fn until_within(&self, deadline: Duration, what: &str, wanted: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let what = format!("{:?}: {what}", self.device);
        within_time(deadline, &what, seen.wait_for(wanted)).await.unwrap();
    }

    /// Waits until every command has ended. Each attempt ends in time (C5); the client makes another where that was UNKNOWN.
    pub async fn settled(&self) {
        self.until_within(3 * DEADLINE, "every command has ended", |seen| seen.open.is_empty()).await;
    }

    /// Waits until the app was shown the conversation up to `seq`.
    pub async fn shows(&self, conversation: &str, seq: u64) {
        let what = format!("shows {conversation} up to {seq}");
        self.until(&what, |seen| seen.cursors.get(conversation).copied().unwrap_or(0) >= seq).await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn ids(users: &[&str]) -> Vec<UserId> {
    users.iter().map(|user| UserId::parse(user).unwrap()).collect()
}

fn command_id(request: &Request) -> String {
    let id = match request {
        Request::MarkRead { command_id, .. }
        | Request::CreateGroup { command_id, .. }
        | Request::AddMembers { command_id, .. }
        | Request::RemoveMember { command_id, .. }
        | Request::Leave { command_id, .. } => command_id,
        Request::ListMembers { .. } | Request::Pull { .. } => panic!("only commands that write have an id"),
    };
    id.as_ref().unwrap().to_string()
}

/// Writes what happens to one device into the history.
struct Recorder {
    device: Device,
    history: History,
    seen: Arc<watch::Sender<Seen>>,
    sends: Arc<Mutex<HashMap<String, Op>>>,
}

impl Recorder {
    async fn run(self, mut events: Events) {
        while let Some(event) = events.next().await {
            self.event(event);
        }
    }

    fn event(&self, event: im_client::Event) {
        use im_client::Event as E;
        match event {
            E::Entry { conversation, entry } => {
                let (log, seq) = (conversation.to_string(), entry.seq);
                self.history.record(Event::Applied { device: self.device.clone(), log: log.clone(), entry });
                self.seen.send_modify(|seen| {
                    seen.cursors.insert(log, seq);
                });
            }
            E::Acked { client_message_id, epoch, seq, server_time_ms, .. } => {
                let Some(op) = self.take(&client_message_id) else { return };
                self.ended(Event::Stored { op, epoch: epoch.0, seq: seq.0, server_time_ms });
                self.seen.send_modify(|seen| seen.acked += 1);
            }
            E::Refused { client_message_id, .. } => {
                let Some(op) = self.take(&client_message_id) else { return };
                self.ended(Event::Refused { op });
            }
            E::ReadMoved { conversation, seq, .. } => self.read_marked(conversation.to_string(), seq.0),
            E::Synced => self.seen.send_modify(|seen| seen.syncs += 1),
            E::Disconnected { cause, reconnect_after_ms } => self.seen.send_modify(|seen| {
                seen.disconnects += 1;
                let is_for_good = reconnect_after_ms.is_none() && matches!(cause, im_client::Cause::Closed { .. });
                seen.sent_away += usize::from(is_for_good);
            }),
            E::Reset => panic!("{:?}: the server says that its history was replaced", self.device),
            _ => {}
        }
    }

    fn take(&self, id: &ClientId) -> Option<Op> {
        self.sends.lock().unwrap().remove(id.as_str())
    }

    fn answered(&self, op: Op, answer: Answer) {
        match answer {
            Answer::Done(ack) => {
                let server_time_ms = ack.server_time_ms;
                self.ended(Event::Stored { op, epoch: ack.epoch, seq: ack.seq, server_time_ms });
            }
            Answer::ReadMarked(marked) => {
                let (epoch, seq) = (marked.epoch, marked.read_seq);
                self.ended(Event::Stored { op, epoch, seq, server_time_ms: 0 });
                self.read_marked(marked.conversation_id, seq);
            }
            other => panic!("{other:?}"),
        }
    }

    fn read_marked(&self, log: String, seq: u64) {
        self.seen.send_if_modified(|seen| {
            let known = seen.reads.entry(log.clone()).or_default();
            let rises = *known < seq;
            *known = seq.max(*known);
            // Inside: an answer and a push are recorded by different tasks, in the order in which they were merged.
            if rises {
                self.history.record(Event::ReadMarked { device: self.device.clone(), log, seq });
            }
            rises
        });
    }

    fn ended(&self, event: Event) {
        let (Event::Stored { op, .. } | Event::Refused { op }) = event else { panic!("{event:?} ends nothing") };
        self.history.record(event);
        self.seen.send_modify(|seen| {
            seen.open.remove(&op);
            seen.answered += 1;
        });
    }
}
