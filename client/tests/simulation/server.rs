//! A server that keeps the contract and is as unkind as the contract allows.
//!
//! In: frames of connections. Out: answers and pushes, late, lost (pushes only), doubled, out of order; errors of every
//! class. Always: what is stored follows the contract: one order, one entry for an id, `after` obeyed, also for copies of
//! ended connections that arrive late.

use bytes::Bytes;
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ClientFrame, Entry, ErrorClass, ErrorCode, ServerFrame, entry, send};
use im_proto::{LogId, UserId};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub const EPOCH: u64 = 5;
const PULL_ENTRIES_MAX: usize = 3;
const SYNC_PAGE_MAX: usize = 2;

#[derive(Default)]
pub struct Server {
    pub logs: BTreeMap<String, Vec<Entry>>,
    /// By user: conversation → version of its last move.
    inboxes: BTreeMap<String, BTreeMap<String, u64>>,
    version: u64,
    /// Never empty of what ended connections had sent: copies that arrive late.
    pub connections: Vec<Connection>,
    /// Refused for good.
    refused: BTreeSet<String>,
    pub kind: bool,
}

pub struct Connection {
    pub user: String,
    /// `None`: the link has ended; what was sent on it may still arrive.
    pub device: Option<usize>,
    pub upstream: VecDeque<Upstream>,
    pub downstream: VecDeque<ServerFrame>,
}

pub enum Upstream {
    Frame(ClientFrame),
    Heartbeat,
}

fn error(class: ErrorClass, code: ErrorCode, retry_after_ms: u32) -> Body {
    Body::Error(client::Error { class: class.into(), code: code.into(), retry_after_ms, detail: String::new() })
}

impl Server {
    /// Handles one thing that some connection sent.
    pub fn step(&mut self, rng: &mut SmallRng) {
        let waiting: Vec<usize> =
            (0..self.connections.len()).filter(|index| !self.connections[*index].upstream.is_empty()).collect();
        let Some(index) = waiting.choose(rng) else { return };
        let user = self.connections[*index].user.clone();
        match self.connections[*index].upstream.pop_front().unwrap() {
            Upstream::Heartbeat => {
                let hint = client::SyncHint { inbox_version: self.version };
                self.push_to(*index, Body::SyncHint(hint));
            }
            Upstream::Frame(frame) => {
                let body = match frame.command.unwrap() {
                    Command::SignIn(_) => signed_in(&user),
                    Command::Send(send) => self.send(*index, &user, send, rng),
                    Command::Pull(pull) => self.pull(&pull, rng),
                    Command::Sync(sync) => self.sync(&user, &sync, rng),
                    other => panic!("{other:?}"),
                };
                let connection = &mut self.connections[*index];
                connection.downstream.push_back(ServerFrame { request_id: frame.request_id, body: Some(body) });
            }
        }
    }

    fn is_unkind(&self, rng: &mut SmallRng, percent: u32) -> bool {
        !self.kind && rng.random_range(0..100) < percent
    }

    fn send(&mut self, from: usize, user: &str, send: client::Send, rng: &mut SmallRng) -> Body {
        if self.is_unkind(rng, 5) {
            return error(ErrorClass::Busy, ErrorCode::RateLimited, rng.random_range(0..300));
        }
        if self.is_unkind(rng, 10) {
            return error(ErrorClass::Retry, ErrorCode::Unavailable, 0);
        }
        let peer = match send.to.clone() {
            Some(send::To::UserId(peer)) => peer,
            Some(send::To::ConversationId(log)) => self.peer_of(user, &log),
            None => panic!("{send:?}"),
        };
        let log = LogId::direct(&UserId::parse(user).unwrap(), &UserId::parse(&peer).unwrap()).to_string();
        let answer = self.decide(from, user, &peer, &log, send, rng);
        if self.is_unkind(rng, 5) { error(ErrorClass::Unknown, ErrorCode::TimedOut, 0) } else { answer }
    }

    fn peer_of(&self, user: &str, log: &str) -> String {
        let first = &self.logs[log][0];
        let Some(entry::Content::Message(message)) = &first.content else { panic!("{first:?}") };
        if first.sender_user_id == user { message.to_user_id.clone() } else { first.sender_user_id.clone() }
    }

    fn decide(
        &mut self,
        from: usize,
        user: &str,
        peer: &str,
        log: &str,
        send: client::Send,
        rng: &mut SmallRng,
    ) -> Body {
        let entries = self.logs.entry(log.to_owned()).or_default();
        let find = |id: &str| entries.iter().find(|entry| entry.client_id == id && entry.sender_user_id == user);
        if let Some(stored) = find(&send.client_message_id) {
            return ack(log, stored);
        }
        if !send.after.is_empty() && find(&send.after).is_none() && !self.refused.contains(&send.after) {
            return error(ErrorClass::Retry, ErrorCode::OutOfOrder, 0);
        }
        // Whether a message may be sent is the same for every attempt.
        if send.client_message_id.ends_with("13") {
            self.refused.insert(send.client_message_id);
            return error(ErrorClass::Final, ErrorCode::NotAllowed, 0);
        }
        let seq = entries.len() as u64 + 1;
        let message = client::Message { body: send.body, to_user_id: peer.to_owned() };
        let entry = Entry {
            seq,
            ordinal: seq,
            server_time_ms: 1,
            sender_user_id: user.to_owned(),
            client_id: send.client_message_id,
            content: Some(entry::Content::Message(message)),
        };
        entries.push(entry.clone());
        self.deliver(from, [user, peer], log, &entry, rng);
        ack(log, &entry)
    }

    fn deliver(&mut self, from: usize, users: [&str; 2], log: &str, entry: &Entry, rng: &mut SmallRng) {
        self.version += 1;
        for user in users {
            self.inboxes.entry(user.to_owned()).or_default().insert(log.to_owned(), self.version);
        }
        for index in 0..self.connections.len() {
            let is_told = index != from && users.contains(&self.connections[index].user.as_str());
            if !is_told || self.is_unkind(rng, 30) {
                continue;
            }
            let pushed =
                client::EntryPushed { conversation_id: log.to_owned(), epoch: EPOCH, entry: Some(entry.clone()) };
            for _ in 0..if self.is_unkind(rng, 10) { 2 } else { 1 } {
                self.push_to(index, Body::Entry(pushed.clone()));
            }
            let downstream = &mut self.connections[index].downstream;
            // A push may overtake what was said before it.
            if downstream.len() >= 2 && rng.random_bool(0.2) {
                let last = downstream.len() - 1;
                downstream.swap(last, last - 1);
            }
        }
    }

    fn push_to(&mut self, index: usize, body: Body) {
        self.connections[index].downstream.push_back(ServerFrame { request_id: 0, body: Some(body) });
    }

    fn pull(&mut self, pull: &client::Pull, rng: &mut SmallRng) -> Body {
        if self.is_unkind(rng, 20) {
            return error(ErrorClass::Retry, ErrorCode::Unavailable, 10);
        }
        let entries = self.logs.get(&pull.conversation_id).cloned().unwrap_or_default();
        let head_seq = entries.len() as u64;
        assert!(pull.from_seq >= 1 && pull.from_seq <= head_seq + 1, "a pull above the head");
        let behind = entries.into_iter().skip(pull.from_seq as usize - 1).take(PULL_ENTRIES_MAX).collect();
        let conversation_id = pull.conversation_id.clone();
        Body::Pulled(client::Pulled { conversation_id, epoch: EPOCH, head_seq, floor_seq: 1, entries: behind })
    }

    fn sync(&mut self, user: &str, sync: &client::Sync, rng: &mut SmallRng) -> Body {
        if self.is_unkind(rng, 20) {
            return error(ErrorClass::Busy, ErrorCode::Overload, 10);
        }
        let after = match sync.token.as_ref() {
            [] => 0,
            token => u64::from_be_bytes(token.try_into().unwrap()),
        };
        let inbox = self.inboxes.get(user).cloned().unwrap_or_default();
        let mut moved: Vec<(u64, String)> =
            inbox.into_iter().map(|(log, version)| (version, log)).filter(|(version, _)| *version > after).collect();
        moved.sort();
        let complete = moved.len() <= SYNC_PAGE_MAX;
        moved.truncate(SYNC_PAGE_MAX);
        let covered = if complete { self.version } else { moved.last().unwrap().0 };
        let state = |(_, log): (u64, String)| {
            let head = self.logs[&log].len() as u64;
            client::ConversationState {
                peer_user_id: self.peer_of(user, &log),
                conversation_id: log,
                head_seq: head,
                head_ordinal: head,
                floor_seq: 1,
                member: true,
                ..Default::default()
            }
        };
        Body::Synced(client::Synced {
            token: Bytes::copy_from_slice(&covered.to_be_bytes()),
            complete,
            epoch: EPOCH,
            inbox_version: covered,
            conversations: moved.into_iter().map(state).collect(),
            ..Default::default()
        })
    }
}

fn ack(log: &str, entry: &Entry) -> Body {
    Body::SendAck(client::SendAck {
        conversation_id: log.to_owned(),
        epoch: EPOCH,
        seq: entry.seq,
        server_time_ms: entry.server_time_ms,
        ordinal: entry.ordinal,
    })
}

fn signed_in(user: &str) -> Body {
    Body::SignedIn(client::SignedIn {
        user_id: user.to_owned(),
        epoch: EPOCH,
        generation: 1,
        heartbeat_interval_ms: 1_000,
        idle_timeout_ms: 5_000,
        frame_bytes_max: 10_000,
        pending_sends_max: 6,
        ..Default::default()
    })
}
