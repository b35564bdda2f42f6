//! Whether a member of the group stands still for good.
//!
//! In: the join state that librdkafka tells of, and the time. Out: whether to give the member up. Always: a state in which a
//! member only waits for what it does itself is given twice the session and a little more; one in which it waits for brokers or
//! for other members is not judged, however long it lasts.

use crate::planted::planted;
use std::time::{Duration, Instant};

/// Offsets that are on their way are waited for as long as a session; then it is over in a moment.
const SESSIONS: u32 = 2;
const MORE: Duration = Duration::from_secs(3);

pub(super) struct Standstill {
    longest: Duration,
    since: Option<Instant>,
}

impl Standstill {
    pub fn new(session_timeout: Duration) -> Self {
        Self { longest: session_timeout * SESSIONS + MORE, since: None }
    }

    /// Told of again and again. A member that was cut off under load was seen to have lost its partitions and to wait for the end of
    /// that, though the broker was back.
    pub fn is_for_good(&mut self, join_state: &str, now: Instant) -> bool {
        // The names of librdkafka's statistics: its own work, and the calls of its user, who polls always.
        let waits_for_itself = join_state.contains("assign");
        if !waits_for_itself || planted("standing_consumer_stays") {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(6);

    #[test]
    fn a_member_that_waits_for_itself_for_two_sessions_is_given_up() {
        let mut standstill = Standstill::new(SESSION);
        let begun = Instant::now();
        let told = |standstill: &mut Standstill, state, after_s| {
            standstill.is_for_good(state, begun + Duration::from_secs(after_s))
        };
        assert!(!told(&mut standstill, "wait-incr-unassign-to-complete", 0));
        assert!(!told(&mut standstill, "wait-incr-unassign-to-complete", 14));
        assert!(told(&mut standstill, "wait-incr-unassign-to-complete", 15));
    }

    #[test]
    fn one_that_goes_on_in_between_or_waits_for_others_is_not() {
        let mut standstill = Standstill::new(SESSION);
        let begun = Instant::now();
        for (state, after_s) in [("wait-assign-call", 0), ("steady", 14), ("wait-unassign-call", 16), ("wait-join", 40)]
        {
            assert!(!standstill.is_for_good(state, begun + Duration::from_secs(after_s)), "{state}");
        }
        assert!(!standstill.is_for_good("wait-join", begun + Duration::from_secs(4_000)));
    }
}
