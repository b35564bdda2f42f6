//! A core's deadlines, in one wheel.
//!
//! In: (deadline, connection). Out: the connections whose deadline has come. Always: an entry comes out once, never
//! before its time and at most a tick late; arming costs a push to a vector, whatever the number of connections.

use im_proto::ConnectionId;

/// How often a core looks at its wheel.
pub const TICK_MS: u64 = 100;
/// Slots; entries farther away than slots × tick stay in their slot for another round.
const SLOTS: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub deadline_ms: u64,
    pub connection: ConnectionId,
}

pub struct Wheel {
    slots: Vec<Vec<Due>>,
    /// Everything before this tick has come out.
    next_tick: u64,
}

impl Wheel {
    pub fn new(now_ms: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next_tick: now_ms / TICK_MS }
    }

    pub fn arm(&mut self, due: Due) {
        // Rounded up: a slot is taken when its tick has begun.
        let tick = due.deadline_ms.div_ceil(TICK_MS).max(self.next_tick);
        self.slots[(tick % SLOTS) as usize].push(due);
    }

    /// Moves everything that is due by `now_ms` to `out`.
    pub fn take_due(&mut self, now_ms: u64, out: &mut Vec<Due>) {
        let tick = now_ms / TICK_MS;
        // After a long stop one round looks at every slot.
        for passed in self.next_tick..=tick.min(self.next_tick + SLOTS - 1) {
            let slot = &mut self.slots[(passed % SLOTS) as usize];
            if slot.is_empty() {
                continue;
            }
            for due in std::mem::take(slot) {
                if due.deadline_ms <= now_ms { out.push(due) } else { slot.push(due) }
            }
        }
        self.next_tick = self.next_tick.max(tick + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(deadline_ms: u64) -> Due {
        Due { deadline_ms, connection: ConnectionId(deadline_ms) }
    }

    fn take(wheel: &mut Wheel, now_ms: u64) -> Vec<u64> {
        let mut out = Vec::new();
        wheel.take_due(now_ms, &mut out);
        out.iter().map(|d| d.deadline_ms).collect()
    }

    #[test]
    fn a_deadline_comes_out_once_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(5_000);
        for deadline in [5_001, 5_250, 5_300] {
            wheel.arm(due(deadline));
        }
        assert_eq!(take(&mut wheel, 5_000), [] as [u64; 0]);
        assert_eq!(take(&mut wheel, 5_100), [5_001]);
        assert_eq!(take(&mut wheel, 5_299), [] as [u64; 0]);
        assert_eq!(take(&mut wheel, 5_300), [5_250, 5_300]);
        assert_eq!(take(&mut wheel, 9_000), [] as [u64; 0]);
    }

    #[test]
    fn a_deadline_in_the_past_comes_out_with_the_next_tick() {
        let mut wheel = Wheel::new(5_000);
        take(&mut wheel, 5_000);
        wheel.arm(due(10));
        assert_eq!(take(&mut wheel, 5_100), [10]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_waits_for_its_round() {
        let far = SLOTS * TICK_MS * 2 + 500;
        let mut wheel = Wheel::new(0);
        wheel.arm(due(far));
        let mut now_ms = 0;
        while now_ms < far {
            assert_eq!(take(&mut wheel, now_ms), [] as [u64; 0]);
            now_ms += TICK_MS;
        }
        assert_eq!(take(&mut wheel, far), [far]);
    }

    #[test]
    fn a_core_that_stood_still_misses_none() {
        let mut wheel = Wheel::new(0);
        for deadline in [100, 50_000, 300_000] {
            wheel.arm(due(deadline));
        }
        assert_eq!(take(&mut wheel, 1_000_000).len(), 3);
    }
}
