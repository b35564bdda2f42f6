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

/// Answers which conversations lack an earlier change, by rising id.
pub async fn apply(link: &Link, changes: &[MembershipChange]) -> Result<Vec<LogId>, Failure> {
    let mut by_log: BTreeMap<&LogId, Vec<&MembershipChange>> = BTreeMap::new();
    for change in changes {
        by_log.entry(&change.log).or_default().push(change);
    }
    let by_log: Vec<Changes<'_>> = by_log.into_iter().collect();
    let mut lagging = Vec::new();
    for part in by_log.chunks(CONVERSATIONS_MAX) {
        let mut attempts = Attempts::default();
        loop {
            match apply_part(link, part).await {
                Ok(mut of_part) => break lagging.append(&mut of_part),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }
    Ok(lagging)
}

async fn apply_part(link: &Link, part: &[Changes<'_>]) -> Result<Vec<LogId>, Failure> {
    let mut lent = link.lend().await?;
    let logs: Vec<&LogId> = part.iter().map(|(log, _)| *log).collect();
    let known = applied(lent.connection(), &logs).await?;
    let mut lagging = Vec::new();
    let (new, absent): (Vec<&Changes<'_>>, Vec<_>) =
        part.iter().filter(|of| is_new(of, &known)).partition(|of| has_row(of, &known));
    for (log, changes) in absent {
        if changes.first().is_none_or(|first| first.after == Seq(0)) {
            let what = format!("log {log} changes its members and was never created");
            return Err(StoreError::Damaged(what).into());
        }
        lagging.push((*log).clone());
    }
    if !new.is_empty() {
        let mut txn = lent.begin().await?;
        lagging.append(&mut write(&mut txn, &new, &known).await?);
        txn.commit().await?;
    }
    lent.done();
    lagging.sort_unstable();
    Ok(lagging)
}

/// It is there, or the first change makes it.
fn has_row((log, changes): &Changes<'_>, known: &HashMap<String, Applied>) -> bool {
    known.contains_key(log.as_str()) || changes.first().is_some_and(|first| first.created.is_some())
}

fn is_new((log, changes): &Changes<'_>, known: &HashMap<String, Applied>) -> bool {
    let applied_seq = known.get(log.as_str()).map_or(0, |known| known.applied_seq);
    changes.iter().any(|change| change.seq.0 > applied_seq)
}

/// `known` are the conversations that existed before the transaction. Answers which of them lack an earlier change.
async fn write(
    connection: &mut MySqlConnection,
    new: &[&Changes<'_>],
    known: &HashMap<String, Applied>,
) -> Result<Vec<LogId>, Failure> {
    let locked: Vec<_> = new.iter().map(|of| row_to_lock(of, known)).collect();
    bulk::lock_conversations(&locked).build().execute(&mut *connection).await?;
    let logs: Vec<&LogId> = new.iter().map(|(log, _)| *log).collect();
    let now = applied(connection, &logs).await?;
    let mut folded: BTreeMap<&LogId, Folded> = BTreeMap::new();
    for log in logs {
        let of = now.get(log.as_str()).ok_or_else(|| StoreError::Damaged(format!("conversation {log} vanished")))?;
        folded.insert(log, Folded::new(Seq(of.applied_seq), u64::from(of.members_count)));
    }
    load_members(connection, new, &mut folded).await?;
    let mut lagging = Vec::new();
    for (log, changes) in new {
        if let Some(of) = folded.get_mut(log)
            && !changes.iter().all(|change| of.apply(change))
        {
            lagging.push((*log).clone());
        }
    }
    let members: Vec<_> = folded.iter().flat_map(|(log, of)| of.changed().map(|row| (*log, row))).collect();
    for rows in members.chunks(ROWS_MAX) {
        bulk::upsert_members(rows).build().execute(&mut *connection).await?;
    }
    let rows = folded.iter().map(|(log, of)| ConversationRow::known(log, of.applied_seq.0, of.members_count));
    bulk::update_conversations(&rows.collect::<Vec<_>>()).build().execute(connection).await?;
    Ok(lagging)
}

/// Nothing applied yet: a new one is invisible to others until the transaction has set its seq.
fn row_to_lock<'a>((log, changes): &Changes<'a>, known: &HashMap<String, Applied>) -> ConversationRow<'a> {
    let created = changes.first().and_then(|first| first.created.as_ref());
    match created.filter(|_| !known.contains_key(log.as_str())) {
        None => ConversationRow::known(log, 0, 0),
        Some(Created { name, creator, peer }) => {
            let peer = peer.as_ref().map(UserId::as_str);
            ConversationRow { log, name, creator: creator.as_str(), peer, applied_seq: 0, members_count: 0 }
        }
    }
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
