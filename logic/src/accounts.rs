//! Whose account is banned, as every process of the logic knows it.
//!
//! In: the relations of accounts, followed. Out: whether a user may sign in; kicks for those who are banned while they are signed
//! in. Always: nothing is known before the feed has caught up, and then nobody is signed in; the table changes before logins
//! are looked for, and a sign-in looks at it once more behind its registration, so that of the two one sees the other; a kick
//! is repeated until its login is gone, and a heartbeat ends what is left.
//!
//! | file | what it is |
//! |---|---|
//! | `kept` | what an operator does: ban, unban, list |
//! | `end_logins` | the logins of those who were banned a moment ago |

mod end_logins;
mod kept;

pub use kept::{AccountError, BANNED_MAX, BannedUser, ban, banned, unban};

use crate::metrics::LogicMetrics;
use crate::worker::Shared;
use end_logins::{ToEnd, end_logins};
use im_proto::{UserId, internal};
use im_storage::ports::{Followed, Relation, RelationFeed, RelationKind, Relations, StoreError};
use prost::Message as _;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is known of a user's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    Banned,
    /// The relations were not read to their end yet.
    Unknown,
}

/// At most [`BANNED_MAX`] users, about 40 bytes each: who bans sees to it.
#[derive(Default)]
pub(crate) struct Accounts {
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    is_known: bool,
    banned: HashSet<UserId>,
}

impl Accounts {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn standing(&self, user: &UserId) -> Standing {
        let table = self.table();
        match (table.is_known, table.banned.contains(user)) {
            (false, _) => Standing::Unknown,
            (true, true) => Standing::Banned,
            (true, false) => Standing::Good,
        }
    }

    /// True: this bans somebody who may be signed in. What was kept before we began to know has ended logins then; one that
    /// was banned while nobody followed ends with its heartbeat.
    fn apply(&self, relation: &Relation, metrics: &LogicMetrics) -> bool {
        let RelationKind::Account = relation.key.kind;
        let (user, bans) = (&relation.key.user, is_banned(relation));
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = if bans { table.banned.insert(user.clone()) } else { table.banned.remove(user) };
        metrics.users_banned.store(table.banned.len() as u64, Ordering::Relaxed);
        table.is_known && bans && is_news
    }

    fn caught_up(&self) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).is_known = true;
    }
}

/// Flags that cannot be read ban: nothing is allowed because it is unknown.
fn is_banned(relation: &Relation) -> bool {
    let Some(value) = &relation.value else { return false };
    internal::AccountFlags::decode(value.clone()).map_or_else(
        |error| {
            tracing::error!(user = %relation.key.user, %error, "the flags of an account cannot be read; it counts as banned");
            true
        },
        |flags| flags.banned,
    )
}

/// Accounts that are followed. Dropping the handle ends that.
pub struct AccountsHandle {
    task: JoinHandle<()>,
    known: watch::Receiver<bool>,
}

impl AccountsHandle {
    /// Returns when all is known that was kept when following began; before that nobody is signed in.
    pub async fn ready(&mut self) {
        // The sender is gone only with its task, which ends with this handle.
        let _ = self.known.wait_for(|known| *known).await;
    }

    /// Nobody follows any more: bans and their ends would count no longer.
    pub fn have_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for AccountsHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to follow on the present tokio runtime.
pub(crate) async fn follow(shared: Shared, relations: &dyn Relations) -> Result<AccountsHandle, StoreError> {
    let mut feed = relations.follow().await?;
    let (caught_up, known) = watch::channel(false);
    let task = tokio::spawn(async move {
        let to_end = Arc::new(ToEnd::default());
        tokio::join!(take_up(&shared, &mut *feed, &to_end, &caught_up), end_logins(&shared, &to_end));
    });
    Ok(AccountsHandle { task, known })
}

/// A task of its own beside [`end_logins`]: while the routes are away, later flags count all the same.
async fn take_up(shared: &Shared, feed: &mut dyn RelationFeed, to_end: &ToEnd, caught_up: &watch::Sender<bool>) {
    loop {
        match feed.next().await {
            Followed::Kept(relation) => {
                if shared.accounts.apply(&relation, &shared.metrics) {
                    tracing::info!(user = %relation.key.user, "banned");
                    to_end.add(relation.key.user);
                }
            }
            Followed::CaughtUp => {
                shared.accounts.caught_up();
                caught_up.send_replace(true);
            }
        }
    }
}
