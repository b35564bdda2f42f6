//! What a connection has been given of its user's inbox.
//!
//! In: the version told at sign-in and by sync, and the moves (`previous` → `version`) that deliveries carry. Out: whether
//! a version is news to the connection. Always: `given` covers nothing that was not queued to the connection; a lost,
//! dropped or reordered move can only leave it behind, and then a heartbeat is answered with a hint (contract C4).

use im_proto::InboxVersion;

/// The user's inbox went from `previous` to `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub previous: InboxVersion,
    pub version: InboxVersion,
}

#[derive(Debug, Clone, Copy)]
pub struct Given {
    version: InboxVersion,
    /// Moves that were queued, join each other, and wait for what lies before them.
    ahead: Option<Move>,
}

impl Given {
    pub fn new(version: InboxVersion) -> Self {
        Self { version, ahead: None }
    }

    pub fn version(&self) -> InboxVersion {
        self.version
    }

    /// What carries this move was queued to the connection.
    pub fn queued(&mut self, step: Move) {
        if step.version <= self.version {
            return;
        }
        if step.previous <= self.version {
            self.advance(step.version);
            return;
        }
        self.ahead = Some(match self.ahead {
            Some(ahead) if ahead.version == step.previous => Move { version: step.version, ..ahead },
            Some(ahead) if ahead.previous == step.version => Move { previous: step.previous, ..ahead },
            _ => step,
        });
    }

    /// The connection was told of everything up to `version` by an answer.
    pub fn told(&mut self, version: InboxVersion) {
        if version > self.version {
            self.advance(version);
        }
    }

    fn advance(&mut self, version: InboxVersion) {
        self.version = version;
        if let Some(ahead) = self.ahead
            && ahead.previous <= self.version
        {
            self.version = self.version.max(ahead.version);
            self.ahead = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: u64, moves: &[(u64, u64)]) -> u64 {
        let mut given = Given::new(InboxVersion(start));
        for &(previous, version) in moves {
            given.queued(Move { previous: InboxVersion(previous), version: InboxVersion(version) });
        }
        given.version().0
    }

    #[test]
    fn moves_that_join_advance_it() {
        assert_eq!(after(5, &[(5, 6), (6, 9), (9, 10)]), 10);
    }

    #[test]
    fn a_move_behind_a_lost_one_does_not() {
        assert_eq!(after(5, &[(5, 6), (7, 8), (8, 9)]), 6);
    }

    #[test]
    fn moves_that_come_in_another_order_join_once_the_gap_is_filled() {
        assert_eq!(after(5, &[(6, 7), (7, 8), (5, 6)]), 8);
        assert_eq!(after(5, &[(7, 8), (6, 7), (5, 6)]), 8);
    }

    #[test]
    fn an_old_move_changes_nothing() {
        assert_eq!(after(5, &[(3, 4), (4, 5), (5, 5)]), 5);
    }

    #[test]
    fn a_sync_answer_joins_the_moves_that_were_queued_before_it() {
        let mut given = Given::new(InboxVersion(5));
        given.queued(Move { previous: InboxVersion(10), version: InboxVersion(11) });
        given.told(InboxVersion(10));
        assert_eq!(given.version().0, 11);
        given.told(InboxVersion(3));
        assert_eq!(given.version().0, 11);
    }
}
