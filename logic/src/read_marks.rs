//! Moved read cursors on their way to the directory, which outlives the inbox.
//!
//! In: cursors as they move. Out: one mark for each reader and conversation. Always: only the furthest is kept, so a busy
//! sender costs one row for each cover and not one for each message; what is not handed over yet is found again behind the
//! directory's last cover. Who adds looks at the bound (`reads_waiting_max`) between batches.

use im_proto::{LogId, UserId};
use im_storage::ports::{ReadCursor, ReadMark};
use std::collections::HashMap;

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

    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// All that wait; from now on they are the caller's.
    pub fn take(&mut self) -> Vec<ReadMark> {
        let marks = std::mem::take(&mut self.marks).into_iter();
        marks.map(|((log, user), read)| ReadMark { log, user, read }).collect()
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
        assert_eq!(marks.take(), [ReadMark { log, user, read: read(5) }]);
        assert_eq!(marks.take(), []);
    }
}
