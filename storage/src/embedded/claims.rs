//! Who may cover which shard of one projection, and how far each is covered.
//!
//! In: claims and covers. Out: whether a claim stands, and whether a cover says anything new. Always: in memory, since all
//! owners live in this process and die with it; the durable positions are the journal's.

use super::{
    journal::{self, Positions},
    tables::Tables,
    writer::{Sync, Writer},
};
use crate::planted::planted;
use crate::ports::{Claim, Covered, Cursor, Shard, StoreError};
use redb::ReadTransaction;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Claims {
    /// The row of [`Place::Meta`](super::tables::Place::Meta) that holds the covers of this projection.
    row: &'static [u8],
    state: Mutex<State>,
}

struct State {
    /// The last claim's number, and that of the claim that holds each shard.
    last: u64,
    fences: [u64; Shard::COUNT as usize],
    /// What is known to be durable, as in the row.
    covered: Positions,
}

impl Claims {
    pub fn new(row: &'static [u8]) -> Self {
        let state = State { last: 0, fences: [0; Shard::COUNT as usize], covered: Positions::default() };
        Self { row, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the shards to a new claim. `txn` shows what is covered.
    pub fn claim(&self, shards: &[Shard], txn: &ReadTransaction) -> Result<Claim, StoreError> {
        let durable = journal::positions(txn, self.row)?;
        let mut state = self.state();
        state.last += 1;
        let fence = state.last;
        let covered = shards.iter().map(|shard| {
            state.fences[usize::from(shard.index())] = fence;
            state.covered.raise(*shard, durable.of(*shard));
            (*shard, durable.cursor(*shard))
        });
        let covered = covered.collect();
        Ok(Claim { fence, covered })
    }

    /// What [`Projection::cover`](crate::ports::Projection::cover) promises; the rows are with the writer already. A cover
    /// that says nothing new costs no commit unless rows wait for one (what was repeated or made anew moves no cursor), so an
    /// idle owner may ask as often as it likes.
    pub async fn cover(&self, claim: &Claim, cursor: &Cursor, writer: &Writer) -> Result<Covered, StoreError> {
        let position = journal::position(cursor)?;
        if !self.stands(claim) && !planted("replaced_owner_covers") {
            return Ok(Covered::Replaced);
        }
        let rows_wait = writer.is_unsynced() && !planted("equal_cover_unsynced");
        if self.knows(claim, position) && !rows_wait {
            return Ok(Covered::Noted);
        }
        let (row, noted) = (self.row, claim.clone());
        let note = move |tables: &mut Tables<'_>, _: &mut _| journal::cover(tables, row, &noted, position);
        writer.write(Sync::Durable, 1, note).await?;
        let mut state = self.state();
        claim.shards().for_each(|shard| state.covered.raise(shard, position + 1));
        Ok(Covered::Noted)
    }

    fn stands(&self, claim: &Claim) -> bool {
        let state = self.state();
        claim.shards().all(|shard| state.fences[usize::from(shard.index())] == claim.fence)
    }

    /// Whether all of `claim` is durably covered up to `position` already.
    fn knows(&self, claim: &Claim, position: u64) -> bool {
        let state = self.state();
        claim.shards().all(|shard| state.covered.of(shard) > position)
    }
}
