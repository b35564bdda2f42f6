//! A token bucket in 16 bytes.
//!
//! In: the time, one take at a time. Out: yes, or how long to wait. Always: at most `burst` at once and `per_s` a second
//! over time; a clock that stands still gives nothing.

const MILLI: u64 = 1000;

#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Thousandths of a token.
    level_milli: u64,
    filled_at_ms: u64,
}

impl Bucket {
    pub fn full(burst: u32, now_ms: u64) -> Self {
        Self { level_milli: u64::from(burst) * MILLI, filled_at_ms: now_ms }
    }

    /// Takes one token, or says after how many milliseconds there is one.
    pub fn take(&mut self, per_s: u32, burst: u32, now_ms: u64) -> Result<(), u32> {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        let gained_milli = passed_ms.saturating_mul(u64::from(per_s));
        self.level_milli = self.level_milli.saturating_add(gained_milli).min(u64::from(burst) * MILLI);
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        if self.level_milli >= MILLI {
            self.level_milli -= MILLI;
            return Ok(());
        }
        let wait_ms = (MILLI - self.level_milli).div_ceil(u64::from(per_s.max(1)));
        Err(u32::try_from(wait_ms).unwrap_or(u32::MAX))
    }

    /// True when nothing was taken for so long that the bucket is as new.
    pub fn is_full(&self, per_s: u32, burst: u32, now_ms: u64) -> bool {
        let gained_milli = now_ms.saturating_sub(self.filled_at_ms).saturating_mul(u64::from(per_s));
        self.level_milli.saturating_add(gained_milli) >= u64::from(burst) * MILLI
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_wait_is_told() {
        let mut bucket = Bucket::full(3, 100);
        for _ in 0..3 {
            assert_eq!(bucket.take(10, 3, 100), Ok(()));
        }
        assert_eq!(bucket.take(10, 3, 100), Err(100));
        assert_eq!(bucket.take(10, 3, 150), Err(50));
        assert_eq!(bucket.take(10, 3, 200), Ok(()));
        assert_eq!(bucket.take(10, 3, 200), Err(100));
        assert!(!bucket.is_full(10, 3, 400));
        assert!(bucket.is_full(10, 3, 600));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = Bucket::full(1, 1000);
        assert_eq!(bucket.take(1, 1, 1000), Ok(()));
        assert_eq!(bucket.take(1, 1, 0), Err(1000));
        assert_eq!(bucket.take(1, 1, 1999), Err(1));
        assert_eq!(bucket.take(1, 1, 2000), Ok(()));
    }
}
