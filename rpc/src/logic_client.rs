//! The gateway's side of what it asks the logic.
//!
//! In: calls. Out: answers, or that there is none. Always: an attempt has its deadline; an attempt that got no answer is
//! repeated at the next endpoint, for every call here may be; what was refused is not; an endpoint that gave no answer is
//! passed over for a moment, unless all are.

use crate::config::{CallOptions, ConfigError, ConnectOptions, LogicOptions};
use crate::connect::Connect;
use crate::generated::conversation_service_client::ConversationServiceClient;
use crate::generated::device_service_client::DeviceServiceClient;
use crate::generated::session_service_client::SessionServiceClient;
use im_proto::services::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The largest answers are the members of a large group and the large conversations of many users.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Before a call is repeated.
const PAUSE: Duration = Duration::from_millis(50);
/// So long an endpoint is passed over. A worker that is frozen costs one call its deadline this often, not every second call.
const SUSPECT_MS: u64 = 2_000;

#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No attempt got an answer: nothing is known.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The same again will not help.
    #[error("refused: {0}")]
    Refused(String),
}

/// The logic roles, asked by turns.
struct Peers {
    all: Vec<Peer>,
    next: AtomicUsize,
    since: Instant,
}

struct Peer {
    channel: Channel,
    /// In milliseconds since the client was made.
    suspect_until_ms: AtomicU64,
}

impl Peers {
    fn new(endpoints: &[String], connect: &ConnectOptions) -> Result<Self, ConfigError> {
        let connect = Connect::new(connect)?;
        let peer = |address: &String| {
            let channel = connect.endpoint(address)?.connect_lazy();
            Ok(Peer { channel, suspect_until_ms: AtomicU64::new(0) })
        };
        let all: Vec<Peer> = endpoints.iter().map(peer).collect::<Result<_, ConfigError>>()?;
        Ok(Self { all, next: AtomicUsize::new(0), since: Instant::now() })
    }

    fn next(&self) -> &Peer {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let by_turns = || (0..self.all.len()).map(|step| &self.all[first.wrapping_add(step) % self.all.len()]);
        let now_ms = self.now_ms();
        let trusted = by_turns().find(|peer| peer.suspect_until_ms.load(Ordering::Relaxed) <= now_ms);
        trusted.unwrap_or(&self.all[first % self.all.len()])
    }

    fn suspect(&self, peer: &Peer) {
        peer.suspect_until_ms.store(self.now_ms() + SUSPECT_MS, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }
}

/// One service of the logic roles.
#[derive(Clone)]
struct Service {
    peers: Arc<Peers>,
    timeout: Duration,
    attempts: u32,
}

/// Calls to the logic roles. Cheap to clone; the connections are shared and made when they are needed.
#[derive(Clone)]
pub struct LogicClient {
    session: Service,
    conversation: Service,
    device: Service,
}

impl LogicClient {
    /// All services are reached alike. Must be called on a tokio runtime.
    pub fn new(options: &CallOptions) -> Result<Self, ConfigError> {
        Self::of_services(&LogicOptions::alike(options))
    }

    /// Must be called on a tokio runtime.
    pub fn of_services(options: &LogicOptions) -> Result<Self, ConfigError> {
        let mut made: Vec<(&CallOptions, Arc<Peers>)> = Vec::new();
        let mut service = |options| {
            let peers = match made.iter().find(|(of, _)| of.reaches_the_same_as(options)) {
                Some((_, peers)) => peers.clone(),
                None => Arc::new(Peers::new(&options.endpoints, &options.connect)?),
            };
            made.push((options, peers.clone()));
            Ok::<_, ConfigError>(Service { peers, timeout: options.timeout, attempts: options.attempts.max(1) })
        };
        let LogicOptions { session, conversation, device } = options;
        [session, conversation, device].into_iter().try_for_each(CallOptions::check)?;
        Ok(Self { session: service(session)?, conversation: service(conversation)?, device: service(device)? })
    }

    pub async fn sign_in(&self, call: SignInCall) -> Result<SignInAnswer, CallError> {
        self.session.repeat(call, async |channel, request| session(channel).sign_in(request).await).await
    }

    pub async fn sign_out(&self, call: SignOutCall) -> Result<SignOutAnswer, CallError> {
        self.session.repeat(call, async |channel, request| session(channel).sign_out(request).await).await
    }

    pub async fn heartbeats(&self, call: HeartbeatsCall) -> Result<HeartbeatsAnswer, CallError> {
        self.session.repeat(call, async |channel, request| session(channel).heartbeats(request).await).await
    }

    pub async fn read(&self, call: ReadCall) -> Result<ReadAnswer, CallError> {
        self.conversation.repeat(call, async |channel, request| conversation(channel).read(request).await).await
    }

    pub async fn large_members(&self, call: LargeMembersCall) -> Result<LargeMembersAnswer, CallError> {
        self.conversation
            .repeat(call, async |channel, request| conversation(channel).large_members(request).await)
            .await
    }

    pub async fn large_heads(&self, call: LargeHeadsCall) -> Result<LargeHeadsAnswer, CallError> {
        self.conversation.repeat(call, async |channel, request| conversation(channel).large_heads(request).await).await
    }

    pub async fn large_of_users(&self, call: LargeOfUsersCall) -> Result<LargeOfUsersAnswer, CallError> {
        self.conversation
            .repeat(call, async |channel, request| conversation(channel).large_of_users(request).await)
            .await
    }

    pub async fn devices(&self, call: ListDevicesCall) -> Result<ListDevicesAnswer, CallError> {
        self.device.repeat(call, async |channel, request| device(channel).list(request).await).await
    }

    pub async fn sign_out_device(&self, call: SignOutDeviceCall) -> Result<SignOutDeviceAnswer, CallError> {
        self.device.repeat(call, async |channel, request| device(channel).sign_out(request).await).await
    }
}

impl Service {
    async fn repeat<C: Clone, A>(
        &self,
        call: C,
        attempt: impl AsyncFn(Channel, Request<C>) -> Result<Response<A>, Status>,
    ) -> Result<A, CallError> {
        let mut left = self.attempts;
        loop {
            left -= 1;
            let mut request = Request::new(call.clone());
            // Told to the other end too, which then stops working for nobody.
            request.set_timeout(self.timeout);
            let peer = self.peers.next();
            let answered = tokio::time::timeout(self.timeout, attempt(peer.channel.clone(), request)).await;
            let status = match answered {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if matches!(
                status.code(),
                Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented | Code::OutOfRange
            ) {
                return Err(CallError::Refused(status.message().to_owned()));
            }
            self.peers.suspect(peer);
            if left == 0 {
                return Err(CallError::NoAnswer(status.message().to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn session(channel: Channel) -> SessionServiceClient<Channel> {
    SessionServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn conversation(channel: Channel) -> ConversationServiceClient<Channel> {
    ConversationServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn device(channel: Channel) -> DeviceServiceClient<Channel> {
    DeviceServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
