//! The requests of one connection that wait for an answer.
//!
//! In: request ids as commands go out and answers come in. Out: what is due. Always: at most [`PENDING_WRITES_MAX`] writes
//! and [`PENDING_READS_MAX`] reads; an answer is matched to the request it was made for, never to a later one that took
//! the same id after a timeout.

use crate::limits::{PENDING_READS_MAX, PENDING_WRITES_MAX, REQUEST_TIMEOUT_MS, TIMED_OUT_REQUESTS_MAX};

/// An empty table with a larger allocation gives it back.
const KEPT_CAPACITY: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write,
    Read,
}

#[derive(Debug)]
struct Request {
    id: u64,
    deadline_ms: u64,
    kind: Kind,
}

#[derive(Debug, Default)]
pub struct Pending {
    /// In the order of their deadlines.
    open: Vec<Request>,
    /// Answered UNKNOWN, while the true answer may still come.
    timed_out: Vec<u64>,
}

impl Pending {
    pub fn has_room(&self, kind: Kind) -> bool {
        let max = match kind {
            Kind::Write => PENDING_WRITES_MAX,
            Kind::Read => PENDING_READS_MAX,
        };
        self.open.iter().filter(|r| r.kind == kind).count() < max
    }

    pub fn is_open(&self, id: u64) -> bool {
        self.open.iter().any(|r| r.id == id)
    }

    pub fn is_timed_out(&self, id: u64) -> bool {
        self.timed_out.contains(&id)
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Opens a request. The caller checked for room and that the id is free.
    pub fn open(&mut self, id: u64, kind: Kind, now_ms: u64) {
        debug_assert!(self.has_room(kind) && !self.is_open(id));
        self.open.push(Request { id, deadline_ms: now_ms + REQUEST_TIMEOUT_MS, kind });
    }

    /// True if the request was open: its answer is to be sent. False for one that timed out, or was never made.
    pub fn answer(&mut self, id: u64) -> bool {
        let Some(at) = self.open.iter().position(|r| r.id == id) else {
            self.timed_out.retain(|&late| late != id);
            return false;
        };
        self.open.remove(at);
        if self.open.is_empty() && self.open.capacity() > KEPT_CAPACITY {
            self.open = Vec::new();
        }
        true
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.open.first().map(|r| r.deadline_ms)
    }

    /// Takes one request whose time is over.
    pub fn time_out(&mut self, now_ms: u64) -> Option<u64> {
        if self.deadline_ms()? > now_ms {
            return None;
        }
        let id = self.open.remove(0).id;
        if self.timed_out.len() == TIMED_OUT_REQUESTS_MAX {
            self.timed_out.remove(0);
        }
        self.timed_out.push(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_are_bounded_apart() {
        let mut pending = Pending::default();
        for id in 0..PENDING_WRITES_MAX as u64 {
            assert!(pending.has_room(Kind::Write));
            pending.open(id, Kind::Write, 0);
        }
        assert!(!pending.has_room(Kind::Write));
        assert!(pending.has_room(Kind::Read));
        assert!(pending.answer(0));
        assert!(pending.has_room(Kind::Write));
    }

    #[test]
    fn a_late_answer_is_dropped_once_and_its_id_is_free_again() {
        let mut pending = Pending::default();
        pending.open(7, Kind::Write, 100);
        assert_eq!(pending.time_out(100 + REQUEST_TIMEOUT_MS - 1), None);
        assert_eq!(pending.time_out(100 + REQUEST_TIMEOUT_MS), Some(7));
        assert!(pending.is_timed_out(7));
        assert!(!pending.answer(7));
        assert!(!pending.is_timed_out(7));
    }

    #[test]
    fn what_timed_out_is_remembered_up_to_a_bound() {
        let mut pending = Pending::default();
        for id in 0..=TIMED_OUT_REQUESTS_MAX as u64 {
            pending.open(id, Kind::Read, 0);
            assert_eq!(pending.time_out(REQUEST_TIMEOUT_MS), Some(id));
        }
        assert_eq!(pending.timed_out.len(), TIMED_OUT_REQUESTS_MAX);
        assert!(!pending.is_timed_out(0));
    }
}
