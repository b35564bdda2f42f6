//! The logic's side of what gateways and operators ask.
//!
//! In: calls. Out: answers of a [`LogicHandler`]. Always: an id that is none, or a field that is missing, is
//! INVALID_ARGUMENT before the handler hears of it; a store that is away is UNAVAILABLE.

use crate::config::{ConfigError, TlsOptions};
use crate::generated::conversation_service_server::{ConversationService, ConversationServiceServer};
use crate::generated::device_service_server::{DeviceService, DeviceServiceServer};
use crate::generated::session_service_server::{SessionService, SessionServiceServer};
use crate::serve::Services;
use crate::tls::PeerNames;
use async_trait::async_trait;
use im_proto::services::*;
use im_proto::{DeviceId, LogId, UserId};
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

/// The largest is a frame of a client, 192 KiB, in a read.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Logins of one heartbeat call; conversations, or users, of one question about large conversations.
pub const ASKED_AT_ONCE_MAX: usize = 1_000;

/// Why the logic gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Repeat later.
    #[error("{0}")]
    Unavailable(String),
    /// The same again will not help.
    #[error("{0}")]
    Invalid(String),
}

/// What a logic role can be asked. Ids in the calls have been checked.
#[async_trait]
pub trait LogicHandler: Send + Sync + 'static {
    async fn sign_in(&self, call: SignInCall) -> Result<SignInAnswer, Refused>;
    async fn sign_out(&self, call: SignOutCall) -> Result<(), Refused>;
    async fn heartbeats(&self, call: HeartbeatsCall) -> Result<HeartbeatsAnswer, Refused>;
    async fn read(&self, call: ReadCall) -> Result<ReadAnswer, Refused>;
    async fn large_members(&self, log: LogId) -> Result<LargeMembersAnswer, Refused>;
    async fn large_heads(&self, logs: Vec<LogId>) -> Result<LargeHeadsAnswer, Refused>;
    async fn large_of_users(&self, users: Vec<UserId>) -> Result<LargeOfUsersAnswer, Refused>;
    async fn devices(&self, user: UserId) -> Result<ListDevicesAnswer, Refused>;
    async fn sign_out_device(&self, user: UserId, device: DeviceId) -> Result<SignOutDeviceAnswer, Refused>;
}

/// What a logic role's server offers. `timeout`: no request is worked on longer, whatever deadline its caller names, if any.
pub fn logic_service(
    handler: Arc<dyn LogicHandler>,
    tls: Option<&TlsOptions>,
    timeout: Duration,
) -> Result<Services, ConfigError> {
    let names = PeerNames::of_callers(tls)?;
    let service = Service(handler);
    let session = SessionServiceServer::new(service.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let conversation = ConversationServiceServer::new(service.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
    let device = DeviceServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    let routes = Routes::new(InterceptedService::new(session, names.clone()))
        .add_service(InterceptedService::new(conversation, names.clone()))
        .add_service(InterceptedService::new(device, names));
    Ok(Services { routes, timeout: Some(timeout) })
}

#[derive(Clone)]
struct Service(Arc<dyn LogicHandler>);

#[async_trait]
impl SessionService for Service {
    async fn sign_in(&self, request: Request<SignInCall>) -> Result<Response<SignInAnswer>, Status> {
        let call = request.into_inner();
        if call.sign_in.is_none() {
            return Err(Status::invalid_argument("sign_in is missing"));
        }
        answer(self.0.sign_in(call).await)
    }

    async fn sign_out(&self, request: Request<SignOutCall>) -> Result<Response<SignOutAnswer>, Status> {
        let call = request.into_inner();
        check(call.login.as_ref().ok_or_else(|| Status::invalid_argument("login is missing"))?)?;
        answer(self.0.sign_out(call).await.map(|()| SignOutAnswer {}))
    }

    async fn heartbeats(&self, request: Request<HeartbeatsCall>) -> Result<Response<HeartbeatsAnswer>, Status> {
        let call = request.into_inner();
        if call.logins.len() > ASKED_AT_ONCE_MAX {
            return Err(Status::invalid_argument("more than 1000 logins"));
        }
        call.logins.iter().try_for_each(check)?;
        answer(self.0.heartbeats(call).await)
    }
}

#[async_trait]
impl ConversationService for Service {
    async fn read(&self, request: Request<ReadCall>) -> Result<Response<ReadAnswer>, Status> {
        let call = request.into_inner();
        user(&call.user_id)?;
        answer(self.0.read(call).await)
    }

    async fn large_members(&self, request: Request<LargeMembersCall>) -> Result<Response<LargeMembersAnswer>, Status> {
        answer(self.0.large_members(log(&request.into_inner().log_id)?).await)
    }

    async fn large_heads(&self, request: Request<LargeHeadsCall>) -> Result<Response<LargeHeadsAnswer>, Status> {
        answer(self.0.large_heads(asked(&request.into_inner().log_ids, log)?).await)
    }

    async fn large_of_users(&self, request: Request<LargeOfUsersCall>) -> Result<Response<LargeOfUsersAnswer>, Status> {
        answer(self.0.large_of_users(asked(&request.into_inner().user_ids, user)?).await)
    }
}

#[async_trait]
impl DeviceService for Service {
    async fn list(&self, request: Request<ListDevicesCall>) -> Result<Response<ListDevicesAnswer>, Status> {
        answer(self.0.devices(user(&request.into_inner().user_id)?).await)
    }

    async fn sign_out(&self, request: Request<SignOutDeviceCall>) -> Result<Response<SignOutDeviceAnswer>, Status> {
        let call = request.into_inner();
        answer(self.0.sign_out_device(user(&call.user_id)?, device(&call.device_id)?).await)
    }
}

fn check(login: &HeldLogin) -> Result<(), Status> {
    user(&login.user_id)?;
    device(&login.device_id).map(drop)
}

fn asked<T>(ids: &[String], parse: impl Fn(&str) -> Result<T, Status>) -> Result<Vec<T>, Status> {
    if ids.len() > ASKED_AT_ONCE_MAX {
        return Err(Status::invalid_argument("more than 1000 ids"));
    }
    ids.iter().map(|id| parse(id)).collect()
}

fn log(id: &str) -> Result<LogId, Status> {
    LogId::parse(id).map_err(|_| Status::invalid_argument("log_id is no id"))
}

fn user(id: &str) -> Result<UserId, Status> {
    UserId::parse(id).map_err(|_| Status::invalid_argument("user_id is no id"))
}

fn device(id: &str) -> Result<DeviceId, Status> {
    DeviceId::parse(id).map_err(|_| Status::invalid_argument("device_id is no id"))
}

fn answer<T>(outcome: Result<T, Refused>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|refused| match refused {
        Refused::Unavailable(why) => Status::unavailable(why),
        Refused::Invalid(why) => Status::invalid_argument(why),
    })
}
