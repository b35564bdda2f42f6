//! A server that says exactly what a test tells it to say.
//!
//! In: frames to be sent to the client. Out: the client's frames and events. Always: everything the client writes is
//! decoded as the server would; nothing happens unless the test says so.

use bytes::Bytes;
use im_client::{Config, Core, Event, LinkAction, Recipient, Ticket};
use im_codec::{Deframer, Incoming, encode_delimited};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ClientFrame, Entry, ErrorClass, ErrorCode, ServerFrame, entry};
use im_proto::{ClientId, DeviceId, LogId, UserId};
use prost::Message as _;
use rand::{SeedableRng as _, rngs::SmallRng};
use std::collections::VecDeque;

pub const EPOCH: u64 = 77;

pub struct Script {
    pub core: Core,
    pub now_ms: u64,
    deframer: Deframer,
    frames: VecDeque<ClientFrame>,
    pub heartbeats: usize,
}

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn id(text: &str) -> ClientId {
    ClientId::parse(text).unwrap()
}

pub fn config() -> Config {
    Config::new(user("ann"), DeviceId::parse("phone").unwrap(), "secret-token")
}

/// The conversation of ann and bob.
pub fn ann_bob() -> LogId {
    LogId::direct(&user("ann"), &user("bob"))
}

pub fn entry(seq: u64) -> Entry {
    let body = Bytes::from(format!("body {seq}"));
    let message = client::Message { body, to_user_id: "ann".to_owned() };
    Entry {
        seq,
        ordinal: seq,
        sender_user_id: "bob".to_owned(),
        client_id: format!("m{seq}"),
        content: Some(entry::Content::Message(message)),
        ..Entry::default()
    }
}

pub fn pushed(log: &LogId, entry: Entry) -> Body {
    Body::Entry(client::EntryPushed { conversation_id: log.into(), epoch: EPOCH, entry: Some(entry) })
}

pub fn state(log: &LogId, head_seq: u64) -> client::ConversationState {
    client::ConversationState {
        conversation_id: log.into(),
        head_seq,
        head_ordinal: head_seq,
        member: true,
        ..Default::default()
    }
}

pub fn synced(token: &'static str, complete: bool, conversations: Vec<client::ConversationState>) -> client::Synced {
    client::Synced {
        token: Bytes::from_static(token.as_bytes()),
        complete,
        epoch: EPOCH,
        inbox_version: 10,
        conversations,
        user_entries: vec![],
        user_log_seq: 2,
    }
}

pub fn pulled(log: &LogId, seqs: impl IntoIterator<Item = u64>, head_seq: u64, floor_seq: u64) -> Body {
    let entries = seqs.into_iter().map(entry).collect();
    Body::Pulled(client::Pulled { conversation_id: log.into(), epoch: EPOCH, head_seq, floor_seq, entries })
}

pub fn ack(log: &LogId, seq: u64) -> Body {
    let conversation_id = log.into();
    Body::SendAck(client::SendAck { conversation_id, epoch: EPOCH, seq, server_time_ms: 5, ordinal: seq })
}

pub fn error(class: ErrorClass, code: ErrorCode, retry_after_ms: u32) -> Body {
    Body::Error(client::Error { class: class.into(), code: code.into(), retry_after_ms, detail: String::new() })
}

impl Script {
    pub fn over(mut core: Core) -> Self {
        core.connect(0);
        let mut script =
            Self { core, now_ms: 0, deframer: Deframer::default(), frames: VecDeque::new(), heartbeats: 0 };
        assert_eq!(script.core.poll_link(), Some(LinkAction::Connect));
        script.open();
        script
    }

    /// Dialled; the sign-in waits for its answer.
    pub fn new() -> Self {
        Self::over(Core::new(config(), SmallRng::seed_from_u64(1)))
    }

    /// Signed in and synced: nothing is unanswered.
    pub fn live() -> Self {
        let mut script = Self::new();
        script.sign_in();
        let sync = script.expect_sync(b"");
        script.answer(sync, Body::Synced(synced("t1", true, vec![])));
        script.events();
        script
    }

    /// The stream is open; what an earlier one carried is forgotten.
    pub fn open(&mut self) {
        self.deframer = Deframer::default();
        self.frames.clear();
        self.core.connected(self.now_ms);
    }

    pub fn sign_in(&mut self) {
        self.sign_in_to(EPOCH);
    }

    pub fn sign_in_to(&mut self, epoch: u64) {
        let frame = self.next();
        assert!(matches!(frame.command, Some(Command::SignIn(_))), "{frame:?}");
        let signed_in = client::SignedIn {
            user_id: "ann".to_owned(),
            device_id: "phone".to_owned(),
            epoch,
            generation: 1,
            heartbeat_interval_ms: 30_000,
            idle_timeout_ms: 75_000,
            frame_bytes_max: 1_000,
            pending_sends_max: 4,
            user_log_id: (&LogId::user(&user("ann"))).into(),
            ..Default::default()
        };
        self.answer(frame.request_id, Body::SignedIn(signed_in));
    }

    pub fn send(&mut self, message_id: &str) -> Ticket {
        let command = im_client::Command::Send {
            to: Recipient::User(user("bob")),
            client_message_id: Some(id(message_id)),
            body: Bytes::from(message_id.to_owned()),
        };
        self.core.command(command, self.now_ms).unwrap()
    }

    pub fn answer(&mut self, request_id: u64, body: Body) {
        let frame = encode_delimited(&ServerFrame { request_id, body: Some(body) });
        self.core.received(frame, self.now_ms);
    }

    pub fn push(&mut self, body: Body) {
        self.answer(0, body);
    }

    /// The stream breaks; returns after how long the client dials again.
    pub fn cut(&mut self) -> u64 {
        self.core.disconnected(self.now_ms);
        assert_eq!(self.core.poll_link(), Some(LinkAction::Close));
        self.core.deadline_ms(self.now_ms).unwrap() - self.now_ms
    }

    /// Cut, dialled again, signed in.
    pub fn reconnect(&mut self) {
        let delay_ms = self.cut();
        self.wait(delay_ms);
        assert_eq!(self.core.poll_link(), Some(LinkAction::Connect));
        self.open();
        self.sign_in();
    }

    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.core.timer(self.now_ms);
    }

    /// Waits until the next deadline of the client.
    pub fn wait_for_deadline(&mut self) -> u64 {
        let at_ms = self.core.deadline_ms(self.now_ms).expect("a deadline");
        let ms = at_ms.saturating_sub(self.now_ms);
        self.wait(ms);
        ms
    }

    pub fn next(&mut self) -> ClientFrame {
        self.try_next().expect("a frame of the client")
    }

    pub fn try_next(&mut self) -> Option<ClientFrame> {
        let mut output = Vec::new();
        self.core.swap_output(&mut output);
        let mut output = Bytes::from(output);
        while let Some(incoming) = self.deframer.next(&mut output, 8_192).unwrap() {
            match incoming {
                Incoming::Heartbeat => self.heartbeats += 1,
                Incoming::Frame(frame) => self.frames.push_back(ClientFrame::decode(frame).unwrap()),
            }
        }
        self.frames.pop_front()
    }

    pub fn is_silent(&mut self) -> bool {
        self.try_next().is_none()
    }

    /// The next frame is a send: (request id, client_message_id, after).
    pub fn next_send(&mut self) -> (u64, String, String) {
        let frame = self.next();
        match frame.command {
            Some(Command::Send(send)) => (frame.request_id, send.client_message_id, send.after),
            other => panic!("no send: {other:?}"),
        }
    }

    /// The next frame is a pull of `log` from `from_seq`.
    pub fn expect_pull(&mut self, log: &LogId, from_seq: u64) -> u64 {
        let frame = self.next();
        match frame.command {
            Some(Command::Pull(pull)) => {
                assert_eq!((pull.conversation_id.as_str(), pull.from_seq, pull.epoch), (log.as_str(), from_seq, EPOCH));
                frame.request_id
            }
            other => panic!("no pull: {other:?}"),
        }
    }

    pub fn expect_sync(&mut self, token: &[u8]) -> u64 {
        let frame = self.next();
        match frame.command {
            Some(Command::Sync(sync)) => {
                assert_eq!(sync.token, token);
                frame.request_id
            }
            other => panic!("no sync: {other:?}"),
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    /// The seqs of the entries handed over since the last look.
    pub fn seqs(&mut self) -> Vec<u64> {
        let seq = |event| match event {
            Event::Entry { entry, .. } => Some(entry.seq),
            _ => None,
        };
        self.events().into_iter().filter_map(seq).collect()
    }
}
