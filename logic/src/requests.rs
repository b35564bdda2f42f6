//! What a gateway asks the logic directly: sign-ins, and commands that only read.
//!
//! In: a request of one user. Out: an encoded answer, an error among them; never silence. Always: writes nothing but routes
//! and device rows; may run on any task, many at once, a bounded number of reads; a store that is away is answered RETRY.

mod devices;
mod joined_reads;
mod large;
mod list_members;
mod pull;
mod sign_in;
mod sync;
mod sync_without_inbox;

pub use devices::DeviceState;
pub use large::{LargeHead, LargeMembers, LargeMembership};
pub use sign_in::{SignInRefused, SignedIn};

use crate::accounts::Standing;
use crate::frame;
use crate::metrics::add;
use crate::planted::planted;
use crate::refusal::{Failure, Refusal};
use crate::token::KeyRing;
use crate::worker::{Refused, Shared};
use bytes::Bytes;
use im_proto::client::{self, client_frame::Command, kicked::Reason, server_frame::Body};
use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, LogId, Seq, UserId};
use im_storage::ports::{EntryRow, GatewayBoot, Login, StoreError};
use joined_reads::JoinedReads;
use prost::Message as _;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Reads under way at once; beyond it they are answered BUSY. A storm of syncs must not take all memory.
const READS_AT_ONCE_MAX: usize = 1_024;

/// Shared by all connections of a process.
pub struct Requests {
    shared: Shared,
    keys: KeyRing,
    epoch: Epoch,
    reads: Semaphore,
    devices: sign_in::KnownDevices,
    heads: JoinedReads<LogId, Option<EntryRow>>,
    ranges: JoinedReads<(LogId, Seq, usize), Arc<[EntryRow]>>,
}

/// A delimited `ServerFrame`, and up to which version it told the connection of everything.
#[derive(Debug, Clone)]
pub struct ReadAnswer {
    pub frame: Bytes,
    pub inbox_version: Option<InboxVersion>,
    /// Large conversations, and up to where the answer told the connection of each.
    pub large: Vec<(LogId, Seq)>,
}

impl ReadAnswer {
    /// One that tells of no conversation's end.
    fn of(frame: Bytes) -> Self {
        Self { frame, inbox_version: None, large: Vec::new() }
    }
}

impl Requests {
    pub(crate) fn new(shared: Shared, keys: KeyRing) -> Self {
        Self {
            epoch: shared.ports.log.epoch(),
            shared,
            keys,
            reads: Semaphore::new(READS_AT_ONCE_MAX),
            devices: sign_in::KnownDevices::new(),
            heads: JoinedReads::new(),
            ranges: JoinedReads::new(),
        }
    }

    /// The last entry of a log.
    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.heads.ask(log.clone(), || self.shared.ports.log.head(log)).await
    }

    /// Answers a pull, a sync or a list of members. `frame` is an encoded `ClientFrame`.
    pub async fn read(&self, user: &UserId, frame: Bytes) -> ReadAnswer {
        add(&self.shared.metrics.reads, 1);
        let Ok(asked) = client::ClientFrame::decode(frame) else {
            return self.refuse(user, 0, &Refusal::invalid("no frame"));
        };
        let Ok(_permit) = self.reads.try_acquire() else {
            return self.refuse(user, asked.request_id, &Refusal::OVERLOAD);
        };
        match self.answer(user, asked.request_id, asked.command).await {
            Ok(answer) => answer,
            Err(Failure::Refused(refusal)) => self.refuse(user, asked.request_id, &refusal),
            Err(Failure::Store(error)) => {
                add(&self.shared.metrics.store_errors, 1);
                tracing::warn!(%user, %error, "a read got no answer from a store");
                self.refuse(user, asked.request_id, &Refusal::UNAVAILABLE)
            }
        }
    }

    async fn answer(&self, user: &UserId, request_id: u64, command: Option<Command>) -> Result<ReadAnswer, Failure> {
        match command {
            Some(Command::Pull(pull)) => self.pull(user, request_id, &pull).await,
            Some(Command::Sync(sync)) => self.sync(user, request_id, &sync).await,
            Some(Command::ListMembers(list)) => self.list_members(user, request_id, &list).await,
            _ => Err(Refusal::UNKNOWN_COMMAND.into()),
        }
    }

    fn refuse(&self, user: &UserId, request_id: u64, refusal: &Refusal) -> ReadAnswer {
        self.shared.refused(refusal, &Refused { user, request_id, written: None });
        ReadAnswer::of(frame::of(request_id, Body::Error(refusal.to_wire())))
    }

    /// What a heartbeat asks of each login, in the order asked: the present inbox version of its user, or why the login has
    /// ended when its kick got lost. A route that got lost is put back on the way.
    pub async fn heartbeats(&self, logins: &[Login]) -> Result<Vec<Result<InboxVersion, Reason>>, StoreError> {
        let users: Vec<UserId> = logins.iter().map(|login| login.user.clone()).collect();
        let is_banned = |login: &&Login| self.shared.accounts.standing(&login.user) == Standing::Banned;
        if !planted("ban_ignored_by_heartbeat") {
            // By a delivery, which needs no store: without Redis there is no answer.
            logins.iter().filter(is_banned).for_each(|login| self.shared.kick(login, Reason::Banned));
        }
        let standing = self.shared.ports.routes.confirm(logins).await?;
        // Behind the routes: what moves from here on is pushed to them.
        let versions = self.shared.ports.inbox.versions(&users).await?;
        let answer = |((login, stands), version): ((&Login, bool), InboxVersion)| {
            if self.shared.accounts.standing(&login.user) == Standing::Banned && !planted("ban_ignored_by_heartbeat") {
                return Err(Reason::Banned);
            }
            if stands { Ok(version) } else { Err(Reason::Replaced) }
        };
        Ok(logins.iter().zip(standing).zip(versions).map(answer).collect())
    }

    /// Forgets the route of a login whose connection is gone. A newer login of the device stays.
    pub async fn signed_out(
        &self,
        gateway: GatewayBoot,
        connection: ConnectionId,
        user: UserId,
        device: DeviceId,
        generation: Generation,
    ) -> Result<(), StoreError> {
        self.shared.ports.routes.unregister(&Login { user, device, generation, gateway, connection }).await
    }
}

fn conversation_id(text: &str) -> Result<LogId, Refusal> {
    LogId::parse(text).map_err(|_| Refusal::invalid("the conversation's id is no id"))
}

/// What the client asks for, at most what the server gives; 0 asks for the most.
fn page(limit: u32, most: usize) -> usize {
    if limit == 0 { most } else { most.min(limit as usize) }
}
