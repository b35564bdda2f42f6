//! Moved read cursors on their way to the directory, which outlives the inbox.
//!
//! In: cursors as they move. Out: one mark for each reader and conversation. Always: only the furthest is kept, so a busy
//! sender costs one row for each cover and not one for each message; what is not handed over yet is found again behind the
//! directory's last cover.

use im_proto::{LogId, UserId};
use im_storage::ports::{ReadCursor, ReadMark};
use std::collections::HashMap;

/// Marks that wait; beyond it they are handed over before the next cover.
const MARKS_MAX: usize = 16_384;

#[derive(Default)]
pub(crate) struct ReadMarks {
    marks: HashMap<(LogId, UserId), ReadCursor>,
}

impl ReadMarks {
    pub fn add(&mut self, log: LogId, user: UserId, read: ReadCursor) {
        let known = self.marks.entry((log, user)).or_default();
        if known.seq < read.seq {
            *known = read;
        }
    }

    pub fn is_full(&self) -> bool {
        self.marks.len() >= MARKS_MAX
    }

    /// All that wait. They stay until [`handed_over`](Self::handed_over).
    pub fn waiting(&self) -> Vec<ReadMark> {
        let mark = |((log, user), read): (&(LogId, UserId), &ReadCursor)| ReadMark {
            log: log.clone(),
            user: user.clone(),
            read: *read,
        };
        self.marks.iter().map(mark).collect()
    }

    pub fn handed_over(&mut self) {
        self.marks = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::{Ordinal, Seq};

    #[test]
    fn only_the_furthest_cursor_is_handed_over() {
        let log = LogId::parse("dxxxxxxxxxxxxxxxxxxxxxx").unwrap();
        let user = UserId::parse("ann").unwrap();
        let read = |seq| ReadCursor { seq: Seq(seq), ordinal: Ordinal(seq) };
        let mut marks = ReadMarks::default();
        for seq in [2, 5, 3] {
            marks.add(log.clone(), user.clone(), read(seq));
        }
        assert_eq!(marks.waiting(), [ReadMark { log, user, read: read(5) }]);
        marks.handed_over();
        assert_eq!(marks.waiting(), []);
    }
}
