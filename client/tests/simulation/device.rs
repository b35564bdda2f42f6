//! One device: a core, its connection to the model server, and everything its app was told.

use crate::server::{Connection, Server, Upstream};
use bytes::Bytes;
use im_client::{Command, Config, Core, Event, LinkAction, Recipient};
use im_codec::{Deframer, Incoming, encode_delimited};
use im_proto::client::{ClientFrame, Entry};
use im_proto::{ClientId, DeviceId, UserId};
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;

pub const USERS: [&str; 3] = ["ann", "bob", "cid"];

pub struct Device {
    pub number: usize,
    pub user: &'static str,
    pub core: Core,
    deframer: Deframer,
    /// Index into the server's connections.
    connection: Option<usize>,
    sends: usize,
    /// By conversation, in the order of sending.
    pub sent: BTreeMap<String, Vec<String>>,
    /// By client_message_id: the seq, or `None` for a refusal.
    pub ended: BTreeMap<String, Option<u64>>,
    /// By conversation, in the order of being told.
    pub shown: BTreeMap<String, Vec<Entry>>,
}

impl Device {
    pub fn new(number: usize, user: &'static str, rng: &mut SmallRng) -> Self {
        let mut core = Core::new(config(number, user), SmallRng::seed_from_u64(rng.random()));
        core.connect(0);
        Self {
            number,
            user,
            core,
            deframer: Deframer::default(),
            connection: None,
            sends: 0,
            sent: BTreeMap::new(),
            ended: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    pub fn send(&mut self, now_ms: u64, rng: &mut SmallRng) {
        self.sends += 1;
        let id = format!("d{}-{}", self.number, self.sends);
        let peer = UserId::parse(USERS.choose(rng).unwrap()).unwrap();
        let log = im_proto::LogId::direct(&UserId::parse(self.user).unwrap(), &peer);
        self.sent.entry(log.to_string()).or_default().push(id.clone());
        // By its conversation only where there is one: the server would refuse an id that nobody wrote under.
        let is_known = self.shown.contains_key(log.as_str());
        let to = if is_known && rng.random_bool(0.5) { Recipient::Conversation(log) } else { Recipient::User(peer) };
        let command = Command::Send {
            to,
            client_message_id: Some(ClientId::parse(&id).unwrap()),
            body: Bytes::from(format!("body of {id}")),
        };
        self.core.command(command, now_ms).unwrap();
    }

    /// The app is killed and started again with what it had stored.
    pub fn restart(&mut self, server: &mut Server, now_ms: u64, rng: &mut SmallRng) {
        self.take_events();
        self.cut(server);
        let state = self.core.state();
        let rng = SmallRng::seed_from_u64(rng.random());
        self.core = Core::restore(config(self.number, self.user), state, rng).unwrap();
        self.core.connect(now_ms);
    }

    /// The network breaks the link, seen by this side at once.
    pub fn break_link(&mut self, server: &mut Server, now_ms: u64) {
        self.cut(server);
        self.core.disconnected(now_ms);
    }

    fn cut(&mut self, server: &mut Server) {
        if let Some(index) = self.connection.take() {
            server.connections[index].device = None;
            server.connections[index].downstream.clear();
        }
    }

    /// Moves what can be moved: link, output, time.
    pub fn turn(&mut self, server: &mut Server, now_ms: u64) {
        if self.core.deadline_ms(now_ms).is_some_and(|at_ms| at_ms <= now_ms) {
            self.core.timer(now_ms);
        }
        while let Some(action) = self.core.poll_link() {
            self.cut(server);
            if action == LinkAction::Connect {
                self.deframer = Deframer::default();
                self.connection = Some(server.connections.len());
                server.connections.push(Connection {
                    user: self.user.to_owned(),
                    device: Some(self.number),
                    upstream: Default::default(),
                    downstream: Default::default(),
                });
                self.core.connected(now_ms);
            }
        }
        let mut output = Vec::new();
        self.core.swap_output(&mut output);
        let mut output = Bytes::from(output);
        while let Some(incoming) = self.deframer.next(&mut output, 100_000).unwrap() {
            let upstream = match incoming {
                Incoming::Heartbeat => Upstream::Heartbeat,
                Incoming::Frame(frame) => Upstream::Frame(ClientFrame::decode(frame).unwrap()),
            };
            let Some(index) = self.connection else { panic!("output without a link") };
            server.connections[index].upstream.push_back(upstream);
        }
        self.take_events();
    }

    /// Some of what the server said arrives, cut anywhere.
    pub fn hear(&mut self, server: &mut Server, now_ms: u64, rng: &mut SmallRng) {
        let Some(index) = self.connection else { return };
        let Some(frame) = server.connections[index].downstream.pop_front() else { return };
        let mut bytes = encode_delimited(&frame);
        let at = rng.random_range(0..=bytes.len());
        self.core.received(bytes.split_to(at), now_ms);
        self.core.received(bytes, now_ms);
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                Event::Entry { conversation, entry } => {
                    self.shown.entry(conversation.to_string()).or_default().push(entry);
                }
                Event::Acked { client_message_id, seq, .. } => self.end(client_message_id, Some(seq.0)),
                Event::Refused { client_message_id, .. } => self.end(client_message_id, None),
                Event::Reset => panic!("a reset that nobody asked for"),
                _ => {}
            }
        }
    }

    fn end(&mut self, id: ClientId, seq: Option<u64>) {
        let before = self.ended.insert(id.to_string(), seq);
        assert_eq!(before, None, "{id} ended twice");
    }
}

fn config(number: usize, user: &str) -> Config {
    Config::new(UserId::parse(user).unwrap(), DeviceId::parse(&format!("d{number}")).unwrap(), "token")
}
