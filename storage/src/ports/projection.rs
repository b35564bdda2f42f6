//! What [`Directory`](super::Directory) and [`Inbox`](super::Inbox) have in common: both show the logs, and both may fall
//! behind them.
//!
//! In: claims and covers of the shards' owners. Out: from where an owner has to repeat. Always: a cover counts only while
//! its claim stands, so an owner that was replaced, or whose rows were lost under it, can declare nothing done.

use super::{Cursor, Shard, StoreError};
use async_trait::async_trait;

#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// Takes the shards over; whoever held a claim on one of them holds it no more. Answers how far each shows its logs:
    /// the new owner applies everything the entry log names from there on.
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError>;

    /// Every entry of the claimed shards stored before `cursor` has been applied here. When the answer is
    /// [`Covered::Noted`], that is durable; a cursor earlier than the one known changes nothing. Any other answer: nothing
    /// was noted.
    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    Noted,
    /// Another owner has claimed one of the shards. The asker will hear from the queue that it lost the partition; one that
    /// does not, claims again after a while.
    Replaced,
    /// Rows that were visible may be gone since the claim: the store was flushed, restarted, or failed over to a copy that
    /// lags. The owner claims again and repeats from what that answers.
    Lost,
}

/// The right to cover some shards, for as long as nobody else claims them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Rises with every claim of the shards; meaningful to the adapter that made it.
    pub fence: u64,
    /// Each claimed shard with the cursor of its last cover that survived; `None` if none did.
    pub covered: Vec<(Shard, Option<Cursor>)>,
}

impl Claim {
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.covered.iter().map(|(shard, _)| *shard)
    }

    /// As far as it is about `shards`, to cover these alone.
    #[must_use]
    pub fn of(&self, shards: &[Shard]) -> Self {
        let covered = self.covered.iter().filter(|(shard, _)| shards.contains(shard)).cloned().collect();
        Self { fence: self.fence, covered }
    }
}
