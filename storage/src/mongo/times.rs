//! When the last entry of a log was stored, as far as it is remembered.
//!
//! In: times of entries that were appended or read. Out: the last one of a log. Always: bounded; no time that is remembered
//! goes back; a read that is for no append takes room that is free and pushes out nothing that an append put there.

use im_proto::LogId;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Times(Mutex<LruCache<LogId, i64>>);

impl Times {
    pub fn new(logs_max: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(logs_max)))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<LogId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, log: &LogId) -> Option<i64> {
        self.lock().get(log).copied()
    }

    pub fn appended(&self, log: &LogId, time_ms: i64) {
        self.lock().put(log.clone(), time_ms);
    }

    /// Read since the log is about to be appended to. Another owner may have stored later than we did.
    pub fn found(&self, log: &LogId, time_ms: i64) {
        let mut times = self.lock();
        let known = times.get(log).copied().unwrap_or(time_ms);
        times.put(log.clone(), time_ms.max(known));
    }

    /// A worker reads the head of a log before it appends to it. Pulls and syncs read heads too, of far more logs.
    pub fn read(&self, log: &LogId, time_ms: i64) {
        let mut times = self.lock();
        // Another owner may have stored later than we did.
        if let Some(known) = times.peek_mut(log) {
            *known = time_ms.max(*known);
        } else if times.len() < times.cap().get() {
            times.put(log.clone(), time_ms);
            times.demote(log);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> LogId {
        LogId::parse(name).unwrap()
    }

    #[test]
    fn reads_push_out_nothing_that_an_append_put() {
        let times = Times::new(NonZeroUsize::new(2).unwrap());
        times.appended(&log("a"), 1);
        times.read(&log("read"), 5);
        assert_eq!(times.of(&log("read")), Some(5), "there is room");
        times.read(&log("read-too"), 6);
        assert_eq!((times.of(&log("a")), times.of(&log("read-too"))), (Some(1), None));
    }

    #[test]
    fn appends_push_out_what_was_only_read_first() {
        let times = Times::new(NonZeroUsize::new(2).unwrap());
        times.appended(&log("a"), 1);
        times.read(&log("read"), 5);
        times.appended(&log("b"), 2);
        assert_eq!(["a", "b", "read"].map(|name| times.of(&log(name))), [Some(1), Some(2), None]);
    }

    #[test]
    fn what_is_found_for_an_append_has_room_and_does_not_go_back() {
        let times = Times::new(NonZeroUsize::new(1).unwrap());
        times.appended(&log("a"), 1);
        times.found(&log("b"), 5);
        times.found(&log("b"), 4);
        assert_eq!((times.of(&log("a")), times.of(&log("b"))), (None, Some(5)));
    }

    #[test]
    fn what_another_owner_stored_later_is_learned_by_reading_and_nothing_goes_back() {
        let times = Times::new(NonZeroUsize::new(2).unwrap());
        times.appended(&log("a"), 3);
        times.read(&log("a"), 9);
        times.read(&log("a"), 2);
        assert_eq!(times.of(&log("a")), Some(9));
    }
}
