//! Whom the latest changes of members named.
//!
//! In: changes, each with the users it names. Out: whether one since a moment may have named a user. Always: a user who was
//! named is never said not to be; bounded, and what was forgotten counts as naming everybody.

use crate::planted::{Bug, planted};
use im_proto::UserId;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Names that are remembered, of one core. For one more the oldest is forgotten: who was asked about before its change may
/// have been named.
pub const NAMES_MAX: usize = 2_048;

#[derive(Debug, Default)]
pub struct Recent {
    /// Changes so far.
    count: u64,
    /// The number of a change and the hash of a user whom it named, oldest first.
    names: VecDeque<(u64, u64)>,
    /// The last change of which a name was forgotten.
    forgotten: u64,
}

impl Recent {
    /// A moment, to ask about later.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn changed<'a>(&mut self, users: impl IntoIterator<Item = &'a UserId>) {
        self.count += 1;
        // Of one more than there is room for nothing is left but that it was too many.
        for user in users.into_iter().take(NAMES_MAX + 1) {
            if self.names.len() == NAMES_MAX {
                self.forgotten = self.names.pop_front().map_or(self.count, |(number, _)| number);
            }
            self.names.push_back((self.count, hash(user)));
        }
    }

    /// Whether a change behind the first `since` ones named the user, or may have.
    pub fn may_name(&self, user: &UserId, since: u64) -> bool {
        if since == self.count || planted(Bug::ChangeInBetweenForgotten) {
            return false;
        }
        let user = hash(user);
        let mut named = self.names.iter().rev().take_while(|(number, _)| *number > since);
        self.forgotten > since || named.any(|(_, name)| *name == user)
    }
}

/// Two users with the same one cost a needless question.
fn hash(user: &UserId) -> u64 {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn crowd(count: usize) -> Vec<UserId> {
        (0..count).map(|number| user(&format!("user{number}"))).collect()
    }

    #[test]
    fn a_name_that_was_forgotten_may_have_been_anybodys() {
        let mut recent = Recent::default();
        recent.changed([&user("ann")]);
        recent.changed(&crowd(NAMES_MAX));
        assert!(recent.may_name(&user("ann"), 0) && recent.may_name(&user("zoe"), 0));
        assert!(recent.may_name(&user("user0"), 1) && !recent.may_name(&user("ann"), 1));
        assert_eq!(recent.names.len(), NAMES_MAX);
    }

    #[test]
    fn a_change_of_more_than_there_is_room_for_names_everybody() {
        let mut recent = Recent::default();
        recent.changed(&crowd(3 * NAMES_MAX));
        assert!(recent.may_name(&user("ann"), 0));
        assert!(!recent.may_name(&user("ann"), 1));
        recent.changed([&user("ann")]);
        assert!(recent.may_name(&user("ann"), 1) && !recent.may_name(&user("zoe"), 1));
        assert_eq!(recent.names.len(), NAMES_MAX);
    }
}
