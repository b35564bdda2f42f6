//! Inbox versions that are never given twice.
//!
//! In: how many a caller may need. Out: rising numbers. Always: a number is given only below a ceiling that is durable;
//! after a restart the numbers go on at the ceiling, so those of rows that a crash took are not given again.

use super::{
    tables::{Place, meta},
    writer::{Sync, Writer},
};
use crate::ports::StoreError;
use im_proto::InboxVersion;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ceiling rises by as much, with one synced commit. A restart skips at most as many numbers.
const BLOCK: u64 = 1 << 20;

pub struct Versions {
    next: AtomicU64,
    /// The sum of everything asked for; never below `next`.
    promised: AtomicU64,
    ceiling: AtomicU64,
    raising: tokio::sync::Mutex<()>,
}

impl Versions {
    /// Goes on at `reserved`, the ceiling of the last run. 0 is no version: it stands before the first.
    pub fn new(reserved: u64) -> Self {
        let start = reserved.max(1);
        Self {
            next: AtomicU64::new(start),
            promised: AtomicU64::new(start),
            ceiling: AtomicU64::new(reserved),
            raising: tokio::sync::Mutex::default(),
        }
    }

    /// Lets the caller take `count` versions. The promises add up, so whoever is below the ceiling with the sum cannot
    /// pass it, however the takers interleave.
    pub async fn promise(&self, count: usize, writer: &Writer) -> Result<(), StoreError> {
        let sum = self.promised.fetch_add(count as u64, Ordering::AcqRel) + count as u64;
        if sum <= self.ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        let _raising = self.raising.lock().await;
        if sum <= self.ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        let ceiling = sum + BLOCK;
        let reserve = writer.write(Sync::Durable, 1, move |tables, _| {
            tables.open(Place::Meta)?.insert(meta::VERSIONS_RESERVED, ceiling.to_le_bytes().as_slice())?;
            Ok(())
        });
        reserve.await?;
        self.ceiling.store(ceiling, Ordering::Release);
        Ok(())
    }

    /// The next version, under an earlier promise.
    pub fn take(&self) -> InboxVersion {
        let version = self.next.fetch_add(1, Ordering::AcqRel);
        debug_assert!(version < self.ceiling.load(Ordering::Acquire), "a version was taken without a promise");
        InboxVersion(version)
    }
}
