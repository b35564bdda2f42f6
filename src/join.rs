//! Joins the gateway to the queue and the logic, so that neither names the other.
//!
//! In: the gateway's two traits. Out: calls of the queue port and of the request handlers. Always: nothing here waits on a
//! gateway core's thread; questions that cannot be taken are answered at once, not forgotten.

mod large;

use bytes::Bytes;
use im_gateway::{
    AskLogic, CoreLane, Forward, GatewayHandle, HeldLogin, LogicAnswer, Question, SignInRefused, SignedIn, Upstream,
};
use im_logic::Requests;
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, server_frame};
use im_proto::internal;
use im_storage::ports::{Delivery, GatewayBoot, Login, Queue, Record};
use prost::Message as _;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Questions under way at once. One more is answered BUSY, or a sign-in OVERLOADED.
const QUESTIONS_MAX: usize = 4096;
const BUSY_RETRY_MS: u32 = 1000;

/// Puts records into the queue.
pub struct ForwardToQueue {
    queue: Arc<dyn Queue>,
}

impl ForwardToQueue {
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue }
    }
}

impl Forward for ForwardToQueue {
    fn forward(&self, upstream: &mut Vec<Upstream>) {
        let mut records: Vec<Record> =
            upstream.drain(..).map(|Upstream { log, record }| Record { log, upstream: record }).collect();
        self.queue.produce(&mut records);
        upstream.extend(records.into_iter().map(|Record { log, upstream }| Upstream { log, record: upstream }));
    }
}

/// Hands deliveries to the gateway of this process. They cannot be lost on the way, so they need no numbers.
#[derive(Default)]
pub struct DeliverToGateway {
    gateway: OnceLock<GatewayHandle>,
}

impl DeliverToGateway {
    /// Before this there is no gateway, and so nobody to deliver to.
    pub fn connect(&self, gateway: GatewayHandle) {
        let _ = self.gateway.set(gateway);
    }
}

impl Delivery for DeliverToGateway {
    fn deliver(&self, boot: GatewayBoot, deliveries: Vec<internal::Delivery>) {
        if let Some(gateway) = self.gateway.get().filter(|gateway| gateway.boot() == boot.0) {
            gateway.deliver(deliveries);
        }
    }
}

/// Asks the request handlers, each question as a task.
pub struct AskRequests {
    requests: Arc<Requests>,
    runtime: Handle,
    places: Arc<Semaphore>,
    gateway: OnceLock<GatewayBoot>,
}

impl AskRequests {
    pub fn new(requests: Arc<Requests>, runtime: Handle) -> Self {
        Self { requests, runtime, places: Arc::new(Semaphore::new(QUESTIONS_MAX)), gateway: OnceLock::new() }
    }

    pub fn name_gateway(&self, boot: GatewayBoot) {
        let _ = self.gateway.set(boot);
    }
}

impl AskLogic for AskRequests {
    fn ask(&self, question: Question, lane: CoreLane) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return refuse(question, &lane) };
        // A client can be faster than the line that names the gateway, once, at start.
        let Some(gateway) = self.gateway.get().copied() else { return refuse(question, &lane) };
        let requests = self.requests.clone();
        self.runtime.spawn(async move {
            if let Some(answer) = answer(&requests, gateway, question).await {
                lane.answer(answer);
            }
            drop(place);
        });
    }
}

async fn answer(requests: &Requests, gateway: GatewayBoot, question: Question) -> Option<LogicAnswer> {
    Some(match question {
        Question::SignIn { connection, sign_in } => {
            let outcome = requests.sign_in(gateway, connection, sign_in).await;
            LogicAnswer::SignedIn { connection, outcome: outcome.map(signed_in).map_err(refused) }
        }
        Question::Read { connection, request_id, user, frame } => {
            let answer = requests.read(&user, frame).await;
            let im_logic::ReadAnswer { frame, inbox_version, large } = answer;
            LogicAnswer::Read { connection, request_id, frame, inbox_version, large }
        }
        Question::Heartbeats { logins } => {
            let logins: Vec<Login> = logins.into_iter().map(|held| login(gateway, held)).collect();
            // Without an answer the gateway's own deadline keeps the heartbeats going.
            let versions = requests.heartbeats(&logins).await.ok()?;
            LogicAnswer::Heartbeats { answers: logins.iter().map(|login| login.connection).zip(versions).collect() }
        }
        Question::LargeMembers { log } => large::members(requests, log).await,
        Question::LargeHeads { logs } => return large::heads(requests, &logs).await,
        Question::LargeOfUsers { changes, users } => return large::of_users(requests, changes, users).await,
        Question::SignedOut { connection, user, device, generation } => {
            let ended = requests.signed_out(gateway, connection, user, device, generation).await;
            if let Err(error) = ended {
                tracing::warn!(%error, %connection, "a route stays until its device signs in again");
            }
            return None;
        }
    })
}

fn login(gateway: GatewayBoot, held: HeldLogin) -> Login {
    let HeldLogin { connection, user, device, generation } = held;
    Login { user, device, generation, gateway, connection }
}

fn signed_in(login: im_logic::SignedIn) -> SignedIn {
    SignedIn {
        user: login.user,
        device: login.device,
        generation: login.generation,
        inbox_version: login.inbox_version,
        epoch: login.epoch,
        token_expires_at_ms: login.token_expires_at_ms,
        large: large::memberships(login.large),
    }
}

fn refused(refused: im_logic::SignInRefused) -> SignInRefused {
    SignInRefused { code: refused.code, reconnect_after_ms: refused.reconnect_after_ms, detail: refused.detail }
}

/// Says at once that there is no room. Heartbeats and sign-outs have deadlines and leases of their own.
fn refuse(question: Question, lane: &CoreLane) {
    match question {
        Question::SignIn { connection, .. } => {
            let refused = SignInRefused {
                code: CloseCode::Overloaded,
                reconnect_after_ms: BUSY_RETRY_MS,
                detail: "too many sign-ins at once".to_owned(),
            };
            lane.answer(LogicAnswer::SignedIn { connection, outcome: Err(refused) });
        }
        Question::Read { connection, request_id, .. } => {
            let busy = client::Error {
                class: ErrorClass::Busy as i32,
                code: ErrorCode::Overload as i32,
                retry_after_ms: BUSY_RETRY_MS,
                detail: "too many requests at once".to_owned(),
            };
            let frame = client::ServerFrame { request_id, body: Some(server_frame::Body::Error(busy)) };
            let frame = Bytes::from(frame.encode_length_delimited_to_vec());
            lane.answer(LogicAnswer::Read { connection, request_id, frame, inbox_version: None, large: Vec::new() });
        }
        Question::LargeMembers { log } => lane.answer(LogicAnswer::LargeMembers { log, members: None }),
        Question::Heartbeats { .. }
        | Question::SignedOut { .. }
        | Question::LargeHeads { .. }
        | Question::LargeOfUsers { .. } => {}
    }
}
