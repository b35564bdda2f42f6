//! A log that ends before a place that somebody has read.
//!
//! In: the log's last entry, and the furthest read cursor that the directory remembers: who sends has read what it sent. Out:
//! tombstones up to that cursor, or nothing where the log is whole. Always: a seq that a device has seen with one content
//! never comes again with another (C3, F43): an administrator, or a backup of the entries alone, took the newest ones away.

use super::load::{members, read_head};
use crate::entry::{self, ContentHash, ReadEntry};
use crate::log_state::Position;
use crate::metrics::add;
use crate::planted::planted;
use crate::worker::{Ports, Shared};
use im_proto::client::entry::Content;
use im_proto::client::{Entry, Tombstone};
use im_proto::{ClientId, LogId, Ordinal, Seq};
use im_storage::ports::{NewEntry, ReadMark, Stop, StoreError};
use prost::Message as _;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// Of one log. More are no accident that a worker mends by itself.
const LOST_ENTRIES_MAX: u64 = 100_000;
const APPENDED_AT_ONCE: usize = 500;

/// Of a log that others fill up, or write, at the same moment.
const ATTEMPTS_MAX: usize = 4;

/// The last entry, which lies at nothing less than the cursor.
pub(super) async fn mend(
    shared: &Shared,
    log: &LogId,
    mut head: Option<ReadEntry>,
    furthest: &ReadMark,
) -> Result<Option<ReadEntry>, StoreError> {
    for _ in 0..ATTEMPTS_MAX {
        if lost(head.as_ref(), furthest) == 0 {
            return Ok(head);
        }
        // Read beside the cursor it may be the older of the two: what it lacks may have been stored in between.
        head = read_head(&shared.ports, log).await?;
        if lost(head.as_ref(), furthest) == 0 {
            return Ok(head);
        }
        let written = fill(&shared.ports, log, head.as_ref(), furthest).await?;
        add(&shared.metrics.lost_entries, written);
    }
    Err(StoreError::Unavailable(format!("the end of log {log} moves while it is filled up")))
}

fn lost(head: Option<&ReadEntry>, furthest: &ReadMark) -> u64 {
    let last = head.map_or(0, |head| head.entry.seq);
    if planted("lost_end_reused") { 0 } else { furthest.read.seq.0.saturating_sub(last) }
}

/// How many tombstones were written; then the log is to be read anew.
async fn fill(ports: &Ports, log: &LogId, head: Option<&ReadEntry>, furthest: &ReadMark) -> Result<usize, StoreError> {
    let last = head.map_or(0, |head| head.entry.seq);
    tracing::error!(%log, last, furthest = furthest.read.seq.0, "the newest entries of a log are gone; tombstones take their places");
    if lost(head, furthest) > LOST_ENTRIES_MAX {
        return Err(entry::damaged(log, Seq(last + 1), "too many entries are gone from the end"));
    }
    // No client can have used such an id before.
    let attempt = RandomState::new().hash_one(log.as_str());
    let mut place = place(ports, log, head).await?;
    let mut missing = Vec::new();
    for seq in last + 1..=furthest.read.seq.0 {
        let entry = tombstone(seq, &place, furthest, head);
        place = place.behind(&entry, None, None);
        missing.push(NewEntry {
            log: log.clone(),
            seq: Seq(seq),
            sender: furthest.user.clone(),
            client_id: ClientId::parse(&format!("lost-{seq}-{attempt:016x}"))
                .map_err(|_| entry::damaged(log, Seq(seq), "no id for a tombstone"))?,
            stored: entry::stored(&entry.encode_to_vec().into(), ContentHash::of("lost", []), &place),
        });
    }
    append(ports, missing).await
}

/// Behind the last entry, with the members that the directory knows: it may have heard of changes that are gone.
async fn place(ports: &Ports, log: &LogId, head: Option<&ReadEntry>) -> Result<Position, StoreError> {
    let members_seq = head.map_or(Seq(0), |head| head.members_seq);
    let members = members(ports, log, members_seq).await?;
    let applied = ports.directory.conversation(log).await?.map_or(Seq(0), |known| known.header.applied_seq);
    Ok(Position {
        head: head.map_or(Seq(0), |head| Seq(head.entry.seq)),
        ordinal: head.map_or(Ordinal(0), |head| Ordinal(head.entry.ordinal)),
        members_seq: members_seq.max(applied),
        members: Arc::new(members),
        decided: head.and_then(|head| head.record),
        ..Position::default()
    })
}

/// As far as it is known each was a message, but no more than the cursor has counted.
fn tombstone(seq: u64, before: &Position, furthest: &ReadMark, head: Option<&ReadEntry>) -> Entry {
    let counted = furthest.read.ordinal.0.max(before.ordinal.0);
    Entry {
        seq,
        ordinal: counted.min(before.ordinal.0 + 1),
        server_time_ms: head.map_or(0, |head| head.entry.server_time_ms),
        content: Some(Content::Tombstone(Tombstone {})),
        ..Entry::default()
    }
}

/// How many were stored. Another owner may be at the same: then the log is as it left it.
async fn append(ports: &Ports, mut missing: Vec<NewEntry>) -> Result<usize, StoreError> {
    let mut stored = 0;
    while !missing.is_empty() {
        let rest = missing.split_off(missing.len().min(APPENDED_AT_ONCE));
        let appended = ports.log.append(missing).await;
        stored += appended.stored;
        match appended.stop {
            None => missing = rest,
            Some(Stop::Taken) => break,
            Some(Stop::Unknown(error)) => return Err(error),
        }
    }
    Ok(stored)
}
