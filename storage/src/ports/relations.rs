//! What every logic process must know before it decides, and no log of its own tells it: account flags, later blocks.
//!
//! In: relations of one user, by an operator's word or off another log. Out: to whoever follows, all that is kept and then every
//! change. Always: one row for each key, the newest wins, a removed one is gone; who follows is told of each key in order, but
//! not of every step: what was overtaken may be left out. Rows are small and are all held in memory by those who follow, so
//! their writers bound their number.

use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::UserId;

/// The largest value of a relation.
pub const RELATION_BYTES_MAX: usize = 1_024;

#[async_trait]
pub trait Relations: Send + Sync + 'static {
    /// Makes this the relation of its key. Returns when that is kept as safely as the store keeps anything (Kafka: all in-sync
    /// replicas); every follower hears of it soon. After an error it may be kept, or be kept yet: repeat.
    async fn put(&self, relation: Relation) -> Result<(), StoreError>;

    /// Begins to follow, from the beginning. Needs no answer of a store that is away: the feed waits for it.
    async fn follow(&self) -> Result<Box<dyn RelationFeed>, StoreError>;
}

#[async_trait]
pub trait RelationFeed: Send + 'static {
    /// Waits for what comes next. Never ends and never fails: over a store that was away it goes on where it stood. Cancel-safe:
    /// a dropped call takes nothing.
    async fn next(&mut self) -> Followed;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The newest of its key so far.
    Kept(Relation),
    /// Comes once: every relation whose `put` had returned before `follow` was called has been told.
    CaughtUp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub key: RelationKey,
    /// An encoded message of the kind, at most [`RELATION_BYTES_MAX`], which the adapter never looks into. `None`: removed.
    pub value: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationKey {
    pub kind: RelationKind,
    pub user: UserId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelationKind {
    /// An `im.internal.v1.AccountFlags`.
    Account,
}

impl RelationKind {
    const ALL: [Self; 1] = [Self::Account];

    const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
        }
    }
}

impl RelationKey {
    /// As every adapter stores it: kind and user with a dot between, which no id contains.
    pub fn to_text(&self) -> String {
        format!("{}.{}", self.kind.name(), self.user)
    }

    /// `None`: of a kind that this program does not know, or no key at all. Whoever reads passes it over.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (kind, user) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let kind = RelationKind::ALL.into_iter().find(|known| known.name() == kind)?;
        Some(Self { kind, user: UserId::parse(user).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_an_unknown_one_is_none() {
        let key = RelationKey { kind: RelationKind::Account, user: UserId::parse("a-B_9").unwrap() };
        assert_eq!(key.to_text(), "account.a-B_9");
        assert_eq!(RelationKey::parse(key.to_text().as_bytes()), Some(key));
        for odd in [&b"account"[..], b"account.", b".ann", b"block.ann.bob", b"account.no id", b"\xff.ann", b""] {
            assert_eq!(RelationKey::parse(odd), None);
        }
    }
}
