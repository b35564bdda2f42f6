//! Who may cover which shard of the directory, and how far each is covered.
//!
//! In: claims and covers. Out: whether a claim stands. Always: claims lie in the same database as the rows and are committed
//! like them, so a server that lost rows at its end lost later claims and covers too; a failover to a copy that lags is seen
//! by the number of the server, which this process keeps.

use super::link::{Failure, Link};
use crate::ports::{Claim, Covered, Cursor, Shard};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Claims {
    held: Mutex<[Held; Shard::COUNT as usize]>,
}

/// Our last claim of a shard.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    fence: u64,
    server: u64,
}

impl Claims {
    pub fn new() -> Self {
        Self { held: Mutex::new([Held::default(); Shard::COUNT as usize]) }
    }

    fn held(&self) -> MutexGuard<'_, [Held; Shard::COUNT as usize]> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All shards are locked for a moment, by rising number: claims are rare, and so a fence belongs to one claim.
    pub async fn claim(&self, link: &Link, shards: &[Shard]) -> Result<Claim, Failure> {
        let mut lent = link.lend().await?;
        let server = lent.server();
        let mut txn = lent.begin().await?;
        let asked = sqlx::query!("SELECT shard, fence, covered FROM shards ORDER BY shard FOR UPDATE");
        let rows = asked.fetch_all(&mut *txn).await?;
        let fence = rows.iter().map(|row| row.fence).max().unwrap_or(0) + 1;
        let taken = sqlx::query!("UPDATE shards SET fence = ? WHERE FIND_IN_SET(shard, ?)", fence, listed(shards));
        taken.execute(&mut *txn).await?;
        txn.commit().await?;
        lent.done();
        let mut held = self.held();
        let covered = shards.iter().map(|shard| {
            held[usize::from(shard.index())] = Held { fence, server };
            let row = rows.iter().find(|row| row.shard == shard.index());
            (*shard, row.and_then(|row| row.covered.clone()).map(|bytes| Cursor(bytes.into())))
        });
        let covered = covered.collect();
        Ok(Claim { fence, covered })
    }

    /// One update that names every shard of the claim; if it does not meet all of them, nothing is noted. Of 256 small rows
    /// all are looked at: a list of numbers in a text keeps the statement one of fixed shape.
    pub async fn cover(&self, link: &Link, claim: &Claim, cursor: &Cursor) -> Result<Covered, Failure> {
        let shards: Vec<Shard> = claim.shards().collect();
        let (listed, cursor) = (listed(&shards), cursor.0.as_ref());
        let mut lent = link.lend().await?;
        let is_same_server = self.is_held(claim, lent.server());
        let mut txn = lent.begin().await?;
        let note = sqlx::query!(
            "UPDATE shards SET covered = IF(covered IS NULL OR covered < ?, ?, covered) \
             WHERE FIND_IN_SET(shard, ?) AND fence = ?",
            cursor,
            cursor,
            listed,
            claim.fence
        );
        // Counts the rows met, changed or not.
        let met = note.execute(&mut *txn).await?.rows_affected();
        if met == shards.len() as u64 && is_same_server {
            txn.commit().await?;
            lent.done();
            return Ok(Covered::Noted);
        }
        let later = sqlx::query_scalar!(
            r#"SELECT COUNT(*) AS "later!: i64" FROM shards WHERE FIND_IN_SET(shard, ?) AND fence > ?"#,
            listed,
            claim.fence
        );
        let later = later.fetch_one(&mut *txn).await?;
        txn.rollback().await?;
        lent.done();
        Ok(if later > 0 { Covered::Replaced } else { Covered::Lost })
    }

    /// Whether the claim was made on `server`, and by us.
    fn is_held(&self, claim: &Claim, server: u64) -> bool {
        let held = self.held();
        claim.shards().all(|shard| held[usize::from(shard.index())] == Held { fence: claim.fence, server })
    }
}

fn listed(shards: &[Shard]) -> String {
    shards.iter().map(|shard| shard.index().to_string()).collect::<Vec<_>>().join(",")
}
