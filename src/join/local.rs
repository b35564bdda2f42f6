//! Questions answered by the request handlers of this process.
//!
//! In: a gateway's question. Out: its answer, in the gateway's words. Always: a call, and nothing on the way that could be lost.

use super::ask::Answers;
use super::large;
use im_gateway::{HeldLogin, LogicAnswer, Question, SignInRefused, SignedIn};
use im_logic::Requests;
use im_storage::ports::{GatewayBoot, Login};

impl Answers for Requests {
    async fn answer(&self, gateway: GatewayBoot, question: Question) -> Option<LogicAnswer> {
        Some(match question {
            Question::SignIn { connection, sign_in } => {
                let outcome = self.sign_in(gateway, connection, sign_in).await;
                LogicAnswer::SignedIn { connection, outcome: outcome.map(signed_in).map_err(refused) }
            }
            Question::Read { connection, request_id, user, frame } => {
                let answer = self.read(&user, frame).await;
                let im_logic::ReadAnswer { frame, inbox_version, large } = answer;
                LogicAnswer::Read { connection, request_id, frame, inbox_version, large }
            }
            Question::Heartbeats { logins } => {
                let logins: Vec<Login> = logins.into_iter().map(|held| login(gateway, held)).collect();
                // Without an answer the gateway's own deadline keeps the heartbeats going.
                let versions = self.heartbeats(&logins).await.ok()?;
                LogicAnswer::Heartbeats { answers: logins.iter().map(|login| login.connection).zip(versions).collect() }
            }
            Question::LargeMembers { log } => large::members(self, log).await,
            Question::LargeHeads { logs } => return large::heads(self, &logs).await,
            Question::LargeOfUsers { changes, users } => return large::of_users(self, changes, users).await,
            Question::SignedOut { connection, user, device, generation } => {
                let ended = self.signed_out(gateway, connection, user, device, generation).await;
                if let Err(error) = ended {
                    tracing::warn!(%error, %connection, "a route stays until its device signs in again");
                }
                return None;
            }
        })
    }
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
