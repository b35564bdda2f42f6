//! The time by which entries are found in the order of their storing: the server's.
//!
//! In: what the server said its time was, and clocks of ours. Out: its time now. Always: the monotonic clock is added to what the
//! server said, so the wall clocks of workers may be apart or be set anew (F27), and they find each other's entries all the
//! same; a word that is old is asked for again, since clocks drift, and another server may have become the primary.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Clocks that nobody corrects drift by some ten milliseconds in this time.
const OLD: Duration = Duration::from_secs(60);
/// Between our two clocks since the server said it: then ours was set, or this machine slept, while only one of them went on.
const APART_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
pub struct Said {
    pub server_ms: i64,
    /// When it came, by both of our clocks.
    pub at: Instant,
    pub wall_ms: i64,
}

pub struct ServerClock(Mutex<Said>);

impl ServerClock {
    pub fn new(said: Said) -> Self {
        Self(Mutex::new(said))
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, said: Said) {
        *self.said() = said;
    }

    pub fn now_ms(&self, now: Instant) -> i64 {
        let said = self.said();
        said.server_ms.saturating_add(passed_ms(&said, now))
    }

    /// Whether the server is to be asked again.
    pub fn is_old(&self, now: Instant, wall_ms: i64) -> bool {
        let said = self.said();
        let by_wall_ms = wall_ms.saturating_sub(said.wall_ms);
        now.saturating_duration_since(said.at) >= OLD || by_wall_ms.abs_diff(passed_ms(&said, now)) > APART_MS
    }
}

fn passed_ms(said: &Said, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(said.at).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_MS: i64 = 1_700_000_000_000;
    const WALL_MS: i64 = SERVER_MS + 600_000;

    fn clock(at: Instant) -> ServerClock {
        ServerClock::new(Said { server_ms: SERVER_MS, at, wall_ms: WALL_MS })
    }

    #[test]
    fn time_goes_on_from_what_the_server_said() {
        let at = Instant::now();
        let clock = clock(at);
        assert_eq!(clock.now_ms(at + Duration::from_millis(1_500)), SERVER_MS + 1_500);
        clock.set(Said { server_ms: SERVER_MS - 9, at, wall_ms: WALL_MS });
        assert_eq!(clock.now_ms(at), SERVER_MS - 9);
    }

    #[test]
    fn the_server_is_asked_again_after_a_minute_and_when_our_clocks_disagree() {
        let at = Instant::now();
        let clock = clock(at);
        let second = |s: u64| (at + Duration::from_secs(s), WALL_MS + s as i64 * 1_000);
        let is_old = |(now, wall_ms): (Instant, i64)| clock.is_old(now, wall_ms);
        assert!(!is_old(second(0)) && !is_old(second(59)) && is_old(second(60)));
        let (now, wall_ms) = second(30);
        assert!(!is_old((now, wall_ms + 900)) && is_old((now, wall_ms + 1_100)) && is_old((now, wall_ms - 3_600_000)));
    }
}
