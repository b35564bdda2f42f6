//! The end of logins whose user was banned a moment ago.
//!
//! In: users. Out: kicks of exactly their logins. Always: repeated until the routes show none, a few times: the end of a connection
//! takes its route away, so a route that stays means a kick that was lost, or one that came before its login. What is left
//! after that ends with its heartbeat. The users that wait are some of those banned, and so bounded.

use super::Standing;
use crate::planted::planted;
use crate::worker::Shared;
use im_proto::UserId;
use im_proto::client::kicked::Reason;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two looks at the same user. All looks together take less than the 5 s within which a ban takes effect.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS: u32 = 4;
/// Asked of the routes at once.
const USERS_AT_ONCE_MAX: usize = 500;

/// A user whose logins are yet looked for.
struct Look {
    left: u32,
    due: Instant,
    /// Of the ban: a user may be let in again and banned again while it is looked for.
    number: u64,
}

#[derive(Default)]
pub(super) struct ToEnd {
    users: Mutex<Users>,
    added: Notify,
}

#[derive(Default)]
struct Users {
    waiting: HashMap<UserId, Look>,
    bans: u64,
}

impl ToEnd {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, user: UserId) {
        let mut users = self.users();
        users.bans += 1;
        let look = Look { left: LOOKS, due: Instant::now(), number: users.bans };
        users.waiting.insert(user, look);
        self.added.notify_one();
    }

    /// Those who are to be looked for now, with the number of their ban.
    fn due(&self) -> Vec<(UserId, u64)> {
        let now = Instant::now();
        let users = self.users();
        let due = users.waiting.iter().filter(|(_, look)| look.due <= now || planted("bans_share_looks"));
        due.map(|(user, look)| (user.clone(), look.number)).collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.users().waiting.values().map(|look| look.due).min()
    }

    /// They were looked for once more; `has_login`: somebody is to be looked for again. `None`: nobody could be asked.
    fn looked(&self, users: &[(UserId, u64)], has_login: Option<&dyn Fn(usize) -> bool>) {
        let next = Instant::now() + LOOK_INTERVAL;
        let mut waiting = self.users();
        for (at, (user, number)) in users.iter().enumerate() {
            let Some(look) = waiting.waiting.get_mut(user).filter(|look| look.number == *number) else { continue };
            look.due = next;
            look.left -= u32::from(has_login.is_some());
            if look.left == 0 || has_login.is_some_and(|has_login| !has_login(at)) {
                waiting.waiting.remove(user);
            }
        }
    }
}

pub(super) async fn end_logins(shared: &Shared, to_end: &ToEnd) {
    loop {
        for users in to_end.due().chunks(USERS_AT_ONCE_MAX) {
            end_those_of(shared, to_end, users).await;
        }
        let added = to_end.added.notified();
        match to_end.next_due() {
            // Whoever is banned meanwhile does not wait for the others' next look.
            Some(due) => drop(tokio::time::timeout_at(due, added).await),
            None => added.await,
        }
    }
}

async fn end_those_of(shared: &Shared, to_end: &ToEnd, users: &[(UserId, u64)]) {
    let ids: Vec<UserId> = users.iter().map(|(user, _)| user.clone()).collect();
    let logins = match shared.ports.routes.look_up(&ids).await {
        Ok(logins) => logins,
        Err(error) => {
            tracing::warn!(%error, "the logins of banned users are not known now");
            // It is no look: with the next one they are back, or their gateways' heartbeats find them.
            return to_end.looked(users, None);
        }
    };
    for (user, logins) in ids.iter().zip(&logins) {
        if shared.accounts.standing(user) == Standing::Banned && !planted("ban_kicks_nobody") {
            logins.iter().for_each(|login| shared.kick(login, Reason::Banned));
        }
    }
    to_end.looked(users, Some(&|at| logins.get(at).is_some_and(|logins| !logins.is_empty())));
}
