//! What an operator does with accounts: ban, unban, list.
//!
//! In: a user, the relations. Out: what is kept of it from now on. Always: what is kept is read to its end first, so that the
//! answer says what changed, and no more users are banned than every process can hold; what is repeated is no news, and is kept again for whoever has missed it; flags that
//! this program does not know stay.

use super::is_banned;
use im_proto::{UserId, internal};
use im_storage::ports::{Followed, Relation, RelationKey, RelationKind, Relations, StoreError};
use prost::Message as _;
use prost::encoding::{self, DecodeContext};
use std::collections::BTreeMap;
use std::time::Duration;

/// Every process holds all of them in memory; one more is refused.
pub const BANNED_MAX: usize = 1_000_000;
/// The field numbers of `AccountFlags`.
const FLAGS: [u32; 2] = [1, 2];
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

/// Whether that is news. Returns when the ban is kept; it takes effect within 5 s. Kept again also when it is no news: a
/// process that has missed it hears of it then.
pub async fn ban(relations: &dyn Relations, user: &UserId, now_ms: i64) -> Result<bool, AccountError> {
    let known = kept(relations).await?;
    let account = known.get(user);
    let banned_since = account.and_then(|account| account.banned_since_ms);
    if banned_since.is_none()
        && known.values().filter(|account| account.banned_since_ms.is_some()).count() >= BANNED_MAX
    {
        return Err(AccountError::TooMany);
    }
    let flags = internal::AccountFlags { banned: true, since_ms: banned_since.unwrap_or(now_ms) };
    let mut value = account.map(|account| account.others.clone()).unwrap_or_default();
    value.extend(flags.encode_to_vec());
    relations.put(Relation { key: key(user), value: Some(value.into()) }).await?;
    Ok(banned_since.is_none())
}

/// Whether that is news. The user may sign in again within 5 s. Kept again also when it is no news.
pub async fn unban(relations: &dyn Relations, user: &UserId) -> Result<bool, AccountError> {
    let account = kept(relations).await?.remove(user).unwrap_or_default();
    let value = (!account.others.is_empty()).then(|| account.others.into());
    relations.put(Relation { key: key(user), value }).await?;
    Ok(account.banned_since_ms.is_some())
}

/// By rising user id.
pub async fn banned(relations: &dyn Relations) -> Result<Vec<BannedUser>, AccountError> {
    let banned = |(user, account): (UserId, Account)| Some(BannedUser { user, since_ms: account.banned_since_ms? });
    Ok(kept(relations).await?.into_iter().filter_map(banned).collect())
}

fn key(user: &UserId) -> RelationKey {
    RelationKey { kind: RelationKind::Account, user: user.clone() }
}

/// What is kept of a user.
#[derive(Default)]
struct Account {
    banned_since_ms: Option<i64>,
    /// The flags, encoded, that this program does not know: a newer one's. They stay.
    others: Vec<u8>,
}

impl Account {
    fn read(relation: &Relation) -> Self {
        let value = relation.value.clone().unwrap_or_default();
        let since_ms = internal::AccountFlags::decode(value.clone()).map_or(0, |flags| flags.since_ms);
        // What cannot be read counts as banned, and goes with the ban.
        let others = others(&value).unwrap_or_default();
        Self { banned_since_ms: is_banned(relation).then_some(since_ms), others }
    }
}

/// The fields of encoded [`internal::AccountFlags`] that are none of its own.
fn others(mut value: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    let mut others = Vec::new();
    while !value.is_empty() {
        let field = value;
        let (tag, wire_type) = encoding::decode_key(&mut value)?;
        encoding::skip_field(wire_type, tag, &mut value, DecodeContext::default())?;
        if !FLAGS.contains(&tag) {
            others.extend_from_slice(&field[..field.len() - value.len()]);
        }
    }
    Ok(others)
}

/// Of whom anything is kept.
async fn kept(relations: &dyn Relations) -> Result<BTreeMap<UserId, Account>, StoreError> {
    let read = async {
        let mut feed = relations.follow().await?;
        let mut known = BTreeMap::new();
        while let Followed::Kept(relation) = feed.next().await {
            let RelationKind::Account = relation.key.kind;
            if relation.value.is_some() {
                known.insert(relation.key.user.clone(), Account::read(&relation));
            } else {
                known.remove(&relation.key.user);
            }
        }
        Ok(known)
    };
    let late = || StoreError::Unavailable(format!("the relations were not read to their end within {READ_TIMEOUT:?}"));
    tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_newer_program_are_told_apart_from_our_own() {
        let own = internal::AccountFlags { banned: true, since_ms: 9 }.encode_to_vec();
        let newer = [0x1a, 2, b'h', b'i', 0x20, 1];
        let value = [&newer[..4], &own, &newer[4..]].concat();
        assert_eq!(others(&value).unwrap(), newer);
        assert_eq!(internal::AccountFlags::decode(&value[..]).unwrap().since_ms, 9);
        assert!(others(&value[..3]).is_err(), "cut");
        assert!(others(&own).unwrap().is_empty());
    }
}
