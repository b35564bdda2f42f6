//! A connection without manners: frames and bytes exactly as the test makes them, over TCP or WebSocket.
//!
//! In: commands or bytes. Out: frames, heartbeats, the end, each within a deadline. Always: it hides nothing: no resend, no
//! reconnect, no sync; pushes that come while an answer is awaited are kept in their order.

use super::endpoint::Endpoint;
use super::server::{Server, is_cluster};
use super::wire::Wire;
use bytes::{Buf as _, BytesMut};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ClientFrame, CloseCode, Closing, ErrorClass, ErrorCode, ServerFrame, SignedIn};
use prost::Message as _;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// Promise C5 is 10 s; what a test waits for takes longer only when it is broken.
pub const DEADLINE: Duration = Duration::from_secs(12);
/// As the tests' servers want them; many more would be a flood.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);
/// A command, or a sign-in, that a cluster answers with a retryable error is repeated.
const REPEATS_FOR: Duration = Duration::from_secs(36);
const REPEATS_PAUSE: Duration = Duration::from_millis(50);

/// What the server sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Frame(ServerFrame),
    Heartbeat,
    /// The stream ended, whether by FIN or by RST.
    End,
}

pub struct Raw {
    stream: TcpStream,
    wire: Wire,
    buffer: BytesMut,
    next_request_id: u64,
    /// Frames with request id 0, as they came.
    pub pushes: VecDeque<Body>,
    /// Answers to requests that nobody asked for yet.
    answers: Vec<ServerFrame>,
}

impl Raw {
    pub async fn connect(endpoint: impl Into<Endpoint>) -> Self {
        let endpoint = endpoint.into();
        Self::over(TcpStream::connect(endpoint.socket()).await.unwrap(), endpoint).await
    }

    /// With a receive buffer so small that the server's output soon waits in the server.
    pub async fn connect_narrow(endpoint: Endpoint) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(socket.connect(endpoint.socket()).await.unwrap(), endpoint).await
    }

    async fn over(mut stream: TcpStream, endpoint: Endpoint) -> Self {
        stream.set_nodelay(true).unwrap();
        let wire = within("the server shakes hands", Wire::open(&mut stream, endpoint)).await;
        let buffer = BytesMut::new();
        Self { stream, wire, buffer, next_request_id: 1, pushes: VecDeque::new(), answers: Vec::new() }
    }

    /// Connected and signed in with a token that binds no device.
    pub async fn device(server: &Server, user: &str, device: &str) -> Self {
        Self::device_over(server, server.clients(), user, device).await
    }

    /// The same over a transport of the test's choice.
    pub async fn device_over(server: &Server, endpoint: Endpoint, user: &str, device: &str) -> Self {
        let sign_in = sign_in(&server.key.token(user), device);
        let end = Instant::now() + REPEATS_FOR;
        loop {
            let mut raw = Self::connect(endpoint).await;
            raw.send(sign_in.clone()).await;
            match raw.read().await {
                Got::Frame(ServerFrame { body: Some(Body::SignedIn(_)), .. }) => return raw,
                // A service that is slow, or a role that asks it, and who dials again is let in.
                Got::Frame(ServerFrame { body: Some(Body::Closing(closing)), .. })
                    if is_cluster()
                        && Instant::now() < end
                        && matches!(closing.code(), CloseCode::Internal | CloseCode::SignInTimeout) =>
                {
                    println!("dialled again after {closing:?}");
                    tokio::time::sleep(REPEATS_PAUSE).await;
                }
                other => panic!("sign-in was answered {other:?}"),
            }
        }
    }

    pub async fn sign_in(&mut self, token: &str, device: &str) -> SignedIn {
        match self.call(sign_in(token, device)).await {
            Body::SignedIn(signed_in) => signed_in,
            other => panic!("sign-in was answered {other:?}"),
        }
    }

    /// Sends one command and returns its request id.
    pub async fn send(&mut self, command: Command) -> u64 {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        self.send_frame(&ClientFrame { request_id, command: Some(command), ..Default::default() }).await;
        request_id
    }

    pub async fn send_frame(&mut self, frame: &ClientFrame) {
        self.send_bytes(&frame.encode_length_delimited_to_vec()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.unwrap();
    }

    /// Like [`send_bytes`](Self::send_bytes), for a connection the server may close meanwhile.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let encoded = self.encode(bytes);
        self.try_send_encoded(&encoded).await
    }

    /// What [`send_bytes`](Self::send_bytes) would put into the stream for these bytes; it has to be sent.
    pub fn encode(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.wire.encode(bytes)
    }

    /// Puts bytes into the stream as they are, for a test that cuts what it encoded, or encodes by itself.
    pub async fn send_encoded(&mut self, encoded: &[u8]) {
        self.try_send_encoded(encoded).await.unwrap();
    }

    pub async fn try_send_encoded(&mut self, encoded: &[u8]) -> std::io::Result<()> {
        within("the server takes bytes", self.stream.write_all(encoded)).await
    }

    /// Sends one command and returns the body of its answer.
    pub async fn call(&mut self, command: Command) -> Body {
        let request_id = self.send(command).await;
        self.answer(request_id).await
    }

    /// Like [`call`](Self::call). On a cluster, where a slow service may make retryable errors of its own, such a command is
    /// repeated as every client repeats it: as it was, with its id.
    pub async fn call_until_settled(&mut self, command: Command) -> Body {
        let end = Instant::now() + REPEATS_FOR;
        loop {
            match self.call(command.clone()).await {
                Body::Error(error) if is_cluster() && error.class() != ErrorClass::Final && Instant::now() < end => {
                    println!("repeated after {error:?}");
                    tokio::time::sleep(REPEATS_PAUSE.max(Duration::from_millis(error.retry_after_ms.into()))).await;
                }
                answer => return answer,
            }
        }
    }

    /// The answer to `request_id`; other answers and pushes are kept.
    pub async fn answer(&mut self, request_id: u64) -> Body {
        loop {
            if let Some(at) = self.answers.iter().position(|frame| frame.request_id == request_id) {
                return self.answers.swap_remove(at).body.unwrap();
            }
            match self.read().await {
                Got::Frame(frame) => self.keep(frame),
                Got::Heartbeat => {}
                Got::End => panic!("the connection ended before the answer; pushes: {:?}", self.pushes),
            }
        }
    }

    /// The next push that `wanted` takes; pushes before it are dropped.
    pub async fn push<T>(&mut self, mut wanted: impl FnMut(&Body) -> Option<T>) -> T {
        loop {
            while let Some(push) = self.pushes.pop_front() {
                if let Some(found) = wanted(&push) {
                    return found;
                }
            }
            match self.read().await {
                Got::Frame(frame) => self.keep(frame),
                Got::Heartbeat => {}
                Got::End => panic!("the connection ended before the push"),
            }
        }
    }

    /// Nor was it closed.
    pub fn was_pushed_no_entry(&self) {
        let is_one = |push: &Body| matches!(push, Body::Entry(_) | Body::Closing(_));
        assert!(!self.pushes.iter().any(is_one), "{:?}", self.pushes);
    }

    /// Sends a heartbeat and returns its answer: `0x00`, or a sync hint.
    pub async fn heartbeat(&mut self) -> Got {
        self.send_bytes(&[0]).await;
        loop {
            match self.read().await {
                Got::Frame(frame) if matches!(frame.body, Some(Body::SyncHint(_))) => return Got::Frame(frame),
                Got::Frame(frame) => self.keep(frame),
                other => return other,
            }
        }
    }

    fn keep(&mut self, frame: ServerFrame) {
        match frame.request_id {
            0 => self.pushes.extend(frame.body),
            _ => self.answers.push(frame),
        }
    }

    /// The `Closing` frame; over WebSocket a close with the same code behind it; then the end of the stream.
    pub async fn closed(&mut self) -> Closing {
        let closing = self.ended().await;
        self.wire.assert_closed_with(closing.code as u16);
        closing
    }

    /// Like [`closed_with`](Self::closed_with), for what breaks RFC 6455 itself and is closed with that document's code.
    pub async fn closed_with_both(&mut self, code: CloseCode, websocket_code: u16) {
        let closing = self.ended().await;
        assert_eq!(closing.code(), code, "{closing:?}");
        self.wire.assert_closed_with(websocket_code);
    }

    /// The `Closing` frame, and that the stream ends behind it.
    async fn ended(&mut self) -> Closing {
        let mut closing = None;
        loop {
            match self.read().await {
                Got::Frame(ServerFrame { body: Some(Body::Closing(frame)), .. }) => closing = Some(frame),
                Got::Frame(_) | Got::Heartbeat => assert!(closing.is_none(), "a frame behind Closing"),
                Got::End => return closing.expect("the connection ended without Closing"),
            }
        }
    }

    pub async fn closed_with(&mut self, code: CloseCode) {
        let closing = self.closed().await;
        assert_eq!(closing.code(), code, "{closing:?}");
    }

    /// The connection serves: a heartbeat is answered.
    pub async fn is_alive(&mut self) {
        assert_ne!(self.heartbeat().await, Got::End);
    }

    /// The next thing the server sends.
    pub async fn read(&mut self) -> Got {
        within("the server sends something", self.read_unhurried()).await
    }

    /// [`read`](Self::read) without a deadline. Cancel-safe: what arrived stays in the buffer.
    pub async fn read_unhurried(&mut self) -> Got {
        loop {
            if let Some(got) = take_frame(&mut self.buffer) {
                return got;
            }
            if !self.wire.read(&mut self.stream, &mut self.buffer).await {
                return Got::End;
            }
        }
    }

    /// Ends our direction only.
    pub async fn shut_down_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

/// Reads one delimited frame off the front, if it is there whole.
fn take_frame(buffer: &mut BytesMut) -> Option<Got> {
    let mut length = 0_usize;
    let mut prefix = 0;
    loop {
        let byte = *buffer.get(prefix)?;
        length |= usize::from(byte & 0x7f) << (7 * prefix);
        prefix += 1;
        if byte < 0x80 {
            break;
        }
        assert!(prefix < 5, "the server sent an over-long length");
    }
    if buffer.len() < prefix + length {
        return None;
    }
    buffer.advance(prefix);
    if length == 0 {
        return Some(Got::Heartbeat);
    }
    let frame = ServerFrame::decode(buffer.split_to(length).freeze()).expect("the server sent a garbled frame");
    Some(Got::Frame(frame))
}

/// Panics with `what` when it does not happen in time.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(DEADLINE, what, future).await
}

pub async fn within_time<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {deadline:?}: {what}"),
    }
}

pub fn sign_in(token: &str, device: &str) -> Command {
    Command::SignIn(client::SignIn {
        protocol_version: im_proto::PROTOCOL_VERSION,
        token: token.to_owned(),
        device_id: device.to_owned(),
        platform: "test".to_owned(),
        ..Default::default()
    })
}

/// A message to a user.
pub fn send_to_user(user: &str, id: &str, text: &str) -> client::Send {
    send_to(client::send::To::UserId(user.to_owned()), id, text)
}

/// A message to a conversation.
pub fn send_to_conversation(conversation: &str, id: &str, text: &str) -> client::Send {
    send_to(client::send::To::ConversationId(conversation.to_owned()), id, text)
}

fn send_to(to: client::send::To, id: &str, text: &str) -> client::Send {
    let body = client::MessageBody { text: text.to_owned(), ..Default::default() };
    client::Send {
        to: Some(to),
        client_message_id: id.to_owned(),
        after: String::new(),
        body: body.encode_to_vec().into(),
    }
}

/// What must be an error of this class and code.
#[track_caller]
pub fn assert_error(body: &Body, class: ErrorClass, code: ErrorCode) {
    match body {
        Body::Error(error) => assert_eq!((error.class(), error.code()), (class, code), "{error:?}"),
        other => panic!("not an error: {other:?}"),
    }
}

#[track_caller]
pub fn assert_final(body: &Body, code: ErrorCode) {
    assert_error(body, ErrorClass::Final, code);
}
