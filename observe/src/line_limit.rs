//! How many lines of one kind a log gets.
//!
//! In: a line that is about to be logged. Out: whether it may go, and how many were left out before it. Always: at most
//! `per_s` lines a second, whatever comes; none is left out uncounted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Debug)]
pub struct LineLimit {
    per_s: u32,
    started: Instant,
    /// The second, and the lines it has had: 32 bits each.
    state: AtomicU64,
    left_out: AtomicU64,
}

impl LineLimit {
    pub fn new(per_s: u32) -> Self {
        Self { per_s, started: Instant::now(), state: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// `None`: leave the line out. Else it may go, and says how many were left out since the last one that went.
    pub fn line(&self) -> Option<u64> {
        self.line_at(self.started.elapsed().as_secs() as u32)
    }

    fn line_at(&self, second: u32) -> Option<u64> {
        let next = |state: u64| match ((state >> 32) as u32 == second, state as u32) {
            (true, lines) => (lines < self.per_s).then_some(state + 1),
            (false, _) => Some(u64::from(second) << 32 | 1),
        };
        match self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_lines_and_the_next_one_tells_how_many_it_lacked() {
        let limit = LineLimit::new(2);
        assert_eq!([7, 7, 7, 7].map(|second| limit.line_at(second)), [Some(0), Some(0), None, None]);
        assert_eq!([8, 8, 8].map(|second| limit.line_at(second)), [Some(2), Some(0), None]);
        assert_eq!(limit.line_at(9), Some(1));
    }
}
