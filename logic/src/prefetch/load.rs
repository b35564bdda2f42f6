//! The place of a log that is not in memory.
//!
//! In: a log's id. Out: its head and its members, or an empty place. Always: the head is read with majority, and lies at
//! nothing less than what somebody has read (`lost_end`); the directory
//! may lag behind the log, and what it lacks is replayed from the entries, and given to it: it passes over a change that
//! comes behind a later one, and the next change of this log may be decided at once.

use super::lost_end;
use crate::entry::{self, ReadEntry};
use crate::log_state::Position;
use crate::membership::{Members, change_of};
use crate::planted::planted;
use crate::worker::{Ports, Shared};
use futures_util::future::try_join;
use im_proto::{LogId, LogKind, Ordinal, Seq};
use im_storage::ports::{Conversation, EntryRow, MembershipChange, ReadMark, StoreError};
use std::sync::Arc;

/// Entries and bytes of one page of a replay.
pub(crate) const PAGE_ENTRIES_MAX: usize = 500;
pub(crate) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Entries of one look for changes of members.
const CHANGES_LOOK_ENTRIES: u64 = 32;

pub(super) async fn load(shared: &Shared, log: &LogId) -> Result<Position, StoreError> {
    let ports = &shared.ports;
    let (head, furthest) = try_join(read_head(ports, log), furthest_read(ports, log)).await?;
    let head = match furthest {
        Some(furthest) => lost_end::mend(shared, log, head, &furthest).await?,
        None => head,
    };
    let Some(head) = head else {
        return Ok(Position::default());
    };
    let members = match log.kind() {
        Some(LogKind::User) | None => Members::default(),
        Some(LogKind::Direct | LogKind::Group) => members(ports, log, head.members_seq).await?,
    };
    Ok(Position {
        head: Seq(head.entry.seq),
        ordinal: Ordinal(head.entry.ordinal),
        members_seq: head.members_seq,
        members_seq_before: Seq(0),
        members: Arc::new(members),
        decided: head.record,
    })
}

pub(super) async fn read_head(ports: &Ports, log: &LogId) -> Result<Option<ReadEntry>, StoreError> {
    ports.log.head(log).await?.map(|row| entry::read(log, &row)).transpose()
}

/// A user's own log has no readers but its user, who is told what is in it.
async fn furthest_read(ports: &Ports, log: &LogId) -> Result<Option<ReadMark>, StoreError> {
    match log.kind() {
        Some(LogKind::User) | None => Ok(None),
        Some(LogKind::Direct | LogKind::Group) => ports.directory.furthest_read(log).await,
    }
}

/// The last change of members before the entry; 0 if there is none.
pub(crate) async fn members_seq_before_entry(ports: &Ports, log: &LogId, seq: Seq) -> Result<Seq, StoreError> {
    let Some(before) = seq.0.checked_sub(1).filter(|before| *before > 0).map(Seq) else { return Ok(Seq(0)) };
    let row = ports.log.range(log, before, 1, 0).await?.into_iter().find(|row| row.seq == before);
    Ok(row.map(|row| entry::members_seq(log, &row)).transpose()?.unwrap_or_default())
}

/// The members at `members_seq`: the directory's rows and the entries behind them.
pub(crate) async fn members(ports: &Ports, log: &LogId, members_seq: Seq) -> Result<Members, StoreError> {
    let conversation = ports.directory.conversation(log).await?;
    let applied = conversation.as_ref().map_or(Seq(0), |conversation| conversation.header.applied_seq);
    let lacked = changes_between(ports, log, applied, members_seq).await?;
    let members = lacked.iter().fold(conversation.map(present).unwrap_or_default(), |members, of| members.with(of));
    if !lacked.is_empty() && !planted("lagging_directory_left") && !ports.directory.apply(lacked).await?.is_empty() {
        return Err(StoreError::Unavailable(format!(
            "the directory lost changes of log {log} while it was given them"
        )));
    }
    Ok(members)
}

/// The changes behind `applied`, up to `last`. From the end: each entry says which one was the last change at it or before
/// it, so the messages between two changes cost nothing, however many they are.
async fn changes_between(
    ports: &Ports,
    log: &LogId,
    applied: Seq,
    mut last: Seq,
) -> Result<Vec<MembershipChange>, StoreError> {
    let mut changes: Vec<MembershipChange> = Vec::new();
    while last > applied {
        let first = Seq(last.0.saturating_sub(CHANGES_LOOK_ENTRIES - 1)).max(applied.next());
        let first = if planted("lacking_read_forward") { applied.next() } else { first };
        let rows = rows_between(ports, log, first, last).await?;
        for row in rows.iter().rev() {
            let Some(change) = change_of(log, &entry::read(log, row)?.entry, applied)? else { continue };
            if let Some(later) = changes.last_mut() {
                later.after = change.seq;
            }
            changes.push(change);
        }
        let before = Seq(first.0 - 1);
        let earlier = rows.first().map(|row| entry::members_seq(log, row)).transpose()?;
        last = earlier.unwrap_or(before).min(before);
    }
    changes.reverse();
    Ok(changes)
}

/// Those that are there: somebody may have deleted some in between.
async fn rows_between(ports: &Ports, log: &LogId, first: Seq, last: Seq) -> Result<Vec<EntryRow>, StoreError> {
    let mut rows: Vec<EntryRow> = Vec::new();
    let mut from = first;
    while from <= last {
        let wanted = (last.0 - from.0 + 1).min(PAGE_ENTRIES_MAX as u64) as usize;
        let page = ports.log.range(log, from, wanted, PAGE_BYTES_MAX).await?;
        let Some(end) = page.last() else { return Err(entry::damaged(log, from, "a hole")) };
        from = end.seq.next();
        rows.extend(page.into_iter().filter(|row| row.seq <= last));
    }
    Ok(rows)
}

fn present(conversation: Conversation) -> Members {
    let mut present: Vec<_> =
        conversation.members.into_iter().filter(|row| row.left_seq.is_none()).map(|row| row.user).collect();
    present.sort_unstable();
    Members { creator: Some(conversation.header.created.creator), present }
}
