//! A directory that can fall silent, as a server does that is frozen: it refuses nothing and answers nothing.
//!
//! In: the calls of the port. Out: those of an embedded directory, once it may speak. Always: what was asked in the silence is
//! answered after it. Lists of members can be silent alone; and a change of members can be lost, as by a copy that lags.

use im_proto::{LogId, UserId};
use im_storage::ports::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

pub struct SilentDirectory {
    inner: Arc<dyn Directory>,
    is_silent: watch::Sender<bool>,
    lists_none: watch::Sender<bool>,
    /// Calls.
    loses_changes: AtomicUsize,
}

impl SilentDirectory {
    pub fn over(inner: Arc<dyn Directory>) -> Arc<Self> {
        let silent = || watch::Sender::new(false);
        Arc::new(Self { inner, is_silent: silent(), lists_none: silent(), loses_changes: AtomicUsize::new(0) })
    }

    pub fn set_silent(&self, is_silent: bool) {
        self.is_silent.send_replace(is_silent);
    }

    pub fn set_listing_none(&self, lists_none: bool) {
        self.lists_none.send_replace(lists_none);
    }

    /// What so many calls apply from now on is said to be, and is not.
    pub fn lose_changes(&self, calls: usize) {
        self.loses_changes.store(calls, Ordering::SeqCst);
    }

    async fn inner(&self) -> &dyn Directory {
        let mut is_silent = self.is_silent.subscribe();
        is_silent.wait_for(|is_silent| !*is_silent).await.unwrap();
        &*self.inner
    }
}

#[async_trait::async_trait]
impl Projection for SilentDirectory {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        self.inner().await.claim(shards).await
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        self.inner().await.cover(claim, cursor).await
    }
}

#[async_trait::async_trait]
impl Directory for SilentDirectory {
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError> {
        self.inner().await.conversation(log).await
    }

    async fn memberships(&self, user: &UserId, logs: &[LogId]) -> Result<Vec<Option<Membership>>, StoreError> {
        self.inner().await.memberships(user, logs).await
    }

    async fn members(
        &self,
        log: &LogId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Conversation>, StoreError> {
        let mut lists_none = self.lists_none.subscribe();
        lists_none.wait_for(|lists_none| !*lists_none).await.unwrap();
        self.inner().await.members(log, after, limit).await
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError> {
        self.inner().await.conversations_of(user, after, limit).await
    }

    async fn large_conversations(
        &self,
        user: &UserId,
        members_min: usize,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Membership)>, StoreError> {
        self.inner().await.large_conversations(user, members_min, after, limit).await
    }

    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<Vec<LogId>, StoreError> {
        let lost = self.loses_changes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_ok() { Ok(Vec::new()) } else { self.inner().await.apply(changes).await }
    }

    async fn record_reads(&self, reads: Vec<ReadMark>) -> Result<(), StoreError> {
        self.inner().await.record_reads(reads).await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        self.inner().await.reads(of).await
    }

    async fn furthest_read(&self, log: &LogId) -> Result<Option<ReadMark>, StoreError> {
        self.inner().await.furthest_read(log).await
    }

    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError> {
        self.inner().await.record_device(user, device).await
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        self.inner().await.devices(user).await
    }
}
