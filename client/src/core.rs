//! The client as a state machine: the fields, what goes in, what comes out.
//!
//! In: [`Core::connect`], what the transport saw ([`connected`](Core::connected), [`received`](Core::received),
//! [`disconnected`](Core::disconnected)), [`command`](Core::command), and [`timer`](Core::timer), each with the time in ms
//! of any clock that never goes back. Out, to be taken after each input: [`poll_link`](Core::poll_link),
//! [`swap_output`](Core::swap_output), [`poll_event`](Core::poll_event), [`deadline_ms`](Core::deadline_ms). Always: an
//! input never blocks and never fails because of what the server sent. Events wait in a queue as long as one input makes
//! it; a transport takes them all before the next `received`.

use crate::config::{Config, History, Token};
use crate::connect::{Link, LinkAction, Phase};
use crate::event::{Cause, Command, Event, Full, Recipient, Ticket};
use crate::gaps::Gaps;
use crate::heartbeat::Heartbeat;
use crate::outbox::Outbox;
use crate::requests::Requests;
use crate::state::{ClientState, InvalidState, OutboxSend};
use crate::sync::Sync;
use crate::wire::{Asked, Wire};
use crate::write::{QueuedWrite, Write};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use im_proto::client::{self, client_frame};
use im_proto::{ClientId, LogId, PROTOCOL_VERSION};
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _};
use std::collections::VecDeque;

/// Decides whether a pushed frame is lost on its way in. For tests of the promise that pushes may be lost.
pub type PushFilter = Box<dyn FnMut(&client::ServerFrame) -> bool + Send>;

/// What the core mends without an event. For those who judge a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Answers with an id that nobody waits for: a second answer, one behind its time-out, or one never asked for.
    pub answers_unasked: u64,
    /// Answers that were not final, time-outs included: the command was or will be repeated.
    pub repeatable_errors: u64,
}

pub struct Core {
    pub(crate) config: Config,
    pub(crate) user_log: LogId,
    pub(crate) epoch: u64,
    pub(crate) link: Link,
    pub(crate) wire: Wire,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) outbox: Outbox,
    pub(crate) requests: Requests,
    pub(crate) gaps: Gaps,
    pub(crate) sync: Sync,
    pub(crate) events: VecDeque<Event>,
    pub(crate) rng: SmallRng,
    /// Told at each sign-in with the number of the dial: one that comes late must not replace a later one.
    run: u64,
    pub(crate) loses_push: Option<PushFilter>,
    pub(crate) counters: Counters,
    next_ticket: u64,
}

impl Core {
    /// `rng` draws delays and ids; one from the system's entropy, or a seeded one in a test.
    pub fn new(config: Config, mut rng: SmallRng) -> Self {
        Self {
            // 0 would say nothing.
            run: rng.random_range(1..=u64::MAX),
            user_log: LogId::user(&config.user),
            epoch: 0,
            link: Link::new(),
            wire: Wire::default(),
            heartbeat: Heartbeat::default(),
            outbox: Outbox::new(config.outbox_sends_max),
            requests: Requests::new(config.requests_max),
            gaps: Gaps::new(config.user.clone()),
            sync: Sync::new(Bytes::new()),
            events: VecDeque::new(),
            rng,
            loses_push: None,
            counters: Counters::default(),
            next_ticket: 1,
            config,
        }
    }

    /// Goes on where an earlier run of this device stopped. Its sends are in the outbox again, with new tickets.
    pub fn restore(config: Config, state: ClientState, rng: SmallRng) -> Result<Self, InvalidState> {
        let mut core = Self::new(config, rng);
        core.epoch = state.epoch;
        core.sync = Sync::new(state.sync_token.into());
        for cursor in &state.conversations {
            core.gaps.load(LogId::parse(&cursor.conversation_id)?, cursor);
        }
        for stored in state.outbox {
            let (conversation, to, id) = stored.ids()?;
            let send = QueuedWrite::send(core.ticket(), to, id, stored.body.into());
            // What an earlier run accepted is kept, whatever this one's bound.
            core.outbox.restore(conversation, send);
        }
        Ok(core)
    }

    /// What to store, between two inputs and with all events taken.
    pub fn state(&self) -> ClientState {
        let stored = |(conversation, write): (&LogId, &QueuedWrite)| {
            let Write::Send { to, body } = &write.what else { return None };
            let user_id = match to {
                Recipient::User(user) => user.into(),
                Recipient::Conversation(_) => String::new(),
            };
            let (conversation_id, client_message_id) = (conversation.into(), (&write.id).into());
            Some(OutboxSend { user_id, conversation_id, client_message_id, body: body.to_vec() })
        };
        ClientState {
            epoch: self.epoch,
            sync_token: self.sync.token().to_vec(),
            conversations: self.gaps.cursors().collect(),
            outbox: self.outbox.iter().filter_map(stored).collect(),
        }
    }

    // ---------------------------------------------------------------------------------------------------- the app's side

    /// Dials, unless a link is there or on its way.
    pub fn connect(&mut self, now_ms: u64) {
        if matches!(self.link.phase, Phase::Stopped | Phase::Waiting { .. }) {
            self.link.dial(now_ms);
        }
    }

    /// Brings a fresh token, and dials if the old one had stopped the client.
    pub fn set_token(&mut self, token: Token, now_ms: u64) {
        self.config.token = token;
        if self.link.phase == Phase::Stopped {
            self.link.dial(now_ms);
        }
    }

    /// Ends the link and stays away until [`connect`](Core::connect).
    pub fn disconnect(&mut self, now_ms: u64) {
        if self.link.phase != Phase::Stopped {
            self.end_link(Cause::Asked, 0, now_ms);
        }
    }

    /// Asks what moved, now.
    pub fn sync_now(&mut self, now_ms: u64) {
        if self.link.phase == Phase::Up {
            self.sync.hint(0);
            self.settle(now_ms);
        }
    }

    /// Takes a command; its answer carries the ticket. It waits for a connection if there is none.
    pub fn command(&mut self, command: Command, now_ms: u64) -> Result<Ticket, Full> {
        let ticket = self.ticket();
        match command {
            Command::Send { to, client_message_id, body } => {
                let conversation = match &to {
                    Recipient::User(user) => LogId::direct(&self.config.user, user),
                    Recipient::Conversation(conversation) => conversation.clone(),
                };
                let id = client_message_id.unwrap_or_else(|| self.client_id());
                self.outbox.add(conversation, QueuedWrite::send(ticket, to, id, body))?;
            }
            Command::Request(request) => {
                let command = request.encode(|| self.client_id());
                match QueuedWrite::to_group(ticket, &self.config.user, command) {
                    Ok((group, write)) => self.outbox.add(group, write)?,
                    Err(command) => self.requests.add(ticket, command)?,
                }
            }
        }
        self.settle(now_ms);
        Ok(ticket)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Installs or removes the hook of tests that loses pushes.
    pub fn lose_pushes(&mut self, filter: Option<PushFilter>) {
        self.loses_push = filter;
    }

    /// Writes bytes that are no frame of this client. For tests of the server.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.wire.raw(bytes);
    }

    // ---------------------------------------------------------------------------------------------- the transport's side

    /// The stream is open.
    pub fn connected(&mut self, now_ms: u64) {
        if !matches!(self.link.phase, Phase::Dialing { .. }) {
            return;
        }
        self.link.phase = Phase::SigningIn;
        self.wire.restart();
        self.events.push_back(Event::Connected);
        let sign_in = client::SignIn {
            protocol_version: PROTOCOL_VERSION,
            token: self.config.token.0.clone(),
            device_id: (&self.config.device).into(),
            platform: self.config.platform.clone(),
            client_run: self.run,
            dial: self.link.dials(),
        };
        if self.wire.ask(Asked::SignIn, client_frame::Command::SignIn(sign_in), now_ms).is_err() {
            // A token above the limit can never be signed in with.
            self.end_link(Cause::Closed { code: client::CloseCode::BadToken.into() }, 0, now_ms);
        }
    }

    /// The stream ended, or could not be opened.
    pub fn disconnected(&mut self, now_ms: u64) {
        if self.link.is_open() || matches!(self.link.phase, Phase::Dialing { .. }) {
            self.end_link(Cause::Lost, 0, now_ms);
        }
    }

    /// Bytes of the stream, in pieces of any size.
    pub fn received(&mut self, mut bytes: Bytes, now_ms: u64) {
        self.heartbeat.heard(now_ms);
        while self.link.is_open() {
            match self.wire.next_frame(&mut bytes) {
                Ok(None) => break,
                Ok(Some(im_codec::Incoming::Heartbeat)) => {}
                Ok(Some(im_codec::Incoming::Frame(frame))) => match client::ServerFrame::decode(frame) {
                    Ok(frame) => self.on_frame(frame, now_ms),
                    Err(_) => self.end_link(Cause::BadFrame, 0, now_ms),
                },
                Err(_) => self.end_link(Cause::BadFrame, 0, now_ms),
            }
        }
        self.settle(now_ms);
    }

    /// The time has come that [`deadline_ms`](Core::deadline_ms) named. Too early or too often does no harm.
    pub fn timer(&mut self, now_ms: u64) {
        match self.link.phase {
            Phase::Waiting { until_ms } if now_ms >= until_ms => self.link.dial(now_ms),
            Phase::Dialing { deadline_ms } if now_ms >= deadline_ms => self.end_link(Cause::Lost, 0, now_ms),
            _ => {}
        }
        if self.heartbeat.is_dead(now_ms) {
            self.end_link(Cause::Silent, 0, now_ms);
        }
        if self.link.is_open() && self.heartbeat.is_due(now_ms) {
            self.wire.heartbeat();
        }
        while let Some((request_id, asked)) = self.wire.timed_out(now_ms) {
            self.on_time_out(request_id, asked, now_ms);
        }
        if self.link.phase == Phase::Up {
            self.outbox.release(now_ms);
            self.requests.release(now_ms);
            self.gaps.release(now_ms);
            self.sync.release(now_ms);
        }
        self.settle(now_ms);
    }

    /// What the transport has to do with the stream, in order.
    pub fn poll_link(&mut self) -> Option<LinkAction> {
        self.link.poll_action()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn has_output(&self) -> bool {
        self.wire.has_output()
    }

    /// Swaps `into` with everything that is to be written now; what `into` held is dropped and its memory used again.
    pub fn swap_output(&mut self, into: &mut Vec<u8>) {
        self.wire.swap_output(into);
    }

    /// When to call [`timer`](Core::timer) at the latest.
    pub fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let link = self.link.deadline_ms();
        if !self.link.is_open() {
            return link;
        }
        let mut deadlines = [link, self.wire.deadline_ms(), None, None, None, None, None];
        if self.link.phase == Phase::Up {
            deadlines[2] = self.heartbeat.deadline_ms();
            deadlines[3] = self.outbox.deadline_ms(now_ms);
            deadlines[4] = self.requests.deadline_ms();
            deadlines[5] = self.gaps.deadline_ms();
            deadlines[6] = self.sync.deadline_ms();
        }
        deadlines.into_iter().flatten().min()
    }

    // ------------------------------------------------------------------------------------------------------------ inside

    pub(crate) fn end_link(&mut self, cause: Cause, at_least_ms: u32, now_ms: u64) {
        let ended = self.link.end(cause, at_least_ms, now_ms, &mut self.rng);
        self.heartbeat.stop();
        self.wire.restart();
        let reconnect_after_ms = ended.reconnect_after_ms;
        self.events.push_back(Event::Disconnected { cause: ended.cause, reconnect_after_ms });
        if ended.needs_token {
            self.events.push_back(Event::NeedToken);
        }
    }

    /// Writes everything that has become possible, merged into one buffer.
    pub(crate) fn settle(&mut self, now_ms: u64) {
        if self.link.phase != Phase::Up {
            return;
        }
        self.sync.write(&mut self.wire, now_ms);
        self.requests.write(self.epoch, &mut self.wire, &mut self.events, now_ms);
        self.outbox.write(&mut self.wire, &mut self.events, now_ms);
        self.gaps.write(self.epoch, &mut self.wire, now_ms);
        if self.sync.is_finished(&self.gaps) {
            self.link.proved();
            self.events.push_back(Event::Synced);
        }
    }

    pub(crate) fn begins_now(&self) -> bool {
        self.config.history == History::FromNow
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// 16 random bytes as 22 characters.
    fn client_id(&mut self) -> ClientId {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        ClientId::parse(&text).expect("base64url of 16 bytes is an id")
    }
}
