//! What gateway cores ask, each question a task of its own.
//!
//! In: questions with the lane of the core that asks. Out: the answers, into that lane. Always: a bounded number is under
//! way; one more is refused at once.

use bytes::Bytes;
use im_gateway::{AskLogic, CoreLane, LogicAnswer, Question, SignInRefused};
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, server_frame};
use im_storage::ports::GatewayBoot;
use prost::Message as _;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Questions under way at once. One more is answered BUSY, or a sign-in OVERLOADED.
const QUESTIONS_MAX: usize = 4096;
const BUSY_RETRY_MS: u32 = 1000;

/// Whoever knows the answers: the handlers of this process, or a logic role elsewhere.
pub trait Answers: Send + Sync + 'static {
    /// `None`: the gateway's own deadline ends the question.
    fn answer(&self, gateway: GatewayBoot, question: Question) -> impl Future<Output = Option<LogicAnswer>> + Send;
}

pub struct Ask<A> {
    answers: Arc<A>,
    runtime: Handle,
    places: Arc<Semaphore>,
    gateway: OnceLock<GatewayBoot>,
}

impl<A: Answers> Ask<A> {
    pub fn new(answers: Arc<A>, runtime: Handle) -> Self {
        Self { answers, runtime, places: Arc::new(Semaphore::new(QUESTIONS_MAX)), gateway: OnceLock::new() }
    }

    pub fn name_gateway(&self, boot: GatewayBoot) {
        let _ = self.gateway.set(boot);
    }
}

impl<A: Answers> AskLogic for Ask<A> {
    fn ask(&self, question: Question, lane: CoreLane) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return refuse(question, &lane) };
        // A client can be faster than the line that names the gateway, once, at start.
        let Some(gateway) = self.gateway.get().copied() else { return refuse(question, &lane) };
        let answers = self.answers.clone();
        self.runtime.spawn(async move {
            if let Some(answer) = answers.answer(gateway, question).await {
                lane.answer(answer);
            }
            drop(place);
        });
    }
}

/// Says at once that there is no room. Heartbeats and sign-outs have deadlines and leases of their own; heads are asked again.
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
            let frame = error_frame(request_id, busy);
            lane.answer(LogicAnswer::Read { connection, request_id, frame, inbox_version: None, large: Vec::new() });
        }
        Question::LargeMembers { log } => lane.answer(LogicAnswer::LargeMembers { log, members: None }),
        Question::Heartbeats { .. }
        | Question::SignedOut { .. }
        | Question::LargeHeads { .. }
        | Question::LargeOfUsers { .. } => {}
    }
}

pub fn error_frame(request_id: u64, error: client::Error) -> Bytes {
    let frame = client::ServerFrame { request_id, body: Some(server_frame::Body::Error(error)) };
    Bytes::from(frame.encode_length_delimited_to_vec())
}
