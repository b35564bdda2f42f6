//! The directory on the embedded store.
//!
//! In: membership changes with their seqs. Out: conversations, members, devices. Always: a change is applied whole in
//! one transaction; at or below the conversation's `applied_seq` it does nothing; not synced by itself, the next synced
//! commit carries it.

use super::{
    claims::Claims,
    engine::Engine,
    tables::{self, Parts, Place, Tables, meta, open_to_read, put_id, put_text, second_of_pair, store_error},
    writer::{Sync, WriteError, Writer},
};
use crate::planted::planted;
use crate::ports::{
    Claim, Conversation, Covered, Created, Cursor, Device, Directory, Header, MemberRow, Membership, MembershipChange,
    Projection, ReadCursor, ReadMark, Shard, StoreError,
};
use async_trait::async_trait;
use im_proto::{DeviceId, LogId, LogKind, Ordinal, Seq, UserId};
use redb::{ReadTransaction, ReadableTable};
use std::{collections::BTreeSet, ops::Bound, sync::Arc};

pub struct EmbeddedDirectory {
    engine: Arc<Engine>,
    writer: Writer,
    claims: Claims,
}

impl EmbeddedDirectory {
    pub fn new(engine: Arc<Engine>, writer: Writer) -> Self {
        Self { engine, writer, claims: Claims::new(meta::COVERED_BY_DIRECTORY) }
    }
}

#[async_trait]
impl Directory for EmbeddedDirectory {
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError> {
        let txn = self.engine.read()?;
        let Some(header) = read_header(&txn, log)? else { return Ok(None) };
        let members = read_members(&txn, log, None, |_| true, usize::MAX)?;
        Ok(Some(Conversation { header, members }))
    }

    async fn memberships(&self, user: &UserId, logs: &[LogId]) -> Result<Vec<Option<Membership>>, StoreError> {
        let txn = self.engine.read()?;
        logs.iter().map(|log| read_membership(&txn, log, user)).collect()
    }

    async fn members(
        &self,
        log: &LogId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Conversation>, StoreError> {
        let txn = self.engine.read()?;
        let Some(header) = read_header(&txn, log)? else { return Ok(None) };
        let members = read_members(&txn, log, after, |row| row.left_seq.is_none(), limit)?;
        Ok(Some(Conversation { header, members }))
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError> {
        let mut logs = Vec::new();
        scan(&self.engine.read()?, Place::MemberOf, user.as_str(), after.map(LogId::as_str), |key, _| {
            if logs.len() == limit {
                return Ok(false);
            }
            logs.push(second_of_pair(key, user.as_str(), Place::MemberOf, LogId::parse)?);
            Ok(true)
        })?;
        Ok(logs)
    }

    async fn large_conversations(
        &self,
        user: &UserId,
        members_min: usize,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Membership)>, StoreError> {
        let txn = self.engine.read()?;
        let mut large = Vec::new();
        scan(&txn, Place::MemberOf, user.as_str(), after.map(LogId::as_str), |key, _| {
            if large.len() == limit {
                return Ok(false);
            }
            let log = second_of_pair(key, user.as_str(), Place::MemberOf, LogId::parse)?;
            // Two members at most: not worth a look at its rows.
            if log.kind() == Some(LogKind::Direct) {
                return Ok(true);
            }
            if let Some((header, members)) = read_counted(&txn, &log)?
                && members as usize > members_min
                && let Some(row) = read_member(&txn, &log, user)?
                && row.left_seq.is_none()
            {
                large.push((log, Membership { header, row }));
            }
            Ok(true)
        })?;
        Ok(large)
    }

    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<Vec<LogId>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let rows = changes.iter().map(|change| 1 + 2 * change.joined.len() + change.left.len()).sum();
        let apply = move |tables: &mut Tables<'_>, _: &mut _| {
            let mut lagging = BTreeSet::new();
            for change in &changes {
                if !lagging.contains(&change.log) && !apply(tables, change)? {
                    lagging.insert(change.log.clone());
                }
            }
            Ok(lagging.into_iter().collect())
        };
        self.writer.write(Sync::Later, rows, apply).await
    }

    async fn record_reads(&self, reads: Vec<ReadMark>) -> Result<(), StoreError> {
        if reads.is_empty() {
            return Ok(());
        }
        let rows = reads.len();
        let record = move |tables: &mut Tables<'_>, _: &mut _| {
            let table = tables.open(Place::Reads)?;
            for ReadMark { log, user, read } in &reads {
                let key = tables::pair(log.as_str(), user.as_str());
                let known = table.get(key.as_slice())?.map(|row| decode_read(row.value())).transpose()?;
                if known.is_none_or(|known| known.seq < read.seq) {
                    table.insert(
                        key.as_slice(),
                        [read.seq.0, read.ordinal.0].map(u64::to_le_bytes).concat().as_slice(),
                    )?;
                }
            }
            Ok(())
        };
        self.writer.write(Sync::Later, rows, record).await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        let txn = self.engine.read()?;
        let read = |(log, user): &(LogId, UserId)| {
            let row = tables::read_row(&txn, Place::Reads, &tables::pair(log.as_str(), user.as_str()));
            Ok(row.map_err(store_error)?.map(|row| decode_read(&row)).transpose()?.unwrap_or_default())
        };
        of.iter().map(read).collect()
    }

    async fn furthest_read(&self, log: &LogId) -> Result<Option<ReadMark>, StoreError> {
        let mut furthest: Option<ReadMark> = None;
        scan(&self.engine.read()?, Place::Reads, log.as_str(), None, |key, row| {
            let read = decode_read(row)?;
            if furthest.as_ref().is_none_or(|known| known.read.seq < read.seq) {
                let user = second_of_pair(key, log.as_str(), Place::Reads, UserId::parse)?;
                furthest = Some(ReadMark { log: log.clone(), user, read });
            }
            Ok(true)
        })?;
        Ok(furthest)
    }

    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError> {
        let key = tables::pair(user.as_str(), device.id.as_str());
        let known = tables::read_row(&self.engine.read()?, Place::Devices, &key).map_err(store_error)?;
        if known.is_some_and(|platform| platform == device.platform.as_bytes()) {
            return Ok(());
        }
        let record = move |tables: &mut Tables<'_>, _: &mut _| {
            tables.open(Place::Devices)?.insert(key.as_slice(), device.platform.as_bytes())?;
            Ok(())
        };
        self.writer.write(Sync::Later, 1, record).await
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let mut devices = Vec::new();
        scan(&self.engine.read()?, Place::Devices, user.as_str(), None, |key, row| {
            let id = second_of_pair(key, user.as_str(), Place::Devices, DeviceId::parse)?;
            devices.push(Device { id, platform: String::from_utf8_lossy(row).into_owned() });
            Ok(true)
        })?;
        Ok(devices)
    }
}

#[async_trait]
impl Projection for EmbeddedDirectory {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        self.claims.claim(shards, &self.engine.read()?)
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        self.claims.cover(claim, cursor, &self.writer).await
    }
}

fn read_header(txn: &ReadTransaction, log: &LogId) -> Result<Option<Header>, StoreError> {
    let row = tables::read_row(txn, Place::Conversations, log.as_str().as_bytes()).map_err(store_error)?;
    Ok(row.map(|row| decode_header(&row)).transpose()?.map(|counted| counted.header))
}

/// The header, and how many members are present.
fn read_counted(txn: &ReadTransaction, log: &LogId) -> Result<Option<(Header, u32)>, StoreError> {
    let row = tables::read_row(txn, Place::Conversations, log.as_str().as_bytes()).map_err(store_error)?;
    let Some(Counted { header, members }) = row.map(|row| decode_header(&row)).transpose()? else { return Ok(None) };
    let members = match members {
        Some(members) => members,
        None => read_members(txn, log, None, |row| row.left_seq.is_none(), usize::MAX)?.len() as u32,
    };
    Ok(Some((header, members)))
}

fn read_member(txn: &ReadTransaction, log: &LogId, user: &UserId) -> Result<Option<MemberRow>, StoreError> {
    let key = tables::pair(log.as_str(), user.as_str());
    let row = tables::read_row(txn, Place::Members, &key).map_err(store_error)?;
    row.map(|row| decode_member(user.clone(), &row)).transpose()
}

fn read_membership(txn: &ReadTransaction, log: &LogId, user: &UserId) -> Result<Option<Membership>, StoreError> {
    let Some(row) = read_member(txn, log, user)? else { return Ok(None) };
    let header = read_header(txn, log)?;
    let header = header.ok_or_else(|| StoreError::Damaged(format!("log {log} has members and no conversation")))?;
    Ok(Some(Membership { header, row }))
}

/// Shows `each` the rows whose key begins with `first`, those behind (`first`, `after`), until it answers false.
fn scan(
    txn: &ReadTransaction,
    place: Place,
    first: &str,
    after: Option<&str>,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let engine = |error: redb::StorageError| store_error(error.into());
    let Some(table) = open_to_read(txn, place).map_err(store_error)? else { return Ok(()) };
    let start = tables::pair(first, after.unwrap_or_default());
    let end = tables::prefix_end(first);
    // No id is empty, so without `after` the start itself is no row.
    let range = (Bound::Excluded(start.as_slice()), Bound::Excluded(end.as_slice()));
    for row in table.range::<&[u8]>(range).map_err(engine)? {
        let (key, row) = row.map_err(engine)?;
        if !each(key.value(), row.value())? {
            break;
        }
    }
    Ok(())
}

fn read_members(
    txn: &ReadTransaction,
    log: &LogId,
    after: Option<&UserId>,
    wanted: impl Fn(&MemberRow) -> bool,
    limit: usize,
) -> Result<Vec<MemberRow>, StoreError> {
    let mut members = Vec::new();
    scan(txn, Place::Members, log.as_str(), after.map(UserId::as_str), |key, row| {
        if members.len() == limit {
            return Ok(false);
        }
        let user = second_of_pair(key, log.as_str(), Place::Members, UserId::parse)?;
        members.extend(Some(decode_member(user, row)?).filter(&wanted));
        Ok(true)
    })?;
    Ok(members)
}

/// False: a change before it is lacking, and nothing was done.
fn apply(tables: &mut Tables<'_>, change: &MembershipChange) -> Result<bool, WriteError> {
    let log = change.log.as_str();
    let known = tables.open(Place::Conversations)?.get(log.as_bytes())?.map(|row| decode_header(row.value()));
    let Counted { mut header, members: counted } = match (known.transpose()?, &change.created) {
        (Some(known), _) => known,
        (None, Some(created)) => {
            let header = Header { created: created.clone(), applied_seq: Seq(0) };
            Counted { header, members: Some(0) }
        }
        (None, None) if change.after > Seq(0) => return Ok(false),
        (None, None) => {
            return Err(StoreError::Damaged(format!("log {log} changes its members and was never created")).into());
        }
    };
    if change.seq <= header.applied_seq {
        return Ok(true);
    }
    if change.after > header.applied_seq && !planted("applied_over_a_hole") {
        return Ok(false);
    }
    header.applied_seq = change.seq;
    let mut present = match counted {
        Some(members) => members,
        None => count_present(tables, log)?,
    };
    for user in &change.joined {
        let key = tables::pair(log, user.as_str());
        let members = tables.open(Place::Members)?;
        let is_present = match members.get(key.as_slice())? {
            Some(row) => decode_member(user.clone(), row.value())?.left_seq.is_none(),
            None => false,
        };
        if !is_present {
            let row = encode_member(change.seq, change.joined_ordinal, None);
            members.insert(key.as_slice(), row.as_slice())?;
            tables.open(Place::MemberOf)?.insert(tables::pair(user.as_str(), log).as_slice(), [].as_slice())?;
            present += 1;
        }
    }
    for user in &change.left {
        let key = tables::pair(log, user.as_str());
        let members = tables.open(Place::Members)?;
        let Some(row) = members.get(key.as_slice())?.map(|row| row.value().to_vec()) else { continue };
        let member = decode_member(user.clone(), &row)?;
        if member.left_seq.is_none() {
            let row = encode_member(member.joined_seq, member.joined_ordinal, Some(change.seq));
            members.insert(key.as_slice(), row.as_slice())?;
            present = present.saturating_sub(1);
        }
    }
    let row = encode_header(&header, present);
    tables.open(Place::Conversations)?.insert(log.as_bytes(), row.as_slice())?;
    Ok(true)
}

/// Of a row that an earlier version wrote, which did not count.
fn count_present(tables: &mut Tables<'_>, log: &str) -> Result<u32, WriteError> {
    let (start, end) = (tables::prefix(log), tables::prefix_end(log));
    let mut present = 0;
    for row in tables.open(Place::Members)?.range::<&[u8]>(start.as_slice()..end.as_slice())? {
        let (key, row) = row?;
        let user = second_of_pair(key.value(), log, Place::Members, UserId::parse)?;
        present += u32::from(decode_member(user, row.value())?.left_seq.is_none());
    }
    Ok(present)
}

/// A conversation's row. `members`: how many are present; `None` in a row that an earlier version wrote.
struct Counted {
    header: Header,
    members: Option<u32>,
}

/// An empty id stands for "no peer".
fn encode_header(header: &Header, members: u32) -> Vec<u8> {
    let mut row = header.applied_seq.0.to_le_bytes().to_vec();
    put_id(&mut row, header.created.creator.as_str());
    put_id(&mut row, header.created.peer.as_ref().map(UserId::as_str).unwrap_or_default());
    put_text(&mut row, &header.created.name);
    row.extend_from_slice(&members.to_le_bytes());
    row
}

fn decode_header(row: &[u8]) -> Result<Counted, StoreError> {
    let mut parts = Parts::new(row, Place::Conversations);
    let (applied_seq, creator) = (Seq(parts.u64()?), parts.id(UserId::parse)?);
    let peer = parts.id(|text| if text.is_empty() { Ok(None) } else { UserId::parse(text).map(Some) })?;
    let created = Created { name: parts.text()?.to_owned(), creator, peer };
    let members = if parts.is_empty() { None } else { Some(parts.u32()?) };
    Ok(Counted { header: Header { created, applied_seq }, members })
}

fn decode_read(row: &[u8]) -> Result<ReadCursor, StoreError> {
    let mut parts = Parts::new(row, Place::Reads);
    Ok(ReadCursor { seq: Seq(parts.u64()?), ordinal: Ordinal(parts.u64()?) })
}

/// 0 stands for "has not left": no entry has that seq.
fn encode_member(joined: Seq, ordinal: Ordinal, left: Option<Seq>) -> Vec<u8> {
    [joined.0, ordinal.0, left.unwrap_or_default().0].map(u64::to_le_bytes).concat()
}

fn decode_member(user: UserId, row: &[u8]) -> Result<MemberRow, StoreError> {
    let mut parts = Parts::new(row, Place::Members);
    let (joined_seq, joined_ordinal, left) = (Seq(parts.u64()?), Ordinal(parts.u64()?), Seq(parts.u64()?));
    Ok(MemberRow { user, joined_seq, joined_ordinal, left_seq: Some(left).filter(|seq| seq.0 > 0) })
}
