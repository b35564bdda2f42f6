//! How values spread: counts in few fixed buckets.
//!
//! In: one value, from any thread. Out: the counts so far. Always: two relaxed atomic additions a value, made once a batch
//! and not once a message; a reader may see the one without the other.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, in microseconds: from a lookup in memory to a store that is away.
const DURATION_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];
/// Upper bounds of sizes.
const SIZE_BOUNDS: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];

#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// What a bound and the sum are multiplied with to be printed.
    unit: f64,
    /// One for each bound, and one for what is above them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, unit, counts, sum: AtomicU64::new(0) }
    }

    fn note(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// (upper bound, values up to it), rising, then the number of all values.
    pub fn cumulated(&self) -> (Vec<(f64, u64)>, u64) {
        let mut total = 0;
        let mut counts = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        let bounds = self.bounds.iter().map(|bound| *bound as f64 * self.unit);
        let below = bounds.zip(counts.by_ref()).collect();
        let all = counts.next().unwrap_or_default();
        (below, all)
    }

    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 * self.unit
    }
}

/// A histogram of durations, printed in seconds.
#[derive(Debug)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new(&DURATION_BOUNDS_US, 1e-6))
    }
}

impl Durations {
    pub fn note(&self, duration: Duration) {
        self.0.note(duration.as_micros().try_into().unwrap_or(u64::MAX));
    }
}

impl Deref for Durations {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        &self.0
    }
}

/// A histogram of sizes: records in a batch.
#[derive(Debug)]
pub struct Sizes(Histogram);

impl Default for Sizes {
    fn default() -> Self {
        Self(Histogram::new(&SIZE_BOUNDS, 1.0))
    }
}

impl Sizes {
    pub fn note(&self, size: usize) {
        self.0.note(size as u64);
    }
}

impl Deref for Sizes {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_whose_bound_it_does_not_pass() {
        let sizes = Sizes::default();
        [1, 2, 4, 5, 5_000].into_iter().for_each(|size| sizes.note(size));
        let (below, all) = sizes.cumulated();
        assert_eq!(below[..3], [(1.0, 1), (4.0, 3), (16.0, 4)]);
        assert_eq!((below.last(), all, sizes.sum()), (Some(&(4_096.0, 4)), 5, 5_012.0));
    }

    #[test]
    fn durations_are_told_in_seconds() {
        let durations = Durations::default();
        durations.note(Duration::from_millis(3));
        let (below, all) = durations.cumulated();
        assert_eq!((below[5], below[4].1, all), ((0.005, 1), 0, 1));
        assert!((durations.sum() - 0.003).abs() < 1e-9);
    }
}
