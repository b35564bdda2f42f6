//! A real gateway with a small logic behind it, and a client on a real socket.
//!
//! In: what a test wants the logic and the queue to do, and on which transport and driver. Out: frames as a client sees
//! them. Always: nothing sleeps to wait for something; a read or a wait that gets nothing for [`PATIENCE`] fails the test.
#![allow(dead_code, clippy::unwrap_used)]

mod device;

use bytes::Bytes;
pub use device::{Client, read_to_end};
use im_codec::encode_delimited;
use im_codec::websocket::Origins;
use im_gateway::{
    AskLogic, CoreLane, Driver, Forward, Gateway, GatewayConfig, GatewayHandle, HeldLogin, LargeHead, LargeMembers,
    LargeMembership, LogicAnswer, Question, SignInRefused, SignedIn, Upstream, WebsocketConfig,
};
use im_proto::client::{self, CloseCode, client_frame::Command, kicked::Reason, server_frame::Body};
use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, LogId, Seq, UserId, internal};
use prost::Message as _;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    WebSocket,
}

/// What a test runs on.
#[derive(Debug, Clone, Copy)]
pub struct On {
    pub transport: Transport,
    pub driver: Driver,
}

pub const TCP_URING: On = On { transport: Transport::Tcp, driver: Driver::Uring };
pub const TCP_EPOLL: On = On { transport: Transport::Tcp, driver: Driver::Epoll };
pub const WEBSOCKET_URING: On = On { transport: Transport::WebSocket, driver: Driver::Uring };
pub const WEBSOCKET_EPOLL: On = On { transport: Transport::WebSocket, driver: Driver::Epoll };
pub const EVERY: [On; 4] = [TCP_URING, TCP_EPOLL, WEBSOCKET_URING, WEBSOCKET_EPOLL];

/// Makes a test of the same name for each transport and driver.
#[macro_export]
macro_rules! on_every_transport_and_driver {
    ($($name:ident),* $(,)?) => {
        mod tcp_io_uring {
            $(#[test] fn $name() { super::$name($crate::kit::TCP_URING) })*
        }
        mod tcp_epoll {
            $(#[test] fn $name() { super::$name($crate::kit::TCP_EPOLL) })*
        }
        $crate::websocket_on_both_drivers!($($name),*);
    };
}

/// Makes a test of the same name for each driver, over WebSocket.
#[macro_export]
macro_rules! websocket_on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod websocket_io_uring {
            $(#[test] fn $name() { super::$name($crate::kit::WEBSOCKET_URING) })*
        }
        mod websocket_epoll {
            $(#[test] fn $name() { super::$name($crate::kit::WEBSOCKET_EPOLL) })*
        }
    };
}

/// The page that may connect.
pub const ORIGIN: &str = "http://127.0.0.1:6102";

pub fn config(on: On) -> GatewayConfig {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let origins = Origins { listed: vec![ORIGIN.into()], own_http_port: None };
    let websocket = WebsocketConfig { address, origins };
    GatewayConfig {
        tcp: address,
        websocket: (on.transport == Transport::WebSocket).then_some(websocket),
        cores: 2,
        pin: false,
        driver: on.driver,
        accept_rate_per_address_per_s: 10_000,
        accept_burst_per_address: 10_000,
        unauthenticated_per_address_max: 10_000,
        ..GatewayConfig::default()
    }
}

/// Has a further gateway listen where the tested transport of `server` does.
pub fn listen_like(server: &Server, config: &mut GatewayConfig) {
    match &mut config.websocket {
        Some(websocket) => websocket.address = server.address(),
        None => config.tcp = server.address(),
    }
}

/// What the queue does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueMode {
    /// Acks it at once.
    Ack,
    /// Takes it and says nothing.
    Keep,
    /// Takes nothing.
    Full,
}

/// What the test's logic knows and has seen.
pub struct State {
    pub queue: QueueMode,
    pub kept: Vec<internal::Upstream>,
    pub versions: HashMap<String, u64>,
    /// Users whose login has ended, while the kick that said so was lost.
    pub ended: HashMap<String, Reason>,
    pub answers_versions: bool,
    pub answers_reads: bool,
    pub answers_sign_ins: bool,
    /// Bytes that an answer to a read has at least.
    pub read_padding: usize,
    /// Sign-ins that wait to be answered by the test.
    pub sign_ins: Vec<(ConnectionId, client::SignIn, CoreLane)>,
    pub connections: HashMap<String, ConnectionId>,
    pub signed_out: Vec<(ConnectionId, Generation)>,
    pub token_expires_at_ms: Option<i64>,
    pub next_generation: u64,
    /// The large conversations of users, and what the logic says of each.
    pub large: HashMap<String, Vec<LargeMembership>>,
    pub large_members: LargeMembers,
    pub large_heads: HashMap<String, LargeHead>,
    /// Questions for the members that wait to be answered by the test; `None`: they are answered at once.
    pub large_asked: Option<Vec<(LogId, CoreLane)>>,
    pub large_questions: usize,
}

pub struct Logic {
    state: Mutex<State>,
    changed: Condvar,
    handle: OnceLock<GatewayHandle>,
}

pub struct Server {
    pub handle: GatewayHandle,
    pub logic: Arc<Logic>,
}

impl Server {
    pub fn start(config: GatewayConfig) -> Self {
        let logic = Arc::new(Logic {
            state: Mutex::new(State {
                queue: QueueMode::Ack,
                kept: Vec::new(),
                versions: HashMap::new(),
                ended: HashMap::new(),
                answers_versions: true,
                answers_reads: true,
                answers_sign_ins: true,
                read_padding: 0,
                sign_ins: Vec::new(),
                connections: HashMap::new(),
                signed_out: Vec::new(),
                token_expires_at_ms: None,
                next_generation: 1,
                large: HashMap::new(),
                large_members: LargeMembers { members_seq: Seq(0), members: Vec::new() },
                large_heads: HashMap::new(),
                large_asked: None,
                large_questions: 0,
            }),
            changed: Condvar::new(),
            handle: OnceLock::new(),
        });
        let handle = Gateway::start(config, logic.clone(), logic.clone()).unwrap();
        assert!(logic.handle.set(handle.clone()).is_ok());
        Self { handle, logic }
    }

    /// Where the tested transport listens.
    pub fn address(&self) -> SocketAddr {
        self.handle.websocket_address().unwrap_or(self.handle.tcp_address())
    }

    pub fn transport(&self) -> Transport {
        if self.handle.websocket_address().is_some() { Transport::WebSocket } else { Transport::Tcp }
    }

    /// A client that can send frames.
    pub fn connect(&self) -> Client {
        self.over(TcpStream::connect(self.address()).unwrap())
    }

    /// A client on a socket that is connected; over WebSocket the handshake is made.
    pub fn over(&self, socket: TcpStream) -> Client {
        Client::over(socket, self.transport()).expect("a handshake")
    }

    /// A client whose kernel takes little that it does not read.
    pub fn connect_narrow(&self) -> Client {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.address().into()).unwrap();
        self.over(socket.into())
    }

    /// A client that says nothing is told `code`; over WebSocket, where there was no handshake, by this HTTP status.
    pub fn expect_turned_away(&self, code: CloseCode, status: u16) {
        let socket = TcpStream::connect(self.address()).unwrap();
        match self.transport() {
            Transport::Tcp => drop(self.over(socket).expect_closed(code)),
            Transport::WebSocket => {
                let answer = read_to_end(socket);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            }
        }
    }

    /// A client that is signed in as `user`.
    pub fn sign_in(&self, user: &str) -> Client {
        self.sign_in_over(self.connect(), user)
    }

    pub fn sign_in_over(&self, mut client: Client, user: &str) -> Client {
        client.send_sign_in(user);
        let signed_in = client.expect_signed_in();
        assert_eq!(signed_in.user_id, user);
        client
    }

    /// Like [`sign_in`](Self::sign_in), while a core that restarts may have no listener.
    pub fn sign_in_again(&self, user: &str) -> Client {
        loop {
            match TcpStream::connect(self.address()) {
                Ok(socket) => {
                    if let Some(client) = Client::over(socket, self.transport()) {
                        return self.sign_in_over(client, user);
                    }
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn connection(&self, user: &str) -> ConnectionId {
        self.logic.state.lock().unwrap().connections[user]
    }

    pub fn push(&self, frame: &Bytes, targets: &[(&str, Option<(u64, u64)>)]) {
        let targets = targets
            .iter()
            .map(|(user, inbox)| internal::Target {
                connection_id: self.connection(user).0,
                inbox: inbox.map(|(previous, version)| internal::InboxMove { previous, version }),
            })
            .collect();
        let push = internal::Push { frame: frame.clone(), targets };
        self.handle.deliver(vec![internal::Delivery { kind: Some(internal::delivery::Kind::Push(push)), trace: None }]);
    }

    /// Acks what the queue has kept, oldest first, up to `count`.
    pub fn ack_kept(&self, count: usize) {
        let kept: Vec<_> = self.logic.set(|s| s.kept.drain(..count.min(s.kept.len())).collect());
        self.handle.deliver(kept.iter().map(|upstream| self.logic.ack(upstream)).collect());
    }

    pub fn kick(&self, connection: ConnectionId, generation: u64) {
        let reason = client::kicked::Reason::Replaced as u32;
        let kick = internal::Kick { connection_id: connection.0, generation, reason };
        self.handle.deliver(vec![internal::Delivery { kind: Some(internal::delivery::Kind::Kick(kick)), trace: None }]);
    }

    /// Waits until the metrics are as wanted: they follow the events by a moment.
    pub fn wait_for_metrics(&self, what: &str, wanted: impl Fn(&im_gateway::Snapshot) -> bool) {
        let begun = std::time::Instant::now();
        while !wanted(&self.handle.metrics()) {
            assert!(begun.elapsed() < PATIENCE, "{what}: {:#?}", self.handle.metrics());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
        self.handle.join();
    }
}

impl Logic {
    pub fn set<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let result = with(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        result
    }

    /// Waits until the state is as wanted.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(result) = wanted(&mut state) {
                return result;
            }
            let (next, timeout) = self.changed.wait_timeout(state, PATIENCE).unwrap();
            assert!(!timeout.timed_out(), "waited in vain: {what}");
            state = next;
        }
    }

    pub fn answer_sign_in(&self, connection: ConnectionId, user: &str, lane: &CoreLane) {
        let outcome = self.set(|state| {
            if user == "nobody" {
                return Err(SignInRefused { code: CloseCode::BadToken, reconnect_after_ms: 0, detail: "bad".into() });
            }
            let generation = state.next_generation;
            state.next_generation += 1;
            state.connections.insert(user.to_owned(), connection);
            Ok(SignedIn {
                user: UserId::parse(user).unwrap(),
                device: DeviceId::parse("phone").unwrap(),
                generation: Generation(generation),
                inbox_version: InboxVersion(state.versions.get(user).copied().unwrap_or(0)),
                epoch: Epoch(7),
                token_expires_at_ms: state.token_expires_at_ms,
                large: state.large.get(user).cloned().unwrap_or_default(),
            })
        });
        lane.answer(LogicAnswer::SignedIn { connection, outcome });
    }

    pub fn ack(&self, upstream: &internal::Upstream) -> internal::Delivery {
        let origin = upstream.origin.as_ref().unwrap();
        let ack = client::SendAck {
            conversation_id: upstream.log_id.clone(),
            epoch: 7,
            seq: origin.request_id,
            ..Default::default()
        };
        let frame = server_frame(origin.request_id, Body::SendAck(ack));
        let answer =
            internal::Answer { connection_id: origin.connection_id, request_id: origin.request_id, frame, inbox: None };
        internal::Delivery { kind: Some(internal::delivery::Kind::Answer(answer)), trace: None }
    }
}

impl Forward for Logic {
    fn forward(&self, records: &mut Vec<Upstream>) {
        let mode = self.state.lock().unwrap().queue;
        if mode == QueueMode::Full {
            return;
        }
        let taken: Vec<_> =
            records.drain(..).map(|r| internal::Upstream::decode(r.record).expect("a record decodes")).collect();
        if mode == QueueMode::Ack {
            self.handle.get().unwrap().deliver(taken.iter().map(|u| self.ack(u)).collect());
        }
        self.set(|state| state.kept.extend(taken));
    }
}

impl AskLogic for Logic {
    fn ask(&self, question: Question, lane: CoreLane) {
        match question {
            Question::SignIn { connection, sign_in } => {
                if self.set(|s| s.answers_sign_ins) {
                    self.answer_sign_in(connection, &sign_in.token, &lane);
                } else {
                    self.set(|s| s.sign_ins.push((connection, sign_in, lane)));
                }
            }
            Question::Read { connection, request_id, user, .. } => {
                if !self.set(|s| s.answers_reads) {
                    return;
                }
                let version = self.set(|s| s.versions.get(user.as_str()).copied().unwrap_or(0));
                let token = vec![0; self.set(|s| s.read_padding)].into();
                let synced = client::Synced { token, complete: true, inbox_version: version, ..Default::default() };
                let frame = server_frame(request_id, Body::Synced(synced));
                let inbox_version = Some(InboxVersion(version));
                let large = self.set(|s| s.large_heads.values().map(|head| (head.log.clone(), head.seq)).collect());
                lane.answer(LogicAnswer::Read { connection, request_id, frame, inbox_version, large });
            }
            Question::Heartbeats { logins } => {
                if !self.set(|s| s.answers_versions) {
                    return;
                }
                let answers = self.set(|s| {
                    let version = |user: &UserId| s.versions.get(user.as_str()).copied().unwrap_or(0);
                    let answer = |login: &HeldLogin| {
                        let ended = s.ended.get(login.user.as_str()).copied();
                        (login.connection, ended.map_or_else(|| Ok(InboxVersion(version(&login.user))), Err))
                    };
                    logins.iter().map(answer).collect()
                });
                lane.answer(LogicAnswer::Heartbeats { answers });
            }
            Question::LargeMembers { log } => {
                let members = self.set(|s| {
                    s.large_questions += 1;
                    match &mut s.large_asked {
                        Some(asked) => {
                            asked.push((log.clone(), lane.clone()));
                            None
                        }
                        None => Some(s.large_members.clone()),
                    }
                });
                if members.is_some() {
                    lane.answer(LogicAnswer::LargeMembers { log, members });
                }
            }
            Question::LargeHeads { logs } => {
                let heads =
                    self.set(|s| logs.iter().filter_map(|log| s.large_heads.get(log.as_str()).cloned()).collect());
                lane.answer(LogicAnswer::LargeHeads { heads });
            }
            Question::LargeOfUsers { changes, users } => {
                let of = |s: &mut State, user: &UserId| s.large.get(user.as_str()).cloned().unwrap_or_default();
                let users = self.set(|s| users.iter().map(|(id, user)| (*id, of(s, user))).collect());
                lane.answer(LogicAnswer::LargeOfUsers { changes, users });
            }
            Question::SignedOut { connection, generation, .. } => {
                self.set(|s| s.signed_out.push((connection, generation)));
            }
        }
    }
}

pub fn server_frame(request_id: u64, body: Body) -> Bytes {
    encode_delimited(&client::ServerFrame { request_id, body: Some(body) })
}

/// A push with a number to be told by.
pub fn numbered_push(number: u64, padding: usize) -> Bytes {
    push_with(number, vec![0; padding])
}

pub fn push_with(number: u64, body: Vec<u8>) -> Bytes {
    let message = client::Message { body: body.into(), to_user_id: String::new() };
    let entry = client::Entry {
        seq: number,
        content: Some(client::entry::Content::Message(message)),
        ..client::Entry::default()
    };
    let pushed = client::EntryPushed { conversation_id: "c".into(), epoch: 7, entry: Some(entry) };
    server_frame(0, Body::Entry(pushed))
}

pub fn send_to(user: &str, id: &str, body: &[u8]) -> Command {
    Command::Send(client::Send {
        to: Some(client::send::To::UserId(user.into())),
        client_message_id: id.into(),
        after: String::new(),
        body: Bytes::copy_from_slice(body),
    })
}

pub fn sync() -> Command {
    Command::Sync(client::Sync { token: Bytes::new(), limit: 0 })
}
