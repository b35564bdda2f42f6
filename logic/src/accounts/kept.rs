//! What an operator does with accounts: ban, unban, list.
//!
//! In: a user, the relations. Out: what is kept of it from now on. Always: what is kept is read to its end first, so that the
//! answer says what changed, and no more users are banned than every process can hold; repeating changes nothing.

use super::is_banned;
use im_proto::{UserId, internal};
use im_storage::ports::{Followed, Relation, RelationKey, RelationKind, Relations, StoreError};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// Every process holds all of them in memory; one more is refused.
pub const BANNED_MAX: usize = 1_000_000;
/// To read what is kept, from the beginning.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BannedUser {
    pub user: UserId,
    /// By the clock of whoever banned it; 0: not told.
    pub since_ms: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("{BANNED_MAX} users are banned, and no more can be")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether that is news. Returns when the ban is kept; it takes effect within 5 s.
pub async fn ban(relations: &dyn Relations, user: &UserId, now_ms: i64) -> Result<bool, AccountError> {
    let known = kept(relations).await?;
    if known.contains_key(user) {
        return Ok(false);
    }
    if known.len() >= BANNED_MAX {
        return Err(AccountError::TooMany);
    }
    let flags = internal::AccountFlags { banned: true, since_ms: now_ms };
    relations.put(Relation { key: key(user), value: Some(flags.encode_to_vec().into()) }).await?;
    Ok(true)
}

/// Whether that is news. The user may sign in again within 5 s.
pub async fn unban(relations: &dyn Relations, user: &UserId) -> Result<bool, AccountError> {
    if !kept(relations).await?.contains_key(user) {
        return Ok(false);
    }
    relations.put(Relation { key: key(user), value: None }).await?;
    Ok(true)
}

/// By rising user id.
pub async fn banned(relations: &dyn Relations) -> Result<Vec<BannedUser>, AccountError> {
    Ok(kept(relations).await?.into_iter().map(|(user, since_ms)| BannedUser { user, since_ms }).collect())
}

fn key(user: &UserId) -> RelationKey {
    RelationKey { kind: RelationKind::Account, user: user.clone() }
}

/// Who is banned, and since when.
async fn kept(relations: &dyn Relations) -> Result<BTreeMap<UserId, i64>, StoreError> {
    let read = async {
        let mut feed = relations.follow().await?;
        let mut known = BTreeMap::new();
        while let Followed::Kept(relation) = feed.next().await {
            let RelationKind::Account = relation.key.kind;
            if is_banned(&relation) {
                known.insert(relation.key.user, since_ms(relation.value));
            } else {
                known.remove(&relation.key.user);
            }
        }
        Ok(known)
    };
    let late = || StoreError::Unavailable(format!("the relations were not read to their end within {READ_TIMEOUT:?}"));
    tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
}

fn since_ms(value: Option<bytes::Bytes>) -> i64 {
    value.and_then(|value| internal::AccountFlags::decode(value).ok()).map_or(0, |flags| flags.since_ms)
}
