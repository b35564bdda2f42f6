//! How fast one user may write.
//!
//! In: a user and the time. Out: yes, or how long to wait. Always: a token bucket per user; bounded: the bucket of the user
//! who wrote longest ago is forgotten, and a forgotten user starts with a full burst.

use im_proto::UserId;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Users whose buckets are remembered, for all workers of the process.
const USERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// Tokens are counted in thousandths: a command costs one thousand, a rate of r a second adds r a millisecond.
const COMMAND_COST: u64 = 1_000;

pub(crate) struct SendRate {
    per_s: u64,
    burst: u64,
    started: Instant,
    buckets: Mutex<LruCache<UserId, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: u64,
    at_ms: u64,
}

impl SendRate {
    pub fn new(per_s: u32, burst: u32) -> Self {
        Self {
            per_s: u64::from(per_s.max(1)),
            burst: u64::from(burst.max(1)) * COMMAND_COST,
            started: Instant::now(),
            buckets: Mutex::new(LruCache::new(USERS_MAX)),
        }
    }

    /// Takes one command's worth, or tells after how many milliseconds there is one.
    pub fn take(&self, user: &UserId, now: Instant) -> Result<(), u32> {
        let now_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Bucket { tokens: self.burst, at_ms: now_ms };
        let bucket = match buckets.get_mut(user) {
            Some(bucket) => bucket,
            None => buckets.get_or_insert_mut(user.clone(), || fresh),
        };
        let gained = now_ms.saturating_sub(bucket.at_ms).saturating_mul(self.per_s);
        bucket.tokens = bucket.tokens.saturating_add(gained).min(self.burst);
        bucket.at_ms = now_ms.max(bucket.at_ms);
        match bucket.tokens.checked_sub(COMMAND_COST) {
            Some(left) => {
                bucket.tokens = left;
                Ok(())
            }
            None => Err((COMMAND_COST - bucket.tokens).div_ceil(self.per_s) as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_user_gets_its_burst_then_its_rate_and_others_are_not_touched() {
        let rate = SendRate::new(20, 3);
        let [a, b] = ["a", "b"].map(|id| UserId::parse(id).unwrap());
        let start = rate.started;
        for _ in 0..3 {
            assert_eq!(rate.take(&a, start), Ok(()));
        }
        assert_eq!(rate.take(&a, start), Err(50));
        assert_eq!(rate.take(&b, start), Ok(()));
        assert_eq!(rate.take(&a, start + Duration::from_millis(49)), Err(1));
        assert_eq!(rate.take(&a, start + Duration::from_millis(50)), Ok(()));
        assert_eq!(rate.take(&a, start + Duration::from_millis(50)), Err(50));
        // A long silence fills the bucket, and no more.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| rate.take(&a, later).is_ok()).count(), 3);
    }
}
