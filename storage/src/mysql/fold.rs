//! What membership changes do to the rows of one conversation.
//!
//! In: the rows before, the changes in their order. Out: the rows after, and which of them changed. Always: pure; a change
//! at or below `applied_seq` does nothing, and none is applied over one that is lacking; `members_count` is the number of
//! members present.

use crate::planted::planted;
use crate::ports::{MemberRow, MembershipChange};
use im_proto::{Seq, UserId};
use std::collections::BTreeMap;

/// A conversation as far as the changes touch it.
#[derive(Debug, Default)]
pub struct Folded {
    pub applied_seq: Seq,
    pub members_count: u64,
    /// The rows of those whom the changes name, if they have one.
    members: BTreeMap<UserId, Touched>,
}

#[derive(Debug)]
struct Touched {
    row: MemberRow,
    is_changed: bool,
}

impl Folded {
    pub fn new(applied_seq: Seq, members_count: u64) -> Self {
        Self { applied_seq, members_count, members: BTreeMap::new() }
    }

    /// A row as it is stored.
    pub fn know(&mut self, row: MemberRow) {
        self.members.insert(row.user.clone(), Touched { row, is_changed: false });
    }

    /// False: a change before it is lacking, and nothing was done.
    #[must_use]
    pub fn apply(&mut self, change: &MembershipChange) -> bool {
        if change.seq <= self.applied_seq {
            return true;
        }
        if change.after > self.applied_seq && !planted("applied_over_a_hole") {
            return false;
        }
        self.applied_seq = change.seq;
        change.joined.iter().for_each(|user| self.join(user, change));
        change.left.iter().for_each(|user| self.leave(user, change.seq));
        true
    }

    fn join(&mut self, user: &UserId, change: &MembershipChange) {
        if self.members.get(user).is_some_and(|known| known.row.left_seq.is_none()) {
            return;
        }
        let (joined_seq, joined_ordinal) = (change.seq, change.joined_ordinal);
        let row = MemberRow { user: user.clone(), joined_seq, joined_ordinal, left_seq: None };
        self.members.insert(user.clone(), Touched { row, is_changed: true });
        self.members_count += 1;
    }

    fn leave(&mut self, user: &UserId, seq: Seq) {
        let Some(known) = self.members.get_mut(user).filter(|known| known.row.left_seq.is_none()) else { return };
        known.row.left_seq = Some(seq);
        known.is_changed = true;
        self.members_count = self.members_count.saturating_sub(1);
    }

    /// By rising user id.
    pub fn changed(&self) -> impl Iterator<Item = &MemberRow> {
        self.members.values().filter(|known| known.is_changed).map(|known| &known.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::{LogId, Ordinal};

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn change(seq: u64, joined: &[&str], left: &[&str]) -> MembershipChange {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        let (log, seq, joined_ordinal) = (LogId::parse("log").unwrap(), Seq(seq), Ordinal(seq * 10));
        MembershipChange {
            log,
            seq,
            after: Seq(0),
            created: None,
            joined: users(joined),
            joined_ordinal,
            left: users(left),
        }
    }

    fn changed(folded: &Folded) -> Vec<(&str, u64, Option<u64>)> {
        folded.changed().map(|row| (row.user.as_str(), row.joined_seq.0, row.left_seq.map(|seq| seq.0))).collect()
    }

    #[test]
    fn a_batch_of_joins_leaves_and_a_rejoin_ends_in_one_row_each() {
        let mut folded = Folded::default();
        for change in [change(1, &["b", "a"], &[]), change(2, &[], &["a"]), change(3, &["a", "c"], &["c", "d"])] {
            assert!(folded.apply(&change));
        }
        assert_eq!(changed(&folded), [("a", 3, None), ("b", 1, None), ("c", 3, Some(3))]);
        assert_eq!((folded.applied_seq, folded.members_count), (Seq(3), 2));
    }

    #[test]
    fn what_was_applied_changes_nothing() {
        let mut folded = Folded::new(Seq(4), 1);
        folded.know(MemberRow { user: user("a"), joined_seq: Seq(1), joined_ordinal: Ordinal(0), left_seq: None });
        assert!(folded.apply(&change(4, &["b"], &["a"])) && folded.apply(&change(5, &["a"], &[])));
        assert_eq!(changed(&folded), []);
        assert_eq!((folded.applied_seq, folded.members_count), (Seq(5), 1));
    }
}
