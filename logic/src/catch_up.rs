//! What the projections lack, repeated from the log: when a partition was gained, and when a projection lost rows.
//!
//! In: partitions. Out: their claims, and directory and inbox rows that know every entry of them. Always: beside the
//! commands, which wait for none of it: what a decision needs of a log it reads from the log itself; one partition at a time,
//! some of its logs at once; claimed first, so that the owner before us covers nothing any more; a shard is covered by us only
//! when it is caught up; idempotent, since rows ignore what they have and cursors only rise; nobody is answered or pushed to:
//! the inbox versions that move are found by the next heartbeat or sync.

mod rebuild;

use crate::deliver::{apply_whole, others, own_log_move, read_move, touch};
use crate::entry::{self, ReadEntry};
use crate::membership::change_of;
use crate::metrics::add;
use crate::persist::read_moved;
use crate::planted::planted;
use crate::prefetch::load::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, members_seq_before_entry};
use crate::worker::{Owned, Patience, Shared, Stopped, Worker};
use futures_util::{TryStreamExt as _, stream};
use im_proto::client;
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::{
    Conversation, Covered, Cursor, MemberRow, MembershipChange, Move, Partition, ReadCursor, ReadMark, Shard,
    StoreError, Tail,
};
use rebuild::{Lost, rebuild};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Names of entries asked for at once.
const TAIL_ENTRIES_MAX: usize = 4_096;

/// Logs repeated at once. The commands use the same stores meanwhile.
const LOGS_AT_ONCE_MAX: usize = 8;

/// Moves in one call; a page of a large group has more than this and takes several.
const MOVES_MAX: usize = 10_000;

/// Repeated and not covered yet. Takeovers in quick succession would otherwise each begin where the first one began, and have
/// more and more to repeat.
const UNCOVERED_ENTRIES_MAX: usize = 1_000;

/// Whether an inbox that was away is back must be known soon: messages wait meanwhile.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Partitions whose projections are brought up to their logs.
pub(crate) struct CatchUps {
    shared: Shared,
    stop: watch::Receiver<bool>,
    /// At most one of each partition.
    waiting: VecDeque<CatchUp>,
    running: Option<CatchUp>,
    /// The one that runs. It ends with the value.
    task: JoinSet<Result<CaughtUp, Stopped>>,
}

#[derive(Clone, Copy)]
struct CatchUp {
    partition: Partition,
    is_repair: bool,
}

/// Both projections know every entry that was stored before the catching up began; what came later was delivered.
pub(crate) struct CaughtUp {
    pub partition: Partition,
    pub owned: Owned,
    /// A projection had lost rows or claims.
    pub is_repair: bool,
}

impl CatchUps {
    pub fn new(shared: Shared, stop: watch::Receiver<bool>) -> Self {
        Self { shared, stop, waiting: VecDeque::new(), running: None, task: JoinSet::new() }
    }

    /// From the beginning, if it is under way.
    pub fn add(&mut self, partition: Partition, is_repair: bool) {
        self.forget(partition);
        self.waiting.push_back(CatchUp { partition, is_repair });
    }

    pub fn forget(&mut self, partition: Partition) {
        self.waiting.retain(|of| of.partition != partition);
        if self.running.is_some_and(|of| of.partition == partition) {
            (self.running, self.task) = (None, JoinSet::new());
        }
    }

    /// What runs begins anew: it may have missed something.
    pub fn restart(&mut self) {
        if let Some(CatchUp { partition, is_repair }) = self.running {
            self.add(partition, is_repair);
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.running.is_some())
    }

    pub fn is_done(&self) -> bool {
        self.len() == 0
    }

    /// The next one that is caught up; waits for ever when nothing is to be done. May be cancelled.
    pub async fn next(&mut self) -> Result<CaughtUp, Stopped> {
        if self.running.is_none() {
            let Some(catch_up) = self.waiting.pop_front() else { return std::future::pending().await };
            self.running = Some(catch_up);
            let patience = Patience::new("catch up", &self.shared, &self.stop);
            self.task.spawn(caught_up(self.shared.clone(), catch_up, patience));
        }
        let ended = self.task.join_next().await;
        self.running = None;
        match ended {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => Err(Stopped),
        }
    }
}

/// Waits for stores that are away.
async fn caught_up(shared: Shared, catch_up: CatchUp, mut patience: Patience) -> Result<CaughtUp, Stopped> {
    let CatchUp { partition, is_repair } = catch_up;
    let partitions = shared.ports.queue.partitions();
    let shards: Vec<Shard> = Shard::all().filter(|shard| Partition::of(*shard, partitions) == partition).collect();
    loop {
        match repeat(&shared, &shards).await {
            Ok(owned) => return Ok(CaughtUp { partition, owned, is_repair }),
            Err(error) => patience.wait(&error).await?,
        }
    }
}

impl Worker {
    /// If the inbox is back, it is given what it did not get, from its last cover on; one that is still away is asked again
    /// later. Either way no message waits long.
    pub(crate) async fn repair_inbox(&mut self) {
        if !self.inbox_behind || !matches!(tokio::time::timeout(PROBE_TIMEOUT, self.probe_inbox()).await, Ok(Ok(()))) {
            return;
        }
        tracing::info!("the inbox is back and is given what it did not get");
        self.inbox_behind = false;
        self.catch_up_again();
    }

    /// A write where that disturbs no claim: whatever is owned is claimed anew. A partition that is being caught up has its claim
    /// already, so where there are no others a read has to do.
    async fn probe_inbox(&self) -> Result<(), StoreError> {
        match self.owned.values().next() {
            Some(probe) => self.shared.ports.inbox.claim(&probe.shards).await.map(drop),
            None if planted("probe_needs_ownership") => Err(StoreError::Unavailable("not asked".to_owned())),
            None => {
                let nobody = UserId::parse("nobody").map_err(|_| StoreError::Unavailable("no id".to_owned()))?;
                self.shared.ports.inbox.versions(&[nobody]).await.map(drop)
            }
        }
    }
}

async fn repeat(shared: &Shared, shards: &[Shard]) -> Result<Owned, StoreError> {
    let directory = shared.ports.directory.claim(shards).await?;
    let inbox = shared.ports.inbox.claim(shards).await?;
    let owned = Owned { shards: shards.to_vec(), directory, inbox, covered: None, replaced_at: None };
    if planted("no_catch_up") {
        return Ok(owned);
    }
    // Of what is stored from now on nothing has to be repeated.
    let end = shared.ports.log.end().await?;
    if shared.ports.log.is_empty().await? {
        return Ok(owned);
    }
    let (mut repeated, mut uncovered, mut done) = (0, 0, Vec::new());
    for ((shard, of_directory), (_, of_inbox)) in owned.directory.covered.iter().zip(&owned.inbox.covered) {
        let entries = repeat_shard(shared, *shard, of_directory, of_inbox, &end).await?;
        repeated += entries;
        uncovered += entries;
        done.push(*shard);
        if uncovered > UNCOVERED_ENTRIES_MAX && !planted("takeover_begins_anew") {
            cover(shared, &owned, &done, &end).await?;
            (uncovered, done) = (0, Vec::new());
        }
    }
    if repeated > 0 {
        tracing::info!(entries = repeated, shards = shards.len(), "projections caught up with the log");
    }
    Ok(owned)
}

/// Who takes over in the middle of this need not repeat these shards. Whether the claims stand is found out when all are covered.
async fn cover(shared: &Shared, owned: &Owned, shards: &[Shard], end: &Cursor) -> Result<(), StoreError> {
    if shared.ports.directory.cover(&owned.directory.of(shards), end).await? == Covered::Noted {
        shared.ports.inbox.cover(&owned.inbox.of(shards), end).await?;
    }
    Ok(())
}

/// From where the projection stands that is further behind: what the other has it ignores. Where the log does not know the
/// order from there on, each by itself.
async fn repeat_shard(
    shared: &Shared,
    shard: Shard,
    of_directory: &Option<Cursor>,
    of_inbox: &Option<Cursor>,
    end: &Cursor,
) -> Result<usize, StoreError> {
    if let (Some(by_directory), Some(by_inbox)) = (of_directory, of_inbox)
        && let Some(repeated) = repeat_from(shared, shard, Some(by_directory.min(by_inbox).clone()), end).await?
    {
        return Ok(repeated);
    }
    let Some(repeated) = repeat_from(shared, shard, of_directory.clone(), end).await? else {
        return rebuild(shared, shard, Lost::Both).await;
    };
    if of_inbox == of_directory {
        return Ok(repeated);
    }
    if of_inbox.is_none() {
        // It lost everything: its rows follow from the heads, however many entries there are.
        return Ok(repeated + rebuild(shared, shard, Lost::Inbox).await?);
    }
    match repeat_from(shared, shard, of_inbox.clone(), end).await? {
        Some(more) => Ok(repeated + more),
        // The directory is whole by now.
        None => Ok(repeated + rebuild(shared, shard, Lost::Inbox).await?),
    }
}

/// How many entries were repeated; `None` if the log no longer knows which they were.
async fn repeat_from(
    shared: &Shared,
    shard: Shard,
    mut cursor: Option<Cursor>,
    end: &Cursor,
) -> Result<Option<usize>, StoreError> {
    let mut repeated = 0;
    loop {
        let tail = shared.ports.log.tail(shard, cursor.as_ref(), end, TAIL_ENTRIES_MAX).await?;
        let Tail::Named { entries, next } = tail else { return Ok(None) };
        if entries.is_empty() {
            return Ok(Some(repeated));
        }
        repeated += entries.len();
        let mut ranges: BTreeMap<LogId, (Seq, Seq)> = BTreeMap::new();
        for (log, seq) in entries {
            let (first, last) = ranges.entry(log).or_insert((seq, seq));
            *first = seq.min(*first);
            *last = seq.max(*last);
        }
        let repeats = ranges.into_iter().map(|(log, (first, last))| {
            let shared = shared.clone();
            async move { spare_damaged(&shared, &log, repeat_log(&shared, &log, first, last).await) }
        });
        side_by_side(repeats.collect()).await?;
        cursor = Some(next);
    }
}

/// One after the other they would take the sum of all their round trips. Each is of another log, so their order is none.
async fn side_by_side(repeats: Vec<impl Future<Output = Result<(), StoreError>>>) -> Result<(), StoreError> {
    let at_once = if planted("repeated_log_by_log") { 1 } else { LOGS_AT_ONCE_MAX };
    stream::iter(repeats.into_iter().map(Ok)).try_for_each_concurrent(at_once, |repeat| repeat).await
}

/// A damaged log is passed over: its readers will be told the same; the other logs go on.
pub(crate) fn spare_damaged(shared: &Shared, log: &LogId, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(error @ StoreError::Damaged(_)) => {
            add(&shared.metrics.damaged, 1);
            tracing::error!(%log, %error, "a log cannot be caught up");
            Ok(())
        }
        other => other,
    }
}

async fn repeat_log(shared: &Shared, log: &LogId, first: Seq, last: Seq) -> Result<(), StoreError> {
    let mut from = first;
    while from <= last {
        // What lies behind `last` is named by itself, if at all.
        let wanted = (last.0 - from.0 + 1).min(PAGE_ENTRIES_MAX as u64) as usize;
        let rows = shared.ports.log.range(log, from, wanted, PAGE_BYTES_MAX).await?;
        let page: Vec<ReadEntry> = rows.iter().map(|row| entry::read(log, row)).collect::<Result<_, _>>()?;
        let Some(last_read) = page.last().map(|read| Seq(read.entry.seq)) else {
            return Err(entry::damaged(log, from, "a hole"));
        };
        let changes = changes(shared, log, &page).await?;
        let entries: Vec<client::Entry> = page.into_iter().map(|read| read.entry).collect();
        from = last_read.next();
        add(&shared.metrics.caught_up_entries, entries.len());
        let moves = match log.kind() {
            Some(LogKind::User) => reader_moves(shared, log, &entries).await?,
            Some(LogKind::Direct | LogKind::Group) => member_moves(shared, log, &entries, changes).await?,
            None => Vec::new(),
        };
        apply_moves(shared, moves).await?;
    }
    Ok(())
}

/// Inbox rows, and the read cursors among them to the directory too.
async fn apply_moves(shared: &Shared, moves: Vec<Move>) -> Result<(), StoreError> {
    let moved = moves.iter().filter(|of| of.read.seq > Seq(0));
    let marks = moved.map(|of| ReadMark { log: of.log.clone(), user: of.user.clone(), read: of.read }).collect();
    shared.ports.directory.record_reads(marks).await?;
    bump(shared, moves).await
}

pub(crate) async fn bump(shared: &Shared, moves: Vec<Move>) -> Result<(), StoreError> {
    for moves in moves.chunks(MOVES_MAX) {
        shared.ports.inbox.bump(moves.to_vec()).await?;
    }
    Ok(())
}

/// What the page changes. Each entry says which one before it, or itself, was the last that did.
async fn changes(shared: &Shared, log: &LogId, page: &[ReadEntry]) -> Result<Vec<MembershipChange>, StoreError> {
    let mut changes: Vec<MembershipChange> = Vec::new();
    for (at, read) in page.iter().enumerate() {
        let after = at.checked_sub(1).map(|before| page[before].members_seq);
        let Some(mut change) = change_of(log, &read.entry, after.unwrap_or_default())? else { continue };
        if after.is_none() {
            change.after = members_seq_before_entry(&shared.ports, log, Seq(read.entry.seq)).await?;
        }
        changes.push(change);
    }
    Ok(changes)
}

/// Directory first, then a move for everyone whose time in the conversation touches the page, or who wrote in it: who was
/// removed since and is back has the cursor of an earlier time.
async fn member_moves(
    shared: &Shared,
    log: &LogId,
    page: &[client::Entry],
    changes: Vec<MembershipChange>,
) -> Result<Vec<Move>, StoreError> {
    let mut reads: HashMap<&str, ReadCursor> = HashMap::new();
    for entry in page {
        let cursor = ReadCursor { seq: Seq(entry.seq), ordinal: Ordinal(entry.ordinal) };
        reads.insert(&entry.sender_user_id, cursor);
    }
    if !changes.is_empty() {
        apply_whole(shared, &changes).await?;
    }
    let Some(conversation) = shared.ports.directory.conversation(log).await? else {
        return Err(entry::damaged(log, Seq(1), "a conversation without a beginning"));
    };
    let is_large = is_large(shared, &conversation);
    let moves = conversation.members.iter().filter_map(|row| {
        let read = reads.get(row.user.as_str()).copied();
        let earlier = read.filter(|_| !planted("earlier_cursor_forgotten"));
        let head =
            last_readable(row, page).map(|last| ReadCursor { seq: Seq(last.seq), ordinal: Ordinal(last.ordinal) });
        let head = head.or(earlier)?;
        let read = read.filter(|read| read.seq <= head.seq);
        // The others of a large conversation have no row to move: their syncs ask for its head.
        if is_large && read.is_none() && !joined_or_left(row, page) {
            return None;
        }
        Some(Move {
            user: row.user.clone(),
            log: log.clone(),
            head: head.seq,
            head_ordinal: head.ordinal,
            read: read.unwrap_or_default(),
            touch: false,
        })
    });
    Ok(moves.collect())
}

/// The worker that owns the log delivers it by gateways.
fn is_large(shared: &Shared, conversation: &Conversation) -> bool {
    let present = conversation.members.iter().filter(|row| row.left_seq.is_none()).count();
    present > shared.config.large_members_min
}

fn joined_or_left(row: &MemberRow, page: &[client::Entry]) -> bool {
    let of_page = |seq: Seq| page.iter().any(|entry| entry.seq == seq.0);
    of_page(row.joined_seq) || row.left_seq.is_some_and(of_page)
}

/// The last entry of the page that lies in the member's time.
fn last_readable<'a>(row: &MemberRow, page: &'a [client::Entry]) -> Option<&'a client::Entry> {
    let left = row.left_seq.map_or(u64::MAX, |left| left.0);
    page.iter().rev().find(|entry| (row.joined_seq.0..=left).contains(&entry.seq))
}

/// Heads and cursors only rise, so the last of each stands for all of the page; the log's own head last, as it is written.
async fn reader_moves(shared: &Shared, log: &LogId, page: &[client::Entry]) -> Result<Vec<Move>, StoreError> {
    let Some(head) = page.last() else { return Ok(Vec::new()) };
    let reader = UserId::parse(&head.sender_user_id).map_err(|_| entry::damaged(log, Seq(head.seq), "a user id"))?;
    let mut cursors: BTreeMap<LogId, ReadCursor> = BTreeMap::new();
    for entry in page {
        if let Some((conversation, cursor)) = read_moved(log, entry)? {
            let furthest = cursors.entry(conversation).or_default();
            if cursor.seq > furthest.seq {
                *furthest = cursor;
            }
        }
    }
    let mut moves = Vec::new();
    for (conversation, cursor) in cursors {
        let others = others(shared, &conversation, &reader).await?;
        moves.extend(others.iter().map(|other| touch(other, &conversation)));
        moves.push(read_move(&reader, conversation, cursor));
    }
    moves.push(own_log_move(&reader, log, Seq(head.seq), Ordinal(head.ordinal)));
    Ok(moves)
}
