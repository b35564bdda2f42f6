//! What gateway cores ask, each question a task of its own.
//!
//! In: questions with the lane of the core that asks. Out: the answers, into that lane. Always: a bounded number is under
//! way; one more is refused at once. The end of a login is never refused: it has places of its own and waits for one; while
//! too many wait no login begins, so what waits is bounded by that number and by the connections. A login that cannot be
//! told to its core is ended here.

use bytes::Bytes;
use im_gateway::{AskLogic, CoreLane, LogicAnswer, Question, SignInRefused, SignedIn};
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, server_frame};
use im_storage::ports::GatewayBoot;
use prost::Message as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Questions under way at once. One more is answered BUSY, or a sign-in OVERLOADED.
const QUESTIONS_MAX: usize = 4096;
/// Ends of logins told to the logic at once; further ones wait.
const SIGN_OUTS_AT_ONCE_MAX: usize = 1024;
/// Ends of logins that wait, or are being told. With as many, sign-ins are answered OVERLOADED.
const SIGN_OUTS_MAX: usize = 65_536;
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
    sign_out_places: Arc<Semaphore>,
    sign_outs: Arc<AtomicUsize>,
    gateway: OnceLock<GatewayBoot>,
}

impl<A: Answers> Ask<A> {
    pub fn new(answers: Arc<A>, runtime: Handle) -> Self {
        Self {
            answers,
            runtime,
            places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            sign_out_places: Arc::new(Semaphore::new(SIGN_OUTS_AT_ONCE_MAX)),
            sign_outs: Arc::default(),
            gateway: OnceLock::new(),
        }
    }

    pub fn name_gateway(&self, boot: GatewayBoot) {
        let _ = self.gateway.set(boot);
    }

    fn sign_out(&self, gateway: GatewayBoot, signed_out: Question) {
        let (answers, places, sign_outs) = (self.answers.clone(), self.sign_out_places.clone(), self.sign_outs.clone());
        sign_outs.fetch_add(1, Ordering::Relaxed);
        self.runtime.spawn(async move {
            let place = places.acquire().await;
            answers.answer(gateway, signed_out).await;
            drop(place);
            sign_outs.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn takes(&self, question: &Question) -> bool {
        !matches!(question, Question::SignIn { .. }) || self.sign_outs.load(Ordering::Relaxed) < SIGN_OUTS_MAX
    }
}

impl<A: Answers> AskLogic for Ask<A> {
    fn ask(&self, question: Question, lane: CoreLane) {
        // A client can be faster than the line that names the gateway, once, at start.
        let Some(gateway) = self.gateway.get().copied() else { return refuse(question, &lane) };
        if matches!(question, Question::SignedOut { .. }) {
            return self.sign_out(gateway, question);
        }
        if !self.takes(&question) {
            return refuse(question, &lane);
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else { return refuse(question, &lane) };
        let answers = self.answers.clone();
        self.runtime.spawn(async move {
            let untold = answers.answer(gateway, question).await.and_then(|answer| lane.answer(answer));
            if let Some(signed_out) = untold.and_then(end_of) {
                answers.answer(gateway, signed_out).await;
            }
            drop(place);
        });
    }
}

/// Of a login whose core does not learn that it stands.
fn end_of(untold: LogicAnswer) -> Option<Question> {
    let LogicAnswer::SignedIn { connection, outcome: Ok(signed_in) } = untold else { return None };
    let SignedIn { user, device, generation, .. } = signed_in;
    Some(Question::SignedOut { connection, user, device, generation })
}

/// Says at once that there is no room. Heartbeats have deadlines of their own; heads are asked again.
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
        Question::LargeMembers { log } => {
            lane.answer(LogicAnswer::LargeMembers { log, members: None });
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, UserId};
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use tokio::sync::{Notify, watch};

    const BOOT: GatewayBoot = GatewayBoot(7);

    /// Answers nothing until it is told to; every sign-in stands.
    struct Slow {
        goes: watch::Sender<bool>,
        signed_out: Mutex<BTreeSet<ConnectionId>>,
        heard: Notify,
    }

    impl Answers for Slow {
        async fn answer(&self, gateway: GatewayBoot, question: Question) -> Option<LogicAnswer> {
            assert_eq!(gateway, BOOT);
            self.goes.subscribe().wait_for(|goes| *goes).await.unwrap();
            match question {
                Question::SignIn { connection, .. } => Some(LogicAnswer::SignedIn { connection, outcome: Ok(login()) }),
                Question::SignedOut { connection, .. } => {
                    self.signed_out.lock().unwrap().insert(connection);
                    self.heard.notify_one();
                    None
                }
                _ => None,
            }
        }
    }

    fn ask(goes: bool) -> Ask<Slow> {
        let slow = Slow { goes: watch::Sender::new(goes), signed_out: Mutex::default(), heard: Notify::new() };
        let ask = Ask::new(Arc::new(slow), Handle::current());
        ask.name_gateway(BOOT);
        ask
    }

    impl Slow {
        async fn signed_out(&self, wanted: usize) {
            while self.signed_out.lock().unwrap().len() < wanted {
                self.heard.notified().await;
            }
        }
    }

    fn login() -> SignedIn {
        SignedIn {
            user: UserId::parse("ann").unwrap(),
            device: DeviceId::parse("phone").unwrap(),
            generation: Generation(1),
            inbox_version: InboxVersion(0),
            epoch: Epoch(1),
            token_expires_at_ms: None,
            large: Vec::new(),
        }
    }

    fn sign_in(connection: u64) -> Question {
        Question::SignIn { connection: ConnectionId(connection), sign_in: client::SignIn::default() }
    }

    fn signed_out(connection: u64) -> Question {
        end_of(LogicAnswer::SignedIn { connection: ConnectionId(connection), outcome: Ok(login()) }).unwrap()
    }

    #[tokio::test]
    async fn the_end_of_a_login_is_told_however_much_is_under_way() {
        let (ask, lane) = (ask(false), CoreLane::default());
        let heads = || Question::LargeHeads { logs: Vec::new() };
        (0..QUESTIONS_MAX).for_each(|_| ask.ask(heads(), lane.clone()));
        let cut = 2 * SIGN_OUTS_AT_ONCE_MAX as u64;
        (0..cut).for_each(|connection| ask.ask(signed_out(connection), lane.clone()));
        ask.answers.goes.send_replace(true);
        ask.answers.signed_out(cut as usize).await;
    }

    #[tokio::test]
    async fn no_login_begins_while_too_many_ends_wait() {
        let (ask, lane) = (ask(false), CoreLane::default());
        (0..SIGN_OUTS_MAX as u64).for_each(|connection| ask.ask(signed_out(connection), lane.clone()));
        assert!(!ask.takes(&sign_in(1)));
        assert!(ask.takes(&Question::LargeHeads { logs: Vec::new() }));
        ask.answers.goes.send_replace(true);
        ask.answers.signed_out(SIGN_OUTS_MAX).await;
        while !ask.takes(&sign_in(1)) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_login_that_a_full_lane_does_not_take_is_ended() {
        let (ask, lane) = (ask(true), CoreLane::default());
        while lane.answer(LogicAnswer::LargeHeads { heads: Vec::new() }).is_none() {}
        ask.ask(sign_in(5), lane);
        ask.answers.signed_out(1).await;
        assert!(ask.answers.signed_out.lock().unwrap().contains(&ConnectionId(5)));
    }
}
