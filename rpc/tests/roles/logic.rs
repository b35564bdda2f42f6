//! A logic role that answers what a test put into it.

use async_trait::async_trait;
use im_proto::services::*;
use im_proto::{DeviceId, LogId, UserId};
use im_rpc::{
    CallOptions, ConnectOptions, LogicClient, LogicHandler, Refused, Served, Stop, TlsOptions, logic_service, serve,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Logic {
    /// So many reads are answered UNAVAILABLE before one succeeds.
    pub away: AtomicU32,
    /// Reads are never answered.
    pub is_silent: bool,
    pub reads: AtomicU32,
}

#[async_trait]
impl LogicHandler for Logic {
    async fn sign_in(&self, call: SignInCall) -> Result<SignInAnswer, Refused> {
        let sign_in = call.sign_in.ok_or_else(|| Refused::Invalid("unreachable".to_owned()))?;
        let signed_in = SignedIn { device_id: sign_in.device_id, generation: 9, ..Default::default() };
        Ok(SignInAnswer { outcome: Some(sign_in_answer::Outcome::SignedIn(signed_in)) })
    }

    async fn sign_out(&self, _: SignOutCall) -> Result<(), Refused> {
        Ok(())
    }

    async fn heartbeats(&self, call: HeartbeatsCall) -> Result<HeartbeatsAnswer, Refused> {
        let answer =
            |login: &HeldLogin| HeartbeatAnswer { stands: true, inbox_version: login.generation, ..Default::default() };
        Ok(HeartbeatsAnswer { answers: call.logins.iter().map(answer).collect() })
    }

    async fn read(&self, call: ReadCall) -> Result<ReadAnswer, Refused> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) > 0 {
            self.away.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Unavailable("a store is away".to_owned()));
        }
        Ok(ReadAnswer { frame: call.frame, inbox_version: Some(3), large_heads: vec![head("glog")] })
    }

    async fn large_members(&self, log: LogId) -> Result<LargeMembersAnswer, Refused> {
        let member = LargeMember { user_id: log.as_str().to_owned(), joined_seq: 2 };
        Ok(LargeMembersAnswer { members_seq: 7, members: vec![member] })
    }

    async fn large_heads(&self, logs: Vec<LogId>) -> Result<LargeHeadsAnswer, Refused> {
        Ok(LargeHeadsAnswer { heads: logs.iter().map(|log| head(log.as_str())).collect() })
    }

    async fn large_of_users(&self, users: Vec<UserId>) -> Result<LargeOfUsersAnswer, Refused> {
        let of = |user: &UserId| LargeMembership { log_id: user.as_str().to_owned(), joined_seq: 2, members_seq: 7 };
        Ok(LargeOfUsersAnswer { users: users.iter().map(|user| LargeOfUser { large: vec![of(user)] }).collect() })
    }

    async fn devices(&self, user: UserId) -> Result<ListDevicesAnswer, Refused> {
        let device = Device { device_id: user.as_str().to_owned(), ..Default::default() };
        Ok(ListDevicesAnswer { devices: vec![device] })
    }

    async fn sign_out_device(&self, _: UserId, _: DeviceId) -> Result<SignOutDeviceAnswer, Refused> {
        Ok(SignOutDeviceAnswer { was_online: true })
    }
}

pub fn head(log: &str) -> LargeHead {
    LargeHead { log_id: log.to_owned(), seq: 5, is_large: true }
}

pub async fn serve_logic(logic: Arc<Logic>, tls: Option<&TlsOptions>) -> Served {
    serve_logic_within(PATIENCE, logic, tls).await
}

/// No request is worked on longer than `timeout`.
pub async fn serve_logic_within(timeout: Duration, logic: Arc<Logic>, tls: Option<&TlsOptions>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = serve(listener, tls, logic_service(logic, tls, timeout).unwrap(), Stop::default()).await.unwrap();
    served.ready(true).await;
    served
}

pub fn connect(tls: Option<TlsOptions>) -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_secs(5), keep_alive: Duration::from_secs(5), tls }
}

pub fn options(endpoints: Vec<String>) -> CallOptions {
    CallOptions { endpoints, timeout: Duration::from_secs(5), attempts: 3, connect: connect(None) }
}

pub fn client(served: &[&Served]) -> LogicClient {
    LogicClient::new(&options(served.iter().map(|served| format!("http://{}", served.address)).collect())).unwrap()
}

pub fn read(frame: &'static [u8]) -> ReadCall {
    ReadCall { user_id: "ann".to_owned(), frame: frame.into() }
}
