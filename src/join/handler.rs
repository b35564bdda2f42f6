//! What other roles ask this process over gRPC, put to its request handlers.
//!
//! In: calls whose ids were checked. Out: answers in the words of `services.proto`. Always: decides nothing itself; where a
//! store is away the call is UNAVAILABLE, which the caller repeats elsewhere: another role may reach it. Only a read has an
//! answer even then, which tells its client to try again.

use super::large_remote;
use async_trait::async_trait;
use im_logic::Requests;
use im_proto::client::{CloseCode, kicked::Reason};
use im_proto::services::{
    self, Device, HeartbeatAnswer, HeartbeatsAnswer, HeartbeatsCall, LargeHeadsAnswer, LargeMembersAnswer, LargeOfUser,
    LargeOfUsersAnswer, ListDevicesAnswer, ReadAnswer, ReadCall, SignInAnswer, SignInCall, SignOutCall,
    SignOutDeviceAnswer, sign_in_answer::Outcome,
};
use im_proto::{ConnectionId, DeviceId, Generation, LogId, UserId};
use im_rpc::{LogicHandler, Refused, planted};
use im_storage::ports::{GatewayBoot, Login, StoreError};
use std::sync::Arc;

pub struct Handler(pub Arc<Requests>);

#[async_trait]
impl LogicHandler for Handler {
    async fn sign_in(&self, call: SignInCall) -> Result<SignInAnswer, Refused> {
        let sign_in = call.sign_in.ok_or_else(|| Refused::Invalid("sign_in is missing".to_owned()))?;
        let outcome =
            match self.0.sign_in(GatewayBoot(call.gateway_boot), ConnectionId(call.connection_id), sign_in).await {
                Ok(login) => Outcome::SignedIn(services::SignedIn {
                    user_id: (&login.user).into(),
                    device_id: (&login.device).into(),
                    generation: login.generation.0,
                    inbox_version: login.inbox_version.0,
                    epoch: login.epoch.0,
                    token_expires_at_ms: login.token_expires_at_ms,
                    large: large_remote::memberships(&login.large),
                }),
                // Of this process, not of who signs in.
                Err(refused) if refused.code == CloseCode::Internal && !planted("away_is_an_answer") => {
                    return Err(Refused::Unavailable(refused.detail));
                }
                Err(refused) => Outcome::Refused(services::SignInRefused {
                    code: refused.code as i32,
                    reconnect_after_ms: refused.reconnect_after_ms,
                    detail: refused.detail,
                }),
            };
        Ok(SignInAnswer { outcome: Some(outcome) })
    }

    async fn sign_out(&self, call: SignOutCall) -> Result<(), Refused> {
        let login = call.login.ok_or_else(|| Refused::Invalid("login is missing".to_owned()))?;
        let Login { user, device, generation, gateway, connection } = held(call.gateway_boot, &login)?;
        self.0.signed_out(gateway, connection, user, device, generation).await.map_err(away)
    }

    async fn heartbeats(&self, call: HeartbeatsCall) -> Result<HeartbeatsAnswer, Refused> {
        let logins: Vec<Login> =
            call.logins.iter().map(|login| held(call.gateway_boot, login)).collect::<Result<_, _>>()?;
        let versions = self.0.heartbeats(&logins).await.map_err(away)?;
        let answer = |version: Result<im_proto::InboxVersion, Reason>| HeartbeatAnswer {
            stands: version.is_ok(),
            inbox_version: version.unwrap_or_default().0,
            ended: version.err().unwrap_or(Reason::Unspecified) as i32,
        };
        Ok(HeartbeatsAnswer { answers: versions.into_iter().map(answer).collect() })
    }

    async fn read(&self, call: ReadCall) -> Result<ReadAnswer, Refused> {
        let answer = self.0.read(&user(&call.user_id)?, call.frame).await;
        Ok(ReadAnswer {
            frame: answer.frame,
            inbox_version: answer.inbox_version.map(|version| version.0),
            large_heads: large_remote::told(&answer.large),
        })
    }

    async fn large_members(&self, log: LogId) -> Result<LargeMembersAnswer, Refused> {
        self.0.large_members(&log).await.map(large_remote::members_answer).map_err(away)
    }

    async fn large_heads(&self, logs: Vec<LogId>) -> Result<LargeHeadsAnswer, Refused> {
        self.0.large_heads(&logs).await.map(large_remote::heads_answer).map_err(away)
    }

    async fn large_of_users(&self, users: Vec<UserId>) -> Result<LargeOfUsersAnswer, Refused> {
        let large = self.0.large_of_users(&users).await.map_err(away)?;
        let of_user = |large: &Vec<_>| LargeOfUser { large: large_remote::memberships(large) };
        Ok(LargeOfUsersAnswer { users: large.iter().map(of_user).collect() })
    }

    async fn devices(&self, user: UserId) -> Result<ListDevicesAnswer, Refused> {
        let devices = self.0.devices(&user).await.map_err(away)?;
        let device = |state: im_logic::DeviceState| Device {
            device_id: (&state.device.id).into(),
            platform: state.device.platform,
            online: state.gateway.is_some(),
            gateway_boot: state.gateway.map_or(0, |gateway| gateway.0),
        };
        Ok(ListDevicesAnswer { devices: devices.into_iter().map(device).collect() })
    }

    async fn sign_out_device(&self, user: UserId, device: DeviceId) -> Result<SignOutDeviceAnswer, Refused> {
        let was_online = self.0.sign_out_device(&user, &device).await.map_err(away)?;
        Ok(SignOutDeviceAnswer { was_online })
    }
}

fn held(gateway: u64, login: &services::HeldLogin) -> Result<Login, Refused> {
    let device = DeviceId::parse(&login.device_id).map_err(|_| Refused::Invalid("device_id is no id".to_owned()))?;
    Ok(Login {
        user: user(&login.user_id)?,
        device,
        generation: Generation(login.generation),
        gateway: GatewayBoot(gateway),
        connection: ConnectionId(login.connection_id),
    })
}

fn user(id: &str) -> Result<UserId, Refused> {
    UserId::parse(id).map_err(|_| Refused::Invalid("user_id is no id".to_owned()))
}

fn away(error: StoreError) -> Refused {
    Refused::Unavailable(error.to_string())
}
