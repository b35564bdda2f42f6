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

/// Between two looks at the same user. All looks together take less than the 5 s within which a ban takes effect.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOKS: u32 = 4;
/// Asked of the routes at once.
const USERS_AT_ONCE_MAX: usize = 500;

/// Users, and how often their logins are yet looked for.
#[derive(Default)]
pub(super) struct ToEnd {
    users: Mutex<HashMap<UserId, u32>>,
    added: Notify,
}

impl ToEnd {
    fn users(&self) -> MutexGuard<'_, HashMap<UserId, u32>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, user: UserId) {
        self.users().insert(user, LOOKS);
        self.added.notify_one();
    }

    fn all(&self) -> Vec<UserId> {
        self.users().keys().cloned().collect()
    }

    /// They were looked for once more.
    fn looked(&self, users: &[UserId], has_login: impl Fn(usize) -> bool) {
        let mut waiting = self.users();
        for (at, user) in users.iter().enumerate() {
            let left = waiting.get(user).map_or(0, |left| left.saturating_sub(1));
            if left == 0 || !has_login(at) {
                waiting.remove(user);
            } else {
                waiting.insert(user.clone(), left);
            }
        }
    }
}

pub(super) async fn end_logins(shared: &Shared, to_end: &ToEnd) {
    loop {
        for users in to_end.all().chunks(USERS_AT_ONCE_MAX) {
            end_those_of(shared, to_end, users).await;
        }
        let added = to_end.added.notified();
        if to_end.users().is_empty() {
            added.await;
        } else {
            // Whoever is banned meanwhile does not wait for the others' next look.
            let _ = tokio::time::timeout(LOOK_INTERVAL, added).await;
        }
    }
}

async fn end_those_of(shared: &Shared, to_end: &ToEnd, users: &[UserId]) {
    let logins = match shared.ports.routes.look_up(users).await {
        Ok(logins) => logins,
        // It is no look: with the next one they are back, or their gateways' heartbeats find them.
        Err(error) => return tracing::warn!(%error, "the logins of banned users are not known now"),
    };
    for (user, logins) in users.iter().zip(&logins) {
        if shared.accounts.standing(user) == Standing::Banned && !planted("ban_kicks_nobody") {
            logins.iter().for_each(|login| shared.kick(login, Reason::Banned));
        }
    }
    to_end.looked(users, |at| logins.get(at).is_some_and(|logins| !logins.is_empty()));
}
