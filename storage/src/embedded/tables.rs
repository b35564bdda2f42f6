//! What the store's file holds: its tables, their keys, and the rows' bytes.
//!
//! In: ids and numbers. Out: keys and rows, and back. Always: keys sort as their parts do (an id is ended by a zero
//! byte, which no id contains; numbers are big-endian); a row that does not decode is damage, never a panic.

use crate::ports::StoreError;
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};

/// One table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The store's own facts; see [`meta`].
    Meta,
    /// position → entries as they were stored, until `Entries` and `ClientIds` have them.
    Pending,
    /// (log, seq) → checksum and entry.
    Entries,
    /// hash of (log, sender, client id) → seq and checksum.
    ClientIds,
    /// position → what was stored there, some entries a row.
    Journal,
    /// log → applied seq, creator, peer, name.
    Conversations,
    /// (log, user) → their time in it.
    Members,
    /// (user, log) → nothing: the other direction of `Members`.
    MemberOf,
    /// (log, user) → how far the user has read.
    Reads,
    /// (user, device) → platform.
    Devices,
    /// (user, log) → what moved; (user, nothing) → the user's version.
    Inbox,
    /// A relation's key → its value.
    Relations,
}

impl Place {
    pub const ALL: [Self; 12] = [
        Self::Meta,
        Self::Pending,
        Self::Entries,
        Self::ClientIds,
        Self::Journal,
        Self::Conversations,
        Self::Members,
        Self::MemberOf,
        Self::Reads,
        Self::Devices,
        Self::Inbox,
        Self::Relations,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Pending => "pending",
            Self::Entries => "entries",
            Self::ClientIds => "client_ids",
            Self::Journal => "journal",
            Self::Conversations => "conversations",
            Self::Members => "members",
            Self::MemberOf => "member_of",
            Self::Reads => "reads",
            Self::Devices => "devices",
            Self::Inbox => "inbox",
            Self::Relations => "relations",
        }
    }

    pub fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }
}

/// Keys of [`Place::Meta`].
pub mod meta {
    /// u32: the layout of everything here.
    pub const FORMAT: &[u8] = b"format";
    /// u64: the name of this history.
    pub const EPOCH: &[u8] = b"epoch";
    /// 16 random bytes: the key of the hash behind [`super::Place::ClientIds`].
    pub const HASH_KEY: &[u8] = b"hash_key";
    /// u64, u64: number of the last durable commit; the journal position behind everything stored.
    pub const STATE: &[u8] = b"state";
    /// u64: `entries` and `client_ids` have everything before this position.
    pub const INDEXED: &[u8] = b"indexed";
    /// A u64 per shard, of each projection: 0, or one more than the journal position that the shard is covered to.
    pub const COVERED_BY_DIRECTORY: &[u8] = b"covered_by_directory";
    pub const COVERED_BY_INBOX: &[u8] = b"covered_by_inbox";
    /// The same of the journal: what lies before is no longer asked for.
    pub const RELEASED: &[u8] = b"released";
    /// u64: no inbox version at or above it was ever given out.
    pub const VERSIONS_RESERVED: &[u8] = b"versions_reserved";
}

pub type WriteTable<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;
pub type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The tables of one write transaction, each opened at its first use.
pub struct Tables<'txn> {
    txn: &'txn WriteTransaction,
    open: [Option<WriteTable<'txn>>; Place::ALL.len()],
}

impl<'txn> Tables<'txn> {
    pub fn new(txn: &'txn WriteTransaction) -> Self {
        Self { txn, open: [const { None }; Place::ALL.len()] }
    }

    pub fn open(&mut self, place: Place) -> Result<&mut WriteTable<'txn>, redb::Error> {
        let slot = &mut self.open[place as usize];
        match slot {
            Some(table) => Ok(table),
            None => Ok(slot.insert(self.txn.open_table(place.definition())?)),
        }
    }
}

/// A table to read; `None` while nothing was ever written to it.
pub fn open_to_read(txn: &ReadTransaction, place: Place) -> Result<Option<ReadTable>, redb::Error> {
    match txn.open_table(place.definition()) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The row of `key`, copied; `None` also while the table does not exist.
pub fn read_row(txn: &ReadTransaction, place: Place, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let Some(table) = open_to_read(txn, place)? else { return Ok(None) };
    Ok(table.get(key)?.map(|row| row.value().to_vec()))
}

/// What an engine error means to a caller of a port.
pub fn store_error(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(what) => StoreError::Damaged(format!("the store's file: {what}")),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// `id` and its end: the prefix of every key that begins with it.
pub fn prefix(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 9);
    key.extend_from_slice(id.as_bytes());
    key.push(0);
    key
}

/// (id, number)
pub fn numbered(id: &str, number: u64) -> Vec<u8> {
    let mut key = prefix(id);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// (id, id)
pub fn pair(first: &str, second: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + 1 + second.len());
    key.extend_from_slice(first.as_bytes());
    key.push(0);
    key.extend_from_slice(second.as_bytes());
    key
}

/// The first key behind every key that starts with `prefix(id)`.
pub fn prefix_end(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 1);
    key.extend_from_slice(id.as_bytes());
    key.push(1);
    key
}

/// Reads a row part by part. Little-endian numbers, texts behind their length.
pub struct Parts<'row> {
    rest: &'row [u8],
    place: &'static str,
}

impl<'row> Parts<'row> {
    pub fn new(row: &'row [u8], place: Place) -> Self {
        Self { rest: row, place: place.name() }
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged(format!("a row of table {} does not decode", self.place))
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'row [u8], StoreError> {
        let (part, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(part)
    }

    pub fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(self.bytes(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32, StoreError> {
        let part = self.bytes(4)?.try_into().map_err(|_| self.damaged())?;
        Ok(u32::from_le_bytes(part))
    }

    pub fn u64(&mut self) -> Result<u64, StoreError> {
        let part = self.bytes(8)?.try_into().map_err(|_| self.damaged())?;
        Ok(u64::from_le_bytes(part))
    }

    pub fn text(&mut self) -> Result<&'row str, StoreError> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| self.damaged())
    }

    /// An id, in whatever newtype.
    pub fn id<T>(&mut self, parse: impl FnOnce(&str) -> Result<T, im_proto::InvalidId>) -> Result<T, StoreError> {
        let length = usize::from(self.u8()?);
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| self.damaged())?;
        parse(text).map_err(|_| self.damaged())
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The id behind the prefix of a [`pair`] key.
pub fn second_of_pair<T>(
    key: &[u8],
    first: &str,
    place: Place,
    parse: impl FnOnce(&str) -> Result<T, im_proto::InvalidId>,
) -> Result<T, StoreError> {
    let damaged = || StoreError::Damaged(format!("a key of table {} does not decode", place.name()));
    let second = key.get(first.len() + 1..).ok_or_else(damaged)?;
    let text = std::str::from_utf8(second).map_err(|_| damaged())?;
    parse(text).map_err(|_| damaged())
}

/// Writes an id behind its length, as [`Parts::id`] reads it. An id has at most 64 bytes.
pub fn put_id(row: &mut Vec<u8>, id: &str) {
    row.push(id.len() as u8);
    row.extend_from_slice(id.as_bytes());
}

/// Writes a text behind its length, as [`Parts::text`] reads it.
pub fn put_text(row: &mut Vec<u8>, text: &str) {
    row.extend_from_slice(&(text.len() as u32).to_le_bytes());
    row.extend_from_slice(text.as_bytes());
}
