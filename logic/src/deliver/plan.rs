//! Whose inbox moves by a batch, and who gets which entry.
//!
//! In: stored entries, those of a lane together. Out: one run for each log, and the moves of all of them. Always: pure; in a
//! conversation each user's row moves once for the run, to the last entry that the user may read; moves and deliveries
//! follow the same order, so that a user's versions join.

use crate::log_state::Lane;
use crate::persist::Stored;
use crate::planted::planted;
use crate::worker::Shared;
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::{Move, ReadCursor, StoreError};
use std::ops::Range;

pub(super) struct Plan<'a> {
    pub runs: Vec<Run<'a>>,
    stored: &'a [Stored],
}

/// The entries of one log.
pub(super) struct Run<'a> {
    pub log: &'a LogId,
    pub entries: Range<usize>,
    /// Numbers of its moves.
    pub moves: Range<usize>,
    pub kind: RunKind,
}

pub(super) enum RunKind {
    /// One move for each recipient: rising, those who left in this run included.
    Conversation { recipients: Vec<UserId> },
    /// One move for each user who wrote, joined or left: rising.
    Large { movers: Vec<UserId> },
    /// For each entry one move of the conversation's row, one of the log's own, then those of the receipts.
    User { receipts: Vec<Receipts> },
}

/// The others in a conversation whose member has read.
pub(super) struct Receipts {
    users: Vec<UserId>,
    pub moves: Range<usize>,
}

/// Cuts a batch between logs, so that a part moves at most `moves_max` rows, or is one log.
pub(super) fn parts(stored: &[Stored], large_members_min: usize, moves_max: usize) -> impl Iterator<Item = &[Stored]> {
    let mut rest = stored;
    std::iter::from_fn(move || {
        let (mut taken, mut moves) = (0, 0);
        for run in rest.chunk_by(|a, b| a.lane == b.lane) {
            let members = run[run.len() - 1].position.members.present.len();
            moves += if members > large_members_min { run.len() } else { members.max(1) };
            if taken > 0 && moves > moves_max {
                break;
            }
            taken += run.len();
        }
        let (part, behind) = rest.split_at(taken);
        rest = behind;
        (!part.is_empty()).then_some(part)
    })
}

pub(super) fn plan<'a>(
    lanes: &'a [Lane],
    stored: &'a [Stored],
    mut receipts: Vec<Vec<UserId>>,
    large_members_min: usize,
) -> Plan<'a> {
    let mut runs = Vec::new();
    let (mut entry, mut next_move) = (0, 0);
    for chunk in stored.chunk_by(|a, b| a.lane == b.lane) {
        let entries = entry..entry + chunk.len();
        let log = &lanes[chunk[0].lane].log;
        let first_move = next_move;
        let kind = if log.kind() == Some(LogKind::User) {
            next_move += chunk.len() + 1;
            let receipts = receipts[entries.clone()].iter_mut().map(|users| {
                let users = std::mem::take(users);
                let moves = next_move..next_move + users.len();
                next_move = moves.end;
                Receipts { users, moves }
            });
            RunKind::User { receipts: receipts.collect() }
        } else if chunk[chunk.len() - 1].position.members.present.len() > large_members_min {
            let movers = movers(chunk);
            next_move += movers.len();
            RunKind::Large { movers }
        } else {
            let recipients = recipients(chunk);
            next_move += recipients.len();
            RunKind::Conversation { recipients }
        };
        runs.push(Run { log, entries: entries.clone(), moves: first_move..next_move, kind });
        entry = entries.end;
    }
    Plan { runs, stored }
}

impl Plan<'_> {
    pub fn has_large(&self) -> bool {
        self.runs.iter().any(|run| matches!(run.kind, RunKind::Large { .. }))
    }

    /// All moves in order, and the user of each.
    pub fn moves(&self) -> (Vec<Move>, Vec<UserId>) {
        let count = self.runs.last().map_or(0, |run| run.moves.end);
        let mut moves = Vec::with_capacity(count);
        for run in &self.runs {
            let entries = &self.stored[run.entries.clone()];
            match &run.kind {
                RunKind::Conversation { recipients: users } | RunKind::Large { movers: users } => {
                    conversation_moves(run.log, entries, users, &mut moves)
                }
                RunKind::User { receipts } => user_moves(run.log, entries, receipts, &mut moves),
            }
            debug_assert_eq!(moves.len(), run.moves.end);
        }
        let users = moves.iter().map(|moved: &Move| moved.user.clone()).collect();
        (moves, users)
    }
}

/// The members behind the last entry, and those who left on the way.
fn recipients(entries: &[Stored]) -> Vec<UserId> {
    let last = &entries[entries.len() - 1];
    let mut recipients = last.position.members.present.clone();
    let gone = entries.iter().filter_map(|entry| entry.change.as_ref()).flat_map(|change| &change.left);
    let before = recipients.len();
    recipients.extend(gone.cloned());
    if recipients.len() > before {
        recipients.sort_unstable();
        recipients.dedup();
    }
    recipients
}

/// Whose rows move in a large conversation: the senders', and those of all who joined or left.
fn movers(entries: &[Stored]) -> Vec<UserId> {
    let changed = entries.iter().filter_map(|entry| entry.change.as_ref());
    let changed = changed.flat_map(|change| change.joined.iter().chain(&change.left));
    let mut movers: Vec<UserId> = entries.iter().map(|entry| &entry.sender).chain(changed).cloned().collect();
    movers.sort_unstable();
    movers.dedup();
    movers
}

fn conversation_moves(log: &LogId, entries: &[Stored], recipients: &[UserId], moves: &mut Vec<Move>) {
    let first = moves.len();
    let last = &entries[entries.len() - 1].position;
    moves.extend(recipients.iter().map(|user| Move {
        user: user.clone(),
        log: log.clone(),
        head: last.head,
        head_ordinal: last.ordinal,
        read: ReadCursor::default(),
        touch: false,
    }));
    for entry in entries {
        // Who left and is not back reads no further than the leaving.
        for user in entry.change.iter().flat_map(|change| &change.left) {
            if let (Ok(at), false) = (recipients.binary_search(user), last.members.contains(user)) {
                moves[first + at].head = entry.position.head;
                moves[first + at].head_ordinal = entry.position.ordinal;
            }
        }
        // Whoever writes has read what was there.
        if let Ok(at) = recipients.binary_search(&entry.sender)
            && !planted("sender_not_read")
        {
            moves[first + at].read = ReadCursor { seq: entry.position.head, ordinal: entry.position.ordinal };
        }
    }
}

fn user_moves(log: &LogId, entries: &[Stored], receipts: &[Receipts], moves: &mut Vec<Move>) {
    let last = &entries[entries.len() - 1];
    for entry in entries {
        let read = entry.read_moved.clone();
        let (conversation, cursor) = read.unwrap_or_else(|| (log.clone(), ReadCursor::default()));
        moves.push(read_move(&entry.sender, conversation, cursor));
    }
    moves.push(own_log_move(&last.sender, log, last.position.head, last.position.ordinal));
    for (entry, receipts) in entries.iter().zip(receipts) {
        if let Some((conversation, _)) = &entry.read_moved {
            moves.extend(receipts.users.iter().map(|user| touch(user, conversation)));
        }
    }
}

/// The reader's own cursor. The head is left to the worker that owns the conversation: if it moved here, that worker's own
/// move would change nothing, and a lost push would go unnoticed.
pub(crate) fn read_move(reader: &UserId, conversation: LogId, read: ReadCursor) -> Move {
    Move { user: reader.clone(), log: conversation, head: Seq(0), head_ordinal: Ordinal(0), read, touch: false }
}

/// The row of a user's own log.
pub(crate) fn own_log_move(user: &UserId, log: &LogId, head: Seq, head_ordinal: Ordinal) -> Move {
    Move { user: user.clone(), log: log.clone(), head, head_ordinal, read: ReadCursor::default(), touch: false }
}

/// Somebody else's cursor moved: a lost receipt is then repaired by sync.
pub(crate) fn touch(user: &UserId, conversation: &LogId) -> Move {
    let read = ReadCursor::default();
    Move { user: user.clone(), log: conversation.clone(), head: Seq(0), head_ordinal: Ordinal(0), read, touch: true }
}

/// Nobody hears of cursors in a conversation with more present members.
pub(crate) fn receipts_members_max(shared: &Shared) -> usize {
    shared.config.receipts_members_max.min(shared.config.large_members_min)
}

/// The members who are told that `reader` has read; nobody in one with more than receipts are for, nor for a reader who left it.
pub(crate) async fn others(shared: &Shared, conversation: &LogId, reader: &UserId) -> Result<Vec<UserId>, StoreError> {
    let members_max = receipts_members_max(shared);
    let listed = shared.ports.directory.members(conversation, None, members_max + 1).await?;
    let members = listed.map(|listed| listed.members).unwrap_or_default();
    if members.len() > members_max || !members.iter().any(|member| member.user == *reader) {
        return Ok(Vec::new());
    }
    Ok(members.into_iter().map(|member| member.user).filter(|user| user != reader).collect())
}

/// Which recipients of a run get which of its entries.
pub(super) struct Audience<'a> {
    run: &'a [Stored],
    recipients: &'a [UserId],
    /// For each recipient the last entry that it gets. `None`: no membership changed in the run, which is nearly always,
    /// and everybody gets everything.
    last: Option<Vec<usize>>,
}

impl<'a> Audience<'a> {
    pub fn new(run: &'a [Stored], recipients: &'a [UserId]) -> Self {
        let changed = run.iter().any(|entry| entry.change.is_some());
        let last = changed.then(|| {
            let last_of = |user| run.iter().rposition(|entry| may_read(entry, user)).unwrap_or(0);
            recipients.iter().map(last_of).collect()
        });
        Self { run, recipients, last }
    }

    pub fn gets(&self, recipient: usize, entry: usize) -> bool {
        self.last.is_none() || may_read(&self.run[entry], &self.recipients[recipient])
    }

    pub fn is_last(&self, recipient: usize, entry: usize) -> bool {
        match &self.last {
            Some(last) => last[recipient] == entry,
            None => entry + 1 == self.run.len(),
        }
    }
}

/// A member behind the entry, or one who left by it.
fn may_read(entry: &Stored, user: &UserId) -> bool {
    entry.position.members.contains(user) || entry.change.iter().any(|change| change.left.contains(user))
}
