//! Questions asked of a logic role over gRPC.
//!
//! In: a gateway's question. Out: the answer, or what a client can do when there is none. Always: whoever got no answer is
//! told so by a retryable code; nothing is allowed because nobody could be asked; what got no answer is counted.

use super::ask::{Answers, error_frame};
use super::large_remote;
use super::unanswered::{Asked, Unanswered};
use bytes::Bytes;
use im_gateway::{HeldLogin, LogicAnswer, Question, SignInRefused, SignedIn};
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, kicked::Reason};
use im_proto::services::{self, HeartbeatAnswer, sign_in_answer::Outcome};
use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, LogId, Seq, UserId};
use im_rpc::{CallError, LogicClient};
use im_storage::ports::GatewayBoot;
use std::sync::Arc;

/// When no logic role answered.
const RETRY_AFTER_MS: u32 = 500;
const RECONNECT_AFTER_MS: u32 = 1_000;

const _: () = assert!(im_gateway::ASKED_AT_ONCE_MAX <= im_rpc::ASKED_AT_ONCE_MAX, "the logic would refuse to answer");

pub struct Remote {
    client: LogicClient,
    unanswered: Arc<Unanswered>,
}

impl Remote {
    pub fn new(client: LogicClient) -> Self {
        Self { client, unanswered: Arc::default() }
    }

    pub fn unanswered(&self) -> Arc<Unanswered> {
        self.unanswered.clone()
    }

    async fn sign_in(
        &self,
        gateway: GatewayBoot,
        connection: ConnectionId,
        sign_in: client::SignIn,
    ) -> Result<SignedIn, SignInRefused> {
        let call =
            services::SignInCall { gateway_boot: gateway.0, connection_id: connection.0, sign_in: Some(sign_in) };
        let answer = self.client.sign_in(call).await.map_err(|error| {
            self.unanswered.count(Asked::SignIn);
            tracing::warn!(%error, %connection, "a sign-in got no answer from the logic");
            no_logic()
        })?;
        match answer.outcome {
            Some(Outcome::SignedIn(login)) => signed_in(login).ok_or_else(no_logic),
            Some(Outcome::Refused(refused)) => Err(SignInRefused {
                code: CloseCode::try_from(refused.code).unwrap_or(CloseCode::Internal),
                reconnect_after_ms: refused.reconnect_after_ms,
                detail: refused.detail,
            }),
            None => Err(no_logic()),
        }
    }

    async fn read(
        &self,
        request_id: u64,
        user: &UserId,
        frame: Bytes,
    ) -> (Bytes, Option<InboxVersion>, Vec<(LogId, Seq)>) {
        match self.client.read(services::ReadCall { user_id: user.into(), frame }).await {
            Ok(answer) => {
                let large = large_remote::told_of(&answer.large_heads);
                (answer.frame, answer.inbox_version.map(InboxVersion), large)
            }
            Err(error) => {
                self.unanswered.count(Asked::Read);
                tracing::warn!(%error, %user, "a read got no answer from the logic");
                let away = client::Error {
                    class: ErrorClass::Retry as i32,
                    code: ErrorCode::Unavailable as i32,
                    retry_after_ms: RETRY_AFTER_MS,
                    detail: "no logic role answered".to_owned(),
                };
                (error_frame(request_id, away), None, Vec::new())
            }
        }
    }

    /// In the order asked.
    async fn heartbeats(
        &self,
        gateway: GatewayBoot,
        logins: &[HeldLogin],
    ) -> Result<Vec<Result<InboxVersion, Reason>>, CallError> {
        let logins = logins.iter().map(held).collect();
        let answer = self.client.heartbeats(services::HeartbeatsCall { gateway_boot: gateway.0, logins }).await?;
        let ended = |one: &HeartbeatAnswer| match one.ended() {
            Reason::Unspecified => Reason::Replaced,
            told => told,
        };
        let one =
            |one: &HeartbeatAnswer| if one.stands { Ok(InboxVersion(one.inbox_version)) } else { Err(ended(one)) };
        Ok(answer.answers.iter().map(one).collect())
    }
}

impl Answers for Remote {
    async fn answer(&self, gateway: GatewayBoot, question: Question) -> Option<LogicAnswer> {
        Some(match question {
            Question::SignIn { connection, sign_in } => {
                LogicAnswer::SignedIn { connection, outcome: self.sign_in(gateway, connection, sign_in).await }
            }
            Question::Read { connection, request_id, user, frame } => {
                let (frame, inbox_version, large) = self.read(request_id, &user, frame).await;
                LogicAnswer::Read { connection, request_id, frame, inbox_version, large }
            }
            Question::Heartbeats { logins } => {
                // Without an answer the gateway's own deadline keeps the heartbeats going.
                let versions = self.heartbeats(gateway, &logins).await.ok();
                let versions = self.unanswered.note(Asked::Heartbeats, versions)?;
                LogicAnswer::Heartbeats { answers: logins.iter().map(|login| login.connection).zip(versions).collect() }
            }
            Question::LargeMembers { log } => {
                let members = large_remote::members(&self.client, &log).await;
                LogicAnswer::LargeMembers { log, members: self.unanswered.note(Asked::LargeMembers, members) }
            }
            Question::LargeHeads { logs } => {
                let heads = large_remote::heads(&self.client, &logs).await;
                return self.unanswered.note(Asked::LargeHeads, heads);
            }
            Question::LargeOfUsers { changes, users } => {
                let large = large_remote::of_users(&self.client, changes, users).await;
                return self.unanswered.note(Asked::LargeOfUsers, large);
            }
            Question::SignedOut { connection, user, device, generation } => {
                let login = held(&HeldLogin { connection, user, device, generation });
                let call = services::SignOutCall { gateway_boot: gateway.0, login: Some(login) };
                if let Err(error) = self.client.sign_out(call).await {
                    self.unanswered.count(Asked::SignOut);
                    tracing::warn!(%error, %connection, "a route stays until its device signs in again");
                }
                return None;
            }
        })
    }
}

fn held(login: &HeldLogin) -> services::HeldLogin {
    services::HeldLogin {
        connection_id: login.connection.0,
        user_id: (&login.user).into(),
        device_id: (&login.device).into(),
        generation: login.generation.0,
    }
}

/// `None`: the other end broke its own rules.
fn signed_in(login: services::SignedIn) -> Option<SignedIn> {
    Some(SignedIn {
        user: UserId::parse(&login.user_id).ok()?,
        device: DeviceId::parse(&login.device_id).ok()?,
        generation: Generation(login.generation),
        inbox_version: InboxVersion(login.inbox_version),
        epoch: Epoch(login.epoch),
        token_expires_at_ms: login.token_expires_at_ms,
        large: large_remote::memberships_of(&login.large)?,
    })
}

fn no_logic() -> SignInRefused {
    SignInRefused {
        code: CloseCode::Internal,
        reconnect_after_ms: RECONNECT_AFTER_MS,
        detail: "no logic role answered".to_owned(),
    }
}
