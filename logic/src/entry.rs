//! Entries between their typed and their stored form.
//!
//! In: an entry and the hash of the command that wrote it, or a row of the entry log. Out: the other. Always: the entry's
//! bytes are made once and kept; a row that does not decode is damage, named by its place.

use crate::log_state::{Position, QueuePlace};
use bytes::Bytes;
use im_proto::{LogId, Seq, client, internal};
use im_storage::ports::{EntryRow, Offset, Partition, StoreError};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// SHA-256 over a command's kind and content, first 16 bytes. Two commands with one id but another hash conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentHash([u8; 16]);

impl ContentHash {
    /// Each part behind its length, so that parts cannot run into each other.
    pub fn of<'a>(kind: &'static str, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(kind.as_bytes()).chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hash.finalize()[..16]);
        Self(first)
    }

    fn stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// A row of the entry log, decoded.
#[derive(Debug)]
pub(crate) struct ReadEntry {
    pub entry: client::Entry,
    /// The same, as it lies in the store.
    pub bytes: Bytes,
    pub content_hash: ContentHash,
    pub members_seq: Seq,
    /// The record that made it.
    pub record: Option<QueuePlace>,
}

pub(crate) fn read(log: &LogId, row: &EntryRow) -> Result<ReadEntry, StoreError> {
    let stored = internal::StoredEntry::decode(row.stored.clone())
        .map_err(|_| damaged(log, row.seq, "the frame of the entry"))?;
    let entry = client::Entry::decode(stored.entry.clone()).map_err(|_| damaged(log, row.seq, "the entry"))?;
    if entry.seq != row.seq.0 {
        return Err(damaged(log, row.seq, "the seq"));
    }
    let content_hash =
        ContentHash::stored(&stored.content_hash).ok_or_else(|| damaged(log, row.seq, "the content hash"))?;
    let (bytes, members_seq) = (stored.entry, Seq(stored.members_seq));
    let offset = stored.offset_after.checked_sub(1);
    let record = offset.map(|at| QueuePlace { partition: Partition(stored.partition), offset: Offset(at) });
    Ok(ReadEntry { entry, bytes, content_hash, members_seq, record })
}

/// The last entry, up to and including this one, that changed the log's members.
pub(crate) fn members_seq(log: &LogId, row: &EntryRow) -> Result<Seq, StoreError> {
    let stored = internal::StoredEntry::decode(row.stored.clone())
        .map_err(|_| damaged(log, row.seq, "the frame of the entry"))?;
    Ok(Seq(stored.members_seq))
}

/// How many members the log has behind this entry.
pub(crate) fn members(log: &LogId, row: &EntryRow) -> Result<usize, StoreError> {
    let stored = internal::StoredEntry::decode(row.stored.clone())
        .map_err(|_| damaged(log, row.seq, "the frame of the entry"))?;
    Ok(stored.members as usize)
}

/// Only the entry's bytes, for those who hand them on.
pub(crate) fn bytes(log: &LogId, row: EntryRow) -> Result<Bytes, StoreError> {
    let stored =
        internal::StoredEntry::decode(row.stored).map_err(|_| damaged(log, row.seq, "the frame of the entry"))?;
    Ok(stored.entry)
}

/// The encoded `StoredEntry`; `position` is the log's behind it.
pub(crate) fn stored(entry: &Bytes, content_hash: ContentHash, position: &Position) -> Bytes {
    let stored = internal::StoredEntry {
        entry: entry.clone(),
        content_hash: Bytes::copy_from_slice(&content_hash.0),
        members_seq: position.members_seq.0,
        members: position.members.present.len() as u32,
        partition: position.decided.map_or(0, |record| record.partition.0),
        offset_after: position.decided.map_or(0, |record| record.offset.0 + 1),
    };
    stored.encode_to_vec().into()
}

pub(crate) fn damaged(log: &LogId, seq: Seq, what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} of log {log} seq {seq}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_kinds_make_different_hashes() {
        let hash = |kind: &'static str, parts: &[&str]| ContentHash::of(kind, parts.iter().map(|part| part.as_bytes()));
        assert_eq!(hash("send", &["a"]), hash("send", &["a"]));
        let all = [hash("send", &["a"]), hash("leave", &["a"]), hash("send", &["a", ""]), hash("send", &["", "a"])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }

    #[test]
    fn a_stored_entry_reads_back_and_a_wrong_seq_is_damage() {
        let log = LogId::parse("x").unwrap();
        let entry = client::Entry { seq: 4, ordinal: 2, ..Default::default() };
        let bytes = Bytes::from(entry.encode_to_vec());
        let hash = ContentHash::of("send", []);
        let decided = Some(QueuePlace { partition: Partition(3), offset: Offset(0) });
        let position = Position { members_seq: Seq(1), decided, ..Position::default() };
        let row = |seq| EntryRow { seq: Seq(seq), stored: stored(&bytes, hash, &position) };
        let read_back = read(&log, &row(4)).unwrap();
        assert_eq!(read_back.record, decided);
        assert_eq!((read_back.entry, read_back.content_hash, read_back.members_seq), (entry, hash, Seq(1)));
        assert!(matches!(read(&log, &row(5)), Err(StoreError::Damaged(_))));
    }
}
