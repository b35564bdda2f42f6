//! Membership changes as transactions.
//!
//! In: changes of many conversations. Out: rows. Always: the conversation's row is locked before its members are looked at,
//! by rising id, so two writers of one conversation go one after the other and the second sees what the first did; what was
//! applied before costs one read and no lock; all changes of a conversation in a batch are in one transaction.

use super::bulk::{self, ConversationRow, PAIRS_MAX, ROWS_MAX};
use super::fold::Folded;
use super::link::{Attempts, Failure, Link};
use super::rows;
use crate::ports::{Created, MembershipChange, StoreError};
use im_proto::{LogId, Seq, UserId};
use sqlx::MySqlConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Conversations of one transaction: further ones wait for the next, so that locks are held for a short time.
const CONVERSATIONS_MAX: usize = 256;

/// The changes of one conversation, in their order.
type Changes<'a> = (&'a LogId, Vec<&'a MembershipChange>);

/// What a conversation's row says of progress.
#[derive(sqlx::FromRow)]
struct Applied {
    log: String,
    applied_seq: u64,
    members_count: u32,
}

#[derive(sqlx::FromRow)]
struct Member {
    log: String,
    user: String,
    joined_seq: u64,
    joined_ordinal: u64,
    left_seq: Option<u64>,
}

pub async fn apply(link: &Link, changes: &[MembershipChange]) -> Result<(), Failure> {
    let mut by_log: BTreeMap<&LogId, Vec<&MembershipChange>> = BTreeMap::new();
    for change in changes {
        by_log.entry(&change.log).or_default().push(change);
    }
    let by_log: Vec<Changes<'_>> = by_log.into_iter().collect();
    for part in by_log.chunks(CONVERSATIONS_MAX) {
        let mut attempts = Attempts::default();
        while let Err(failure) = apply_part(link, part).await {
            attempts.again(failure).await?;
        }
    }
    Ok(())
}

async fn apply_part(link: &Link, part: &[Changes<'_>]) -> Result<(), Failure> {
    let mut lent = link.lend().await?;
    let logs: Vec<&LogId> = part.iter().map(|(log, _)| *log).collect();
    let known = applied(lent.connection(), &logs).await?;
    let new: Vec<&Changes<'_>> = part.iter().filter(|of| is_new(of, &known)).collect();
    if !new.is_empty() {
        let mut txn = lent.begin().await?;
        write(&mut txn, &new, &known).await?;
        txn.commit().await?;
    }
    lent.done();
    Ok(())
}

fn is_new((log, changes): &Changes<'_>, known: &HashMap<String, Applied>) -> bool {
    let applied_seq = known.get(log.as_str()).map_or(0, |known| known.applied_seq);
    changes.iter().any(|change| change.seq.0 > applied_seq)
}

/// `known` are the conversations that existed before the transaction.
async fn write(
    connection: &mut MySqlConnection,
    new: &[&Changes<'_>],
    known: &HashMap<String, Applied>,
) -> Result<(), Failure> {
    let locked: Result<Vec<_>, StoreError> = new.iter().map(|of| row_to_lock(of, known)).collect();
    bulk::lock_conversations(&locked?).build().execute(&mut *connection).await?;
    let logs: Vec<&LogId> = new.iter().map(|(log, _)| *log).collect();
    let now = applied(connection, &logs).await?;
    let mut folded: BTreeMap<&LogId, Folded> = BTreeMap::new();
    for log in logs {
        let of = now.get(log.as_str()).ok_or_else(|| StoreError::Damaged(format!("conversation {log} vanished")))?;
        folded.insert(log, Folded::new(Seq(of.applied_seq), u64::from(of.members_count)));
    }
    load_members(connection, new, &mut folded).await?;
    for (log, changes) in new {
        if let Some(of) = folded.get_mut(log) {
            changes.iter().for_each(|change| of.apply(change));
        }
    }
    let members: Vec<_> = folded.iter().flat_map(|(log, of)| of.changed().map(|row| (*log, row))).collect();
    for rows in members.chunks(ROWS_MAX) {
        bulk::upsert_members(rows).build().execute(&mut *connection).await?;
    }
    let rows = folded.iter().map(|(log, of)| ConversationRow::known(log, of.applied_seq.0, of.members_count));
    bulk::update_conversations(&rows.collect::<Vec<_>>()).build().execute(connection).await?;
    Ok(())
}

/// Nothing applied yet: a new one is invisible to others until the transaction has set its seq.
fn row_to_lock<'a>(
    (log, changes): &Changes<'a>,
    known: &HashMap<String, Applied>,
) -> Result<ConversationRow<'a>, StoreError> {
    if known.contains_key(log.as_str()) {
        return Ok(ConversationRow::known(log, 0, 0));
    }
    let Some(Created { name, creator, peer }) = changes.first().and_then(|first| first.created.as_ref()) else {
        return Err(StoreError::Damaged(format!("log {log} changes its members and was never created")));
    };
    let peer = peer.as_ref().map(UserId::as_str);
    Ok(ConversationRow { log, name, creator: creator.as_str(), peer, applied_seq: 0, members_count: 0 })
}

async fn applied(connection: &mut MySqlConnection, logs: &[&LogId]) -> Result<HashMap<String, Applied>, sqlx::Error> {
    let found: Vec<Applied> = bulk::applied(logs).build_query_as().fetch_all(connection).await?;
    Ok(found.into_iter().map(|row| (row.log.clone(), row)).collect())
}

/// The rows of those whom the changes name. A conversation of which nothing was applied has none.
async fn load_members(
    connection: &mut MySqlConnection,
    new: &[&Changes<'_>],
    folded: &mut BTreeMap<&LogId, Folded>,
) -> Result<(), Failure> {
    let mut named: BTreeSet<(&LogId, &UserId)> = BTreeSet::new();
    for (log, changes) in new {
        if folded.get(log).is_some_and(|of| of.applied_seq > Seq(0)) {
            let users = changes.iter().flat_map(|change| change.joined.iter().chain(&change.left));
            named.extend(users.map(|user| (*log, user)));
        }
    }
    let named: Vec<_> = named.into_iter().collect();
    for of in named.chunks(PAIRS_MAX) {
        let found: Vec<Member> = bulk::members(of).build_query_as().fetch_all(&mut *connection).await?;
        for row in found {
            let (log, user) = (rows::log(&row.log, "members")?, rows::user(&row.user, "members")?);
            if let Some(of) = folded.get_mut(&log) {
                of.know(rows::member(user, row.joined_seq, row.joined_ordinal, row.left_seq));
            }
        }
    }
    Ok(())
}
