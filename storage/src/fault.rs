//! Ports with a place to die before and after every call.
//!
//! In: a port and the point chosen by `IM_FAULT_POINT`. Out: the same port. Always: at the chosen passing of the chosen
//! point the process aborts, as a kill would, or that call hangs, or panics; everywhere else the call goes through unchanged.
//! Nothing is atomic across two calls, and these points are how the tests see to it.

mod cut_appends;

use crate::ports::*;
use async_trait::async_trait;
use im_proto::{ClientId, ConnectionId, DeviceId, Epoch, InboxVersion, LogId, Seq, UserId};
use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use cut_appends::CutAppends;

/// Every call that has a point on both sides.
const CALLS: [&str; 39] = [
    "entry_log.append",
    "entry_log.head",
    "entry_log.range",
    "entry_log.find",
    "entry_log.end",
    "entry_log.is_empty",
    "entry_log.tail",
    "entry_log.logs",
    "entry_log.release",
    "directory.conversation",
    "directory.memberships",
    "directory.members",
    "directory.conversations_of",
    "directory.large_conversations",
    "directory.apply",
    "directory.record_reads",
    "directory.reads",
    "directory.furthest_read",
    "directory.record_device",
    "directory.devices",
    "directory.claim",
    "directory.cover",
    "inbox.bump",
    "inbox.since",
    "inbox.versions",
    "inbox.reads",
    "inbox.claim",
    "inbox.cover",
    "routes.register",
    "routes.unregister",
    "routes.look_up",
    "routes.confirm",
    "routes.renew_lease",
    "routes.end_lease",
    "routes.gateways",
    "queue.produce",
    "queue.produce_and_wait",
    "queue.set_aside",
    "delivery.deliver",
];
/// The consumer's, apart because a consumer has one owner.
const CONSUMER_CALLS: [&str; 2] = ["consumer.next", "consumer.commit"];

/// All points, for a test that dies at each.
pub fn names() -> Vec<String> {
    let calls = CALLS.iter().chain(&CONSUMER_CALLS);
    calls.flat_map(|call| [format!("{call}.before"), format!("{call}.after")]).collect()
}

/// The point at which this process dies, if any.
#[derive(Debug, Default)]
pub struct FaultPoints {
    chosen: Option<String>,
    /// Passings left until then.
    left: AtomicU64,
    /// Passings count while this file exists; `None`: always.
    armed_by: Option<PathBuf>,
    strike: Strike,
}

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Strike {
    #[default]
    Abort,
    /// The call does not return while the arming file exists, as one to a store that does not answer; without such a file,
    /// never. Calls that do not wait cannot hang.
    Hang,
    /// As a bug in whoever makes the call.
    Panic,
}

/// Between two looks at the file that keeps a call hanging.
const HANG_POLL: Duration = Duration::from_millis(2);

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a fault point: want name:n, as entry_log.append.before:3")]
pub struct UnknownPoint(String);

impl FaultPoints {
    /// Reads `name:n` from the environment variable: the n-th passing of that point, counted from 1. Where the variable
    /// `IM_FAULT_ARMED` names a file, only passings while the file exists are counted; with `IM_FAULT_HANGS` the call hangs,
    /// with `IM_FAULT_PANICS` it panics.
    pub fn from_env(variable: &str) -> Result<Arc<Self>, UnknownPoint> {
        let Ok(value) = std::env::var(variable) else { return Ok(Arc::default()) };
        let armed_by = std::env::var_os("IM_FAULT_ARMED").map(PathBuf::from);
        let is_set = |name| std::env::var_os(name).is_some();
        let strike = match (is_set("IM_FAULT_HANGS"), is_set("IM_FAULT_PANICS")) {
            (true, _) => Strike::Hang,
            (_, true) => Strike::Panic,
            _ => Strike::Abort,
        };
        Ok(Arc::new(Self { armed_by, strike, ..Self::parse(&value)? }))
    }

    pub fn parse(value: &str) -> Result<Self, UnknownPoint> {
        let unknown = || UnknownPoint(value.to_owned());
        let (name, passing) = value.split_once(':').ok_or_else(unknown)?;
        let passing = passing.parse().ok().filter(|passing| *passing > 0).ok_or_else(unknown)?;
        if !names().iter().any(|known| known == name) {
            return Err(unknown());
        }
        Ok(Self { chosen: Some(name.to_owned()), left: AtomicU64::new(passing), ..Self::default() })
    }

    /// True: the call must hang here.
    fn pass(&self, call: &str, side: &str) -> bool {
        debug_assert!(CALLS.contains(&call) || CONSUMER_CALLS.contains(&call), "{call} is not listed");
        let Some(chosen) = &self.chosen else { return false };
        let here = chosen.strip_prefix(call).and_then(|rest| rest.strip_prefix('.')) == Some(side);
        let armed = || self.armed_by.as_ref().is_none_or(|file| file.exists());
        if !here || !armed() || self.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return false;
        }
        match self.strike {
            Strike::Abort => {
                eprintln!("aborting at fault point {chosen}");
                std::process::abort();
            }
            Strike::Hang => true,
            Strike::Panic => panic!("the fault point {chosen}"),
        }
    }

    async fn around<T>(&self, call: &str, inner: impl Future<Output = T>) -> T {
        if self.pass(call, "before") {
            self.hang().await;
        }
        let answer = inner.await;
        if self.pass(call, "after") {
            self.hang().await;
        }
        answer
    }

    async fn hang(&self) {
        let Some(file) = &self.armed_by else { return std::future::pending().await };
        while file.exists() {
            tokio::time::sleep(HANG_POLL).await;
        }
    }
}

/// A port with its points.
pub struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    points: Arc<FaultPoints>,
}

impl<P: ?Sized> Faulty<P> {
    pub fn new(inner: Arc<P>, points: Arc<FaultPoints>) -> Arc<Self> {
        Arc::new(Self { inner, points })
    }
}

#[async_trait]
impl<P: EntryLog + ?Sized> EntryLog for Faulty<P> {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    async fn append(&self, batch: Vec<NewEntry>) -> Appended {
        self.points.around("entry_log.append", self.inner.append(batch)).await
    }

    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError> {
        self.points.around("entry_log.head", self.inner.head(log)).await
    }

    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError> {
        self.points.around("entry_log.range", self.inner.range(log, from, entries_max, bytes_max)).await
    }

    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError> {
        self.points.around("entry_log.find", self.inner.find(log, sender, client_id)).await
    }

    async fn end(&self) -> Result<Cursor, StoreError> {
        self.points.around("entry_log.end", self.inner.end()).await
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        self.points.around("entry_log.is_empty", self.inner.is_empty()).await
    }

    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError> {
        self.points.around("entry_log.tail", self.inner.tail(shard, after, until, entries_max)).await
    }

    async fn logs(&self, shard: Shard, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, StoreError> {
        self.points.around("entry_log.logs", self.inner.logs(shard, after, limit)).await
    }

    async fn release(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError> {
        self.points.around("entry_log.release", self.inner.release(shards, cursor)).await
    }
}

#[async_trait]
impl<P: Directory + Named + ?Sized> Directory for Faulty<P> {
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError> {
        self.points.around("directory.conversation", self.inner.conversation(log)).await
    }

    async fn memberships(&self, user: &UserId, logs: &[LogId]) -> Result<Vec<Option<Membership>>, StoreError> {
        self.points.around("directory.memberships", self.inner.memberships(user, logs)).await
    }

    async fn members(
        &self,
        log: &LogId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Conversation>, StoreError> {
        self.points.around("directory.members", self.inner.members(log, after, limit)).await
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError> {
        self.points.around("directory.conversations_of", self.inner.conversations_of(user, after, limit)).await
    }

    async fn large_conversations(
        &self,
        user: &UserId,
        members_min: usize,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Membership)>, StoreError> {
        let listed = self.inner.large_conversations(user, members_min, after, limit);
        self.points.around("directory.large_conversations", listed).await
    }

    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<Vec<LogId>, StoreError> {
        self.points.around("directory.apply", self.inner.apply(changes)).await
    }

    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError> {
        self.points.around("directory.record_device", self.inner.record_device(user, device)).await
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        self.points.around("directory.devices", self.inner.devices(user)).await
    }

    async fn record_reads(&self, reads: Vec<ReadMark>) -> Result<(), StoreError> {
        self.points.around("directory.record_reads", self.inner.record_reads(reads)).await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        self.points.around("directory.reads", self.inner.reads(of)).await
    }

    async fn furthest_read(&self, log: &LogId) -> Result<Option<ReadMark>, StoreError> {
        self.points.around("directory.furthest_read", self.inner.furthest_read(log)).await
    }
}

/// A projection names itself, for both have the same calls.
trait Named {
    const CLAIM: &'static str;
    const COVER: &'static str;
}

impl Named for dyn Directory {
    const CLAIM: &'static str = "directory.claim";
    const COVER: &'static str = "directory.cover";
}

impl Named for dyn Inbox {
    const CLAIM: &'static str = "inbox.claim";
    const COVER: &'static str = "inbox.cover";
}

#[async_trait]
impl<P: Projection + Named + ?Sized> Projection for Faulty<P> {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        self.points.around(P::CLAIM, self.inner.claim(shards)).await
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        self.points.around(P::COVER, self.inner.cover(claim, cursor)).await
    }
}

#[async_trait]
impl<P: Inbox + Named + ?Sized> Inbox for Faulty<P> {
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError> {
        self.points.around("inbox.bump", self.inner.bump(moves)).await
    }

    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError> {
        self.points.around("inbox.since", self.inner.since(user, after, limit)).await
    }

    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError> {
        self.points.around("inbox.versions", self.inner.versions(users)).await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        self.points.around("inbox.reads", self.inner.reads(of)).await
    }
}

#[async_trait]
impl<P: Routes + ?Sized> Routes for Faulty<P> {
    async fn register(
        &self,
        user: &UserId,
        device: &DeviceId,
        gateway: GatewayBoot,
        connection: ConnectionId,
        dial: Option<Dial>,
        now_ms: i64,
    ) -> Result<Option<Registered>, StoreError> {
        self.points
            .around("routes.register", self.inner.register(user, device, gateway, connection, dial, now_ms))
            .await
    }

    async fn unregister(&self, login: &Login) -> Result<(), StoreError> {
        self.points.around("routes.unregister", self.inner.unregister(login)).await
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        self.points.around("routes.look_up", self.inner.look_up(users)).await
    }

    async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
        self.points.around("routes.confirm", self.inner.confirm(logins)).await
    }

    async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
        self.points.around("routes.renew_lease", self.inner.renew_lease(gateway, lease_ms)).await
    }

    async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError> {
        self.points.around("routes.end_lease", self.inner.end_lease(gateway)).await
    }

    async fn gateways(&self) -> Result<Vec<Gateway>, StoreError> {
        self.points.around("routes.gateways", self.inner.gateways()).await
    }
}

#[async_trait]
impl<P: Queue + ?Sized> Queue for Faulty<P> {
    fn produce(&self, records: &mut Vec<Record>) {
        self.points.pass("queue.produce", "before");
        self.inner.produce(records);
        self.points.pass("queue.produce", "after");
    }

    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.points.around("queue.produce_and_wait", self.inner.produce_and_wait(records)).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.points.around("queue.set_aside", self.inner.set_aside(letters)).await
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }
}

impl<P: Delivery + ?Sized> Delivery for Faulty<P> {
    fn deliver(&self, gateway: GatewayBoot, deliveries: Vec<im_proto::internal::Delivery>) {
        self.points.pass("delivery.deliver", "before");
        self.inner.deliver(gateway, deliveries);
        self.points.pass("delivery.deliver", "after");
    }
}

/// A consumer with its points.
pub struct FaultyConsumer<C> {
    inner: C,
    points: Arc<FaultPoints>,
}

impl<C> FaultyConsumer<C> {
    pub fn new(inner: C, points: Arc<FaultPoints>) -> Self {
        Self { inner, points }
    }
}

#[async_trait]
impl<C: Consumer> Consumer for FaultyConsumer<C> {
    async fn next(&mut self, records_max: usize) -> Result<Option<Consumed>, StoreError> {
        self.points.around("consumer.next", self.inner.next(records_max)).await
    }

    async fn commit(&mut self, partition: Partition, offset: Offset) -> Result<(), StoreError> {
        self.points.around("consumer.commit", self.inner.commit(partition, offset)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_listed_name_and_a_passing() {
        for good in ["entry_log.append.before:1", "consumer.commit.after:12"] {
            assert!(FaultPoints::parse(good).is_ok(), "{good}");
        }
        for bad in ["entry_log.append:1", "entry_log.append.before", "inbox.bump.after:0", "x.y.before:1"] {
            assert!(FaultPoints::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(names().len(), 2 * (CALLS.len() + CONSUMER_CALLS.len()));
    }
}
