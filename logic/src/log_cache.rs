//! The logs that a worker remembers between batches.
//!
//! In: logs with what is known of them. Out: the same, while they are remembered. Always: bounded by their number and by the
//! members they hold, for one group may hold as many as thousands of direct conversations; the one used longest ago goes
//! first, and is read again when it is needed.

use crate::log_state::LogState;
use im_proto::LogId;
use lru::LruCache;
use std::num::NonZeroUsize;

pub(crate) struct LogCache {
    logs: LruCache<LogId, LogState>,
    members_max: usize,
    /// Of all logs together.
    members: usize,
}

impl LogCache {
    pub fn new(logs_max: usize, members_max: usize) -> Self {
        let logs = LruCache::new(NonZeroUsize::new(logs_max).unwrap_or(NonZeroUsize::MIN));
        Self { logs, members_max, members: 0 }
    }

    pub fn put(&mut self, log: LogId, state: LogState) {
        self.members += members_of(&state);
        // The one it takes the place of, or the oldest.
        if let Some((_, gone)) = self.logs.push(log, state) {
            self.members -= members_of(&gone);
        }
        while self.members > self.members_max
            && let Some((_, oldest)) = self.logs.pop_lru()
        {
            self.members -= members_of(&oldest);
        }
    }

    pub fn take(&mut self, log: &LogId) -> Option<LogState> {
        let state = self.logs.pop(log)?;
        self.members -= members_of(&state);
        Some(state)
    }

    pub fn forget(&mut self, which: impl Fn(&LogId) -> bool) {
        let logs: Vec<LogId> = self.logs.iter().map(|(log, _)| log).filter(|log| which(log)).cloned().collect();
        for log in logs {
            self.take(&log);
        }
    }
}

fn members_of(state: &LogState) -> usize {
    state.stored.members.present.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_state::Position;
    use crate::membership::Members;
    use im_proto::UserId;
    use std::sync::Arc;

    fn log(name: &str) -> LogId {
        LogId::parse(name).unwrap()
    }

    fn with_members(count: usize) -> LogState {
        let present = (0..count).map(|number| UserId::parse(&format!("u{number:05}")).unwrap()).collect();
        let members = Arc::new(Members { creator: None, present });
        LogState::at(Position { members, ..Position::default() })
    }

    #[test]
    fn many_members_are_as_heavy_as_many_logs() {
        let mut cache = LogCache::new(100, 1_000);
        for number in 0..100 {
            cache.put(log(&format!("d{number}")), with_members(2));
        }
        assert_eq!((cache.logs.len(), cache.members), (100, 200));
        cache.put(log("g1"), with_members(900));
        assert_eq!((cache.logs.len(), cache.members), (51, 1_000), "only as many as it takes, the oldest first");
        assert!(cache.take(&log("d49")).is_none() && cache.take(&log("d50")).is_some());
        cache.put(log("g2"), with_members(1_001));
        assert_eq!((cache.logs.len(), cache.members), (0, 0), "one that is too large alone is not kept");
    }

    #[test]
    fn what_is_taken_replaced_or_forgotten_weighs_nothing() {
        let mut cache = LogCache::new(2, 1_000);
        cache.put(log("g1"), with_members(10));
        cache.put(log("g1"), with_members(20));
        assert_eq!(cache.members, 20);
        cache.put(log("g2"), with_members(1));
        cache.put(log("g3"), with_members(2));
        assert_eq!(cache.members, 3, "the third pushes out the first");
        assert!(cache.take(&log("g3")).is_some());
        assert_eq!(cache.members, 1);
        cache.forget(|of| *of == log("g2"));
        assert_eq!((cache.logs.len(), cache.members), (0, 0));
    }
}
