//! What the projections lack, repeated from the log: at start, and when a partition was taken over.
//!
//! In: shards. Out: directory and inbox rows that know every entry of them. Always: idempotent, since rows ignore what they
//! have and cursors only rise; nobody is answered or pushed to: the inbox versions that move are found by the next
//! heartbeat or sync.

use crate::deliver::{others, own_log_move, read_move, touch};
use crate::entry;
use crate::membership::change_of;
use crate::metrics::add;
use crate::persist::read_moved;
use crate::planted::planted;
use crate::prefetch::load::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::worker::{Shared, Stopped, Worker};
use im_proto::client;
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::{Cursor, MemberRow, Move, ReadCursor, Shard, StoreError};
use std::collections::{BTreeMap, HashMap};

/// Names of entries asked for at once.
const TAIL_ENTRIES_MAX: usize = 4_096;

/// Moves in one call; a page of a large group has more than this and takes several.
const MOVES_MAX: usize = 10_000;

impl Worker {
    /// Returns when the shards are caught up and covered. Waits for stores that are away.
    pub(crate) async fn catch_up(&mut self, shards: &[Shard]) -> Result<(), Stopped> {
        if planted("no_catch_up") {
            return Ok(());
        }
        let mut patience = self.patience("catch up");
        while let Err(error) = catch_up(&self.shared, shards).await {
            patience.wait(&error).await?;
        }
        Ok(())
    }
}

async fn catch_up(shared: &Shared, shards: &[Shard]) -> Result<(), StoreError> {
    // Read first: what is stored from now on is not claimed to be covered.
    let end = shared.ports.log.end().await?;
    let mut repeated = 0;
    for shard in shards {
        repeated += repeat_shard(shared, *shard).await?;
    }
    if repeated > 0 {
        tracing::info!(entries = repeated, shards = shards.len(), "projections caught up with the log");
    }
    shared.cover(shards, &end).await
}

/// From where either projection stands. Cursors cannot be told apart by age, so where they differ both ways are gone.
async fn repeat_shard(shared: &Shared, shard: Shard) -> Result<usize, StoreError> {
    let of_directory = shared.ports.directory.covered(shard).await?;
    let of_inbox = shared.ports.inbox.covered(shard).await?;
    let differ = of_directory != of_inbox;
    let mut repeated = repeat_from(shared, shard, of_directory).await?;
    if differ {
        repeated += repeat_from(shared, shard, of_inbox).await?;
    }
    Ok(repeated)
}

async fn repeat_from(shared: &Shared, shard: Shard, mut cursor: Option<Cursor>) -> Result<usize, StoreError> {
    let mut repeated = 0;
    loop {
        let tail = shared.ports.log.tail(shard, cursor.as_ref(), TAIL_ENTRIES_MAX).await?;
        if tail.entries.is_empty() {
            return Ok(repeated);
        }
        repeated += tail.entries.len();
        let mut ranges: BTreeMap<LogId, (Seq, Seq)> = BTreeMap::new();
        for (log, seq) in tail.entries {
            let (first, last) = ranges.entry(log).or_insert((seq, seq));
            *first = seq.min(*first);
            *last = seq.max(*last);
        }
        for (log, (first, last)) in ranges {
            match repeat_log(shared, &log, first, last).await {
                Ok(()) => {}
                // Its readers will be told the same; the other logs go on.
                Err(error @ StoreError::Damaged(_)) => {
                    add(&shared.metrics.damaged, 1);
                    tracing::error!(%log, %error, "a log cannot be caught up");
                }
                Err(error) => return Err(error),
            }
        }
        cursor = Some(tail.next);
    }
}

async fn repeat_log(shared: &Shared, log: &LogId, first: Seq, last: Seq) -> Result<(), StoreError> {
    let mut from = first;
    while from <= last {
        let rows = shared.ports.log.range(log, from, PAGE_ENTRIES_MAX, PAGE_BYTES_MAX).await?;
        let entries: Vec<client::Entry> =
            rows.iter().map(|row| entry::read(log, row).map(|read| read.entry)).collect::<Result<_, _>>()?;
        let Some(last_read) = entries.last() else {
            return Err(entry::damaged(log, from, "a hole"));
        };
        from = Seq(last_read.seq).next();
        add(&shared.metrics.caught_up_entries, entries.len());
        let moves = match log.kind() {
            Some(LogKind::User) => reader_moves(shared, log, &entries).await?,
            Some(LogKind::Direct | LogKind::Group) => member_moves(shared, log, &entries).await?,
            None => Vec::new(),
        };
        for moves in moves.chunks(MOVES_MAX) {
            shared.ports.inbox.bump(moves.to_vec()).await?;
        }
    }
    Ok(())
}

/// Directory first, then a move for everyone whose time in the conversation touches the page.
async fn member_moves(shared: &Shared, log: &LogId, page: &[client::Entry]) -> Result<Vec<Move>, StoreError> {
    let mut changes = Vec::new();
    let mut reads: HashMap<&str, ReadCursor> = HashMap::new();
    for entry in page {
        changes.extend(change_of(log, entry)?);
        let cursor = ReadCursor { seq: Seq(entry.seq), ordinal: Ordinal(entry.ordinal) };
        reads.insert(&entry.sender_user_id, cursor);
    }
    if !changes.is_empty() {
        shared.ports.directory.apply(changes).await?;
    }
    let Some(conversation) = shared.ports.directory.conversation(log).await? else {
        return Err(entry::damaged(log, Seq(1), "a conversation without a beginning"));
    };
    let moves = conversation.members.iter().filter_map(|row| {
        let head = last_readable(row, page)?;
        let read = reads.get(row.user.as_str()).copied().filter(|read| read.seq <= Seq(head.seq));
        Some(Move {
            user: row.user.clone(),
            log: log.clone(),
            head: Seq(head.seq),
            head_ordinal: Ordinal(head.ordinal),
            read: read.unwrap_or_default(),
            touch: false,
        })
    });
    Ok(moves.collect())
}

/// The last entry of the page that lies in the member's time.
fn last_readable<'a>(row: &MemberRow, page: &'a [client::Entry]) -> Option<&'a client::Entry> {
    let left = row.left_seq.map_or(u64::MAX, |left| left.0);
    page.iter().rev().find(|entry| (row.joined_seq.0..=left).contains(&entry.seq))
}

async fn reader_moves(shared: &Shared, log: &LogId, page: &[client::Entry]) -> Result<Vec<Move>, StoreError> {
    let mut moves = Vec::new();
    for entry in page {
        let reader =
            UserId::parse(&entry.sender_user_id).map_err(|_| entry::damaged(log, Seq(entry.seq), "a user id"))?;
        if let Some((conversation, cursor)) = read_moved(log, entry)? {
            let others = others(shared, &conversation, &reader).await?;
            moves.extend(others.iter().map(|other| touch(other, &conversation)));
            moves.push(read_move(&reader, conversation, cursor));
        }
        moves.push(own_log_move(&reader, log, Seq(entry.seq), Ordinal(entry.ordinal)));
    }
    Ok(moves)
}
