//! The gateway's side of what it asks the logic.
//!
//! In: calls. Out: answers, or that there is none. Always: an attempt has its deadline; an attempt that got no answer is
//! repeated, by turns at all endpoints, for every call here may be; what was refused is not.

use crate::config::{CallOptions, ConfigError};
use crate::generated::conversation_service_client::ConversationServiceClient;
use crate::generated::device_service_client::DeviceServiceClient;
use crate::generated::session_service_client::SessionServiceClient;
use crate::tls;
use im_proto::services::*;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Before a call is repeated.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// No attempt got an answer: nothing is known.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The same again will not help.
    #[error("refused: {0}")]
    Refused(String),
}

/// Calls to the logic roles. Cheap to clone; the connections are shared and made when they are needed.
#[derive(Clone)]
pub struct LogicClient {
    channel: Channel,
    timeout: Duration,
    attempts: u32,
}

impl LogicClient {
    /// Must be called on a tokio runtime.
    pub fn new(options: &CallOptions) -> Result<Self, ConfigError> {
        let endpoints: Vec<Endpoint> =
            options.endpoints.iter().map(|text| endpoint(text, options)).collect::<Result<_, _>>()?;
        let channel = Channel::balance_list(endpoints.into_iter());
        Ok(Self { channel, timeout: options.timeout, attempts: options.attempts.max(1) })
    }

    pub async fn sign_in(&self, call: SignInCall) -> Result<SignInAnswer, CallError> {
        self.repeat(call, async |channel, request| SessionServiceClient::new(channel).sign_in(request).await).await
    }

    pub async fn sign_out(&self, call: SignOutCall) -> Result<SignOutAnswer, CallError> {
        self.repeat(call, async |channel, request| SessionServiceClient::new(channel).sign_out(request).await).await
    }

    pub async fn heartbeats(&self, call: HeartbeatsCall) -> Result<HeartbeatsAnswer, CallError> {
        self.repeat(call, async |channel, request| SessionServiceClient::new(channel).heartbeats(request).await).await
    }

    pub async fn read(&self, call: ReadCall) -> Result<ReadAnswer, CallError> {
        self.repeat(call, async |channel, request| ConversationServiceClient::new(channel).read(request).await).await
    }

    pub async fn large_members(&self, call: LargeMembersCall) -> Result<LargeMembersAnswer, CallError> {
        self.repeat(call, async |channel, request| ConversationServiceClient::new(channel).large_members(request).await)
            .await
    }

    pub async fn large_heads(&self, call: LargeHeadsCall) -> Result<LargeHeadsAnswer, CallError> {
        self.repeat(call, async |channel, request| ConversationServiceClient::new(channel).large_heads(request).await)
            .await
    }

    pub async fn large_of_users(&self, call: LargeOfUsersCall) -> Result<LargeOfUsersAnswer, CallError> {
        self.repeat(call, async |channel, request| {
            ConversationServiceClient::new(channel).large_of_users(request).await
        })
        .await
    }

    pub async fn devices(&self, call: ListDevicesCall) -> Result<ListDevicesAnswer, CallError> {
        self.repeat(call, async |channel, request| DeviceServiceClient::new(channel).list(request).await).await
    }

    pub async fn sign_out_device(&self, call: SignOutDeviceCall) -> Result<SignOutDeviceAnswer, CallError> {
        self.repeat(call, async |channel, request| DeviceServiceClient::new(channel).sign_out(request).await).await
    }

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
            let answered = tokio::time::timeout(self.timeout, attempt(self.channel.clone(), request)).await;
            let status = match answered {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented) {
                return Err(CallError::Refused(status.message().to_owned()));
            }
            if left == 0 {
                return Err(CallError::NoAnswer(status.message().to_owned()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// An address with all that a connection to it needs.
pub fn endpoint(text: &str, options: &CallOptions) -> Result<Endpoint, ConfigError> {
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| ConfigError::Endpoint(text.to_owned()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match &options.tls {
        Some(tls) => endpoint.tls_config(tls::of_client(tls)?).map_err(|error| ConfigError::Tls(error.to_string())),
        None => Ok(endpoint),
    }
}
