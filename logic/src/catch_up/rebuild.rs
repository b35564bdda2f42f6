//! Projections that lost their rows, or are older than the order the log still keeps, made anew from the logs themselves.
//!
//! In: a shard. Out: rows for every log of it. Always: idempotent; as long as the directory is whole the inbox is made from
//! it and the heads alone, so its cost follows the members and not the messages.

use super::{bump, is_large, own_log_move, read_move, repeat_log, side_by_side, spare_damaged};
use crate::deliver::receipts_members_max;
use crate::entry;
use crate::planted::planted;
use crate::worker::Shared;
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::{MemberRow, Move, ReadCursor, Shard, StoreError};

/// Logs listed, and read cursors asked for, in one call.
const LOGS_LISTED_MAX: usize = 1_000;
const READS_AT_ONCE_MAX: usize = 1_000;

/// What is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Entry by entry.
    Both,
    /// The directory is whole.
    Inbox,
}

/// Answers how many logs there were.
pub(super) async fn rebuild(shared: &Shared, shard: Shard, lost: Lost) -> Result<usize, StoreError> {
    tracing::warn!(
        shard = shard.index(),
        ?lost,
        "a projection has lost its rows, or is older than the order the log keeps; making it anew"
    );
    let (mut after, mut count) = (None, 0);
    loop {
        let logs = shared.ports.log.logs(shard, after.as_ref(), LOGS_LISTED_MAX).await?;
        let repeats = logs.iter().cloned().map(|log| {
            let shared = shared.clone();
            async move { spare_damaged(&shared, &log, make_anew(&shared, &log, lost).await) }
        });
        side_by_side(repeats.collect()).await?;
        count += logs.len();
        match logs.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(count),
        }
    }
}

async fn make_anew(shared: &Shared, log: &LogId, lost: Lost) -> Result<(), StoreError> {
    match (lost, log.kind()) {
        (Lost::Both, _) => every_entry(shared, log).await,
        (Lost::Inbox, Some(LogKind::User)) => reader_rows(shared, log).await,
        (Lost::Inbox, Some(LogKind::Direct | LogKind::Group)) => members_rows(shared, log).await,
        (Lost::Inbox, None) => Ok(()),
    }
}

async fn every_entry(shared: &Shared, log: &LogId) -> Result<(), StoreError> {
    let Some(head) = shared.ports.log.head(log).await? else { return Ok(()) };
    let first = shared.ports.log.range(log, Seq(1), 1, 0).await?.first().map_or(head.seq, |row| row.seq);
    repeat_log(shared, log, first, head.seq).await
}

/// A user's own log, and how far it says that the user has read elsewhere.
async fn reader_rows(shared: &Shared, log: &LogId) -> Result<(), StoreError> {
    let Some(row) = shared.ports.log.head(log).await? else { return Ok(()) };
    let head = entry::read(log, &row)?.entry;
    let owner = UserId::parse(&head.sender_user_id).map_err(|_| entry::damaged(log, row.seq, "a user id"))?;
    let mut after = None;
    loop {
        let directory = &shared.ports.directory;
        let conversations = directory.conversations_of(&owner, after.as_ref(), READS_AT_ONCE_MAX).await?;
        let readers: Vec<(LogId, UserId)> = conversations.iter().map(|of| (of.clone(), owner.clone())).collect();
        let reads = directory.reads(&readers).await?;
        let moves = readers.into_iter().zip(reads).filter(|(_, read)| read.seq > Seq(0));
        bump(shared, moves.map(|((of, reader), read)| read_move(&reader, of, read)).collect()).await?;
        match conversations.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    // Last, as it is written: the version that announces the log's entries comes behind what they moved.
    bump(shared, vec![own_log_move(&owner, log, row.seq, Ordinal(head.ordinal))]).await
}

async fn members_rows(shared: &Shared, log: &LogId) -> Result<(), StoreError> {
    let Some(row) = shared.ports.log.head(log).await? else { return Ok(()) };
    let head = (row.seq, Ordinal(entry::read(log, &row)?.entry.ordinal));
    let Some(conversation) = shared.ports.directory.conversation(log).await? else {
        return Err(entry::damaged(log, Seq(1), "a conversation without a beginning"));
    };
    let is_large = is_large(shared, &conversation);
    // Receipts leave no row: whoever missed one has the head already, and only a version that moves makes it look.
    let present = conversation.members.iter().filter(|row| row.left_seq.is_none()).count();
    let gets_receipts = present <= receipts_members_max(shared) && !planted("missed_receipts_forgotten");
    for members in conversation.members.chunks(READS_AT_ONCE_MAX) {
        let readers: Vec<(LogId, UserId)> = members.iter().map(|row| (log.clone(), row.user.clone())).collect();
        let reads = shared.ports.directory.reads(&readers).await?;
        let mut moves = Vec::with_capacity(members.len());
        for (member, read) in members.iter().zip(reads) {
            // A present member's sync asks for the head of a large conversation; what it needs of the row is the cursor.
            if is_large && member.left_seq.is_none() && read == ReadCursor::default() {
                continue;
            }
            let touch = gets_receipts && member.left_seq.is_none();
            moves.push(Move { touch, ..member_move(shared, log, member, read, head).await? });
        }
        bump(shared, moves).await?;
    }
    Ok(())
}

/// Up to the head, or to the entry by which the member left.
async fn member_move(
    shared: &Shared,
    log: &LogId,
    member: &MemberRow,
    read: ReadCursor,
    (mut head, mut head_ordinal): (Seq, Ordinal),
) -> Result<Move, StoreError> {
    if let Some(left) = member.left_seq
        && let Some(row) = shared.ports.log.range(log, left, 1, 0).await?.first()
    {
        (head, head_ordinal) = (row.seq, Ordinal(entry::read(log, row)?.entry.ordinal));
    }
    Ok(Move { user: member.user.clone(), log: log.clone(), head, head_ordinal, read, touch: false })
}
