//! The connections of each user who is signed in on a core.
//!
//! In: sign-ins and their ends. Out: the connections of a user. Always: one small entry a connection, in one ordered set.

use im_proto::{ConnectionId, UserId};
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct Users(BTreeSet<(UserId, ConnectionId)>);

impl Users {
    pub fn signed_in(&mut self, user: UserId, connection: ConnectionId) {
        self.0.insert((user, connection));
    }

    pub fn gone(&mut self, user: UserId, connection: ConnectionId) {
        self.0.remove(&(user, connection));
    }

    pub fn connections(&self, user: &UserId) -> impl Iterator<Item = ConnectionId> {
        let (first, last) = ((user.clone(), ConnectionId(0)), (user.clone(), ConnectionId(u64::MAX)));
        self.0.range(first..=last).map(|(_, connection)| *connection)
    }
}
