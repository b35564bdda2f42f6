//! Something done to all connections of a core, spread over time.
//!
//! In: the connections of one moment, and how long to take. Out: a share of them at each tick. Always: every one of them is
//! reached once, the last by the end of the time; so neither hints nor reconnects come all at once.

use crate::core::Core;
use crate::timer::TICK_MS;
use im_codec::CloseReason;
use im_codec::limits::DRAIN_RECONNECT_MS;
use im_proto::ConnectionId;
use im_proto::client::CloseCode;
use std::rc::Rc;

/// Sweeps under way at once. A further hint is dropped: the one under way or the next heartbeat does its work.
const SWEEPS_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hint,
    Drain { spread_ms: u64 },
}

#[derive(Debug)]
pub struct Sweep {
    kind: Kind,
    left: Vec<ConnectionId>,
    ends_at_ms: u64,
}

impl Sweep {
    pub fn hint(connections: Vec<ConnectionId>, spread_ms: u64, now_ms: u64) -> Self {
        Self { kind: Kind::Hint, left: connections, ends_at_ms: now_ms + spread_ms }
    }

    pub fn drain(connections: Vec<ConnectionId>, spread_ms: u64, now_ms: u64) -> Self {
        Self { kind: Kind::Drain { spread_ms }, left: connections, ends_at_ms: now_ms + spread_ms }
    }

    /// Takes the share of this tick.
    fn share(&mut self, now_ms: u64) -> Vec<ConnectionId> {
        let ticks_left = self.ends_at_ms.saturating_sub(now_ms) / TICK_MS + 1;
        let share = (self.left.len() as u64).div_ceil(ticks_left) as usize;
        self.left.split_off(self.left.len() - share)
    }
}

impl Core {
    pub fn sweep(self: &Rc<Self>, sweep: Sweep) {
        let mut sweeps = self.sweeps.borrow_mut();
        if sweeps.len() < SWEEPS_MAX || matches!(sweep.kind, Kind::Drain { .. }) {
            sweeps.push(sweep);
        }
    }

    /// Called once a tick.
    pub fn go_on_sweeping(self: &Rc<Self>) {
        let mut sweeps = std::mem::take(&mut *self.sweeps.borrow_mut());
        let now_ms = self.now_ms();
        for sweep in &mut sweeps {
            for id in sweep.share(now_ms) {
                self.sweep_one(sweep.kind, id);
            }
        }
        sweeps.retain(|sweep| !sweep.left.is_empty());
        self.sweeps.borrow_mut().append(&mut sweeps);
    }

    fn sweep_one(self: &Rc<Self>, kind: Kind, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        match kind {
            Kind::Hint => connection.hint(self),
            Kind::Drain { spread_ms } => {
                let mut reason = CloseReason::new(CloseCode::GoingAway, "the server drains");
                // The clients come back spread as well: the id stands in for chance.
                let spread_ms = u32::try_from(spread_ms).unwrap_or(u32::MAX).max(1);
                reason.reconnect_after_ms = DRAIN_RECONNECT_MS.saturating_add((id.0 % u64::from(spread_ms)) as u32);
                connection.close(self, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_reached_once_and_the_last_by_the_end() {
        let all: Vec<_> = (0..1000).map(ConnectionId).collect();
        let mut sweep = Sweep::hint(all.clone(), 1_000, 0);
        let mut reached = Vec::new();
        for now_ms in (0..=1_000).step_by(TICK_MS as usize) {
            let share = sweep.share(now_ms);
            assert!(share.len() <= 100, "{} at {now_ms}", share.len());
            reached.extend(share);
        }
        reached.sort();
        assert_eq!(reached, all);
    }
}
