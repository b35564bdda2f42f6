//! The logs of entries: the truth of the system. Conversations and users' own logs alike.
//!
//! In: entries whose seq the worker has chosen. Out: the same entries, for ever. Always: two unique keys,
//! `(log, seq)` and `(log, sender, client id)`; an adapter that cannot enforce both refuses to open. The insert itself
//! gives the seq: whoever loses the race for a key has written nothing.

use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{ClientId, Epoch, LogId, Seq, UserId};

/// The largest encoded entry that every log takes: what a server frame may have. A client frame is smaller, so only a gateway
/// with other limits makes a larger one.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;

#[async_trait]
pub trait EntryLog: Send + Sync + 'static {
    /// Names the history of this store. Constant while the store is open; a restored backup has another.
    fn epoch(&self) -> Epoch;

    /// Appends `batch` in its order; the entries may belong to many logs.
    ///
    /// - What is stored of the batch is, for each log, always a prefix of that log's entries in it, also after a crash, an
    ///   error or a power cut.
    /// - `stored` entries from the front are durable when the call returns: no crash or power cut loses them.
    /// - [`Stop::Taken`]: entry number `stored` met a taken key, of either kind (the port does not say which); it and
    ///   everything behind it is not stored.
    /// - [`Stop::Unknown`]: whether entry number `stored` and those after it are stored is not known, and they may still
    ///   land until another entry has taken their seq. Until then the caller answers RETRY or UNKNOWN, never FINAL.
    ///
    /// The caller appends seq n+1 of a log only after n in the same batch, or after n was reported or read as stored.
    async fn append(&self, batch: Vec<NewEntry>) -> Appended;

    /// The last entry of a log, with majority: not one that may yet be rolled back, and not older than anything reported
    /// as stored before the call. `None` for an empty log.
    async fn head(&self, log: &LogId) -> Result<Option<EntryRow>, StoreError>;

    /// The entries of a log from `from` on (or from the first one kept, if that is later), with majority, rising, without a
    /// gap; at most `entries_max` of them, and no more than the
    /// first once their bytes pass `bytes_max`. Empty when `from` is above the head.
    async fn range(
        &self,
        log: &LogId,
        from: Seq,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<EntryRow>, StoreError>;

    /// The entry that `sender` wrote with `client_id`, with majority.
    async fn find(&self, log: &LogId, sender: &UserId, client_id: &ClientId) -> Result<Option<EntryRow>, StoreError>;

    /// A place after every entry whose append was reported before the call. Of two such places the later one's bytes are
    /// not the smaller ones.
    async fn end(&self) -> Result<Cursor, StoreError>;

    /// Whether no log has an entry: false once an append was reported. As long as a deployment is new, who takes shards over has
    /// nothing to ask for.
    async fn is_empty(&self) -> Result<bool, StoreError>;

    /// Names the entries of one shard stored after `after` (`None`: from the very first) and before `until`, an
    /// [`end`](Self::end). At least those, those of one log by rising seq; some from outside may be named too, but whoever
    /// asks on comes to an end while more is stored. Empty when there are no more. Where the order is no longer kept from
    /// `after` on, the answer says so ([`Tail::Forgotten`]).
    async fn tail(
        &self,
        shard: Shard,
        after: Option<&Cursor>,
        until: &Cursor,
        entries_max: usize,
    ) -> Result<Tail, StoreError>;

    /// The logs of a shard that have an entry, by rising id, those behind `after`, at most `limit`: for a projection that is
    /// older than the order still kept. May name a log without an entry.
    async fn logs(&self, shard: Shard, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, StoreError>;

    /// No projection will ask for the order of what was stored in `shards` before `cursor` any more: it may be forgotten.
    /// The entries stay.
    async fn release(&self, shards: &[Shard], cursor: &Cursor) -> Result<(), StoreError>;
}

/// An entry to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub log: LogId,
    pub seq: Seq,
    pub sender: UserId,
    pub client_id: ClientId,
    /// An encoded `StoredEntry`. The adapter keeps it with a checksum and never looks inside.
    pub stored: Bytes,
}

/// How far an append came.
#[derive(Debug)]
pub struct Appended {
    /// This many entries from the front are durable.
    pub stored: usize,
    /// Why not all; `None` exactly when `stored` is the whole batch.
    pub stop: Option<Stop>,
}

#[derive(Debug)]
pub enum Stop {
    Taken,
    Unknown(StoreError),
}

/// An entry as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    pub seq: Seq,
    /// The encoded `StoredEntry`, its checksum verified at this very read.
    pub stored: Bytes,
}

/// A place in the order of storing, meaningful to the adapter that made it. Of two ends the greater one is not the earlier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub Bytes);

/// Entries stored behind a cursor.
#[derive(Debug)]
pub enum Tail {
    Named {
        entries: Vec<(LogId, Seq)>,
        /// Where to go on; the end when `entries` is empty.
        next: Cursor,
    },
    /// The order in which they were stored was released: the projection is rebuilt from the logs themselves.
    Forgotten,
}

/// One of [`Shard::COUNT`] fixed groups of logs. The unit of ownership: a queue partition is some of the shards, so
/// partitions may change in number while what is stored stays valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// Fixed for ever: it is part of what is stored. Also the most partitions a queue can have.
    pub const COUNT: u16 = 256;

    /// The shard of a log: its hash bytes, CRC32C so that ids of any form spread.
    pub fn of(log: &LogId) -> Self {
        Self((crc32c::crc32c(log.as_str().as_bytes()) % u32::from(Self::COUNT)) as u8)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    pub fn index(self) -> u8 {
        self.0
    }
}
