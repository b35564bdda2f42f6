//! How long to wait before something is tried again: full jitter.
//!
//! In: how often it failed, the least the server asked for, a random generator. Out: milliseconds. Always: at least what
//! the server asked for, plus a random share of a span that doubles from `first_ms` to `most_ms`.

use rand::{Rng, RngExt as _};

#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first_ms: u64,
    pub most_ms: u64,
}

/// Between two attempts to connect.
pub const RECONNECT: Backoff = Backoff { first_ms: 500, most_ms: 30_000 };

/// Before a send or request that got no final answer is repeated on the same connection.
pub const REPEAT: Backoff = Backoff { first_ms: 20, most_ms: 5_000 };

impl Backoff {
    /// `failures` in a row so far, this one not counted.
    pub fn delay_ms(self, failures: u32, at_least_ms: u32, rng: &mut impl Rng) -> u64 {
        let doubled = self.first_ms.saturating_mul(1 << failures.min(16));
        u64::from(at_least_ms) + rng.random_range(0..=doubled.min(self.most_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    #[test]
    fn the_span_doubles_up_to_its_bound_and_starts_at_what_the_server_asked_for() {
        let mut rng = SmallRng::seed_from_u64(7);
        for (failures, at_least_ms, most_ms) in [(0, 0, 500), (1, 0, 1_000), (40, 0, 30_000), (2, 5_000, 7_000)] {
            let drawn: Vec<u64> = (0..500).map(|_| RECONNECT.delay_ms(failures, at_least_ms, &mut rng)).collect();
            let (low, high) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
            assert!(*low >= u64::from(at_least_ms) && *high <= most_ms, "{failures}: {low}..{high}");
            let half = u64::from(at_least_ms) + (most_ms - u64::from(at_least_ms)) / 2;
            assert!(*low < half && *high > half, "{failures}: no jitter, {low}..{high}");
        }
    }
}
