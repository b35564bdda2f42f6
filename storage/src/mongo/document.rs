//! An entry as a document.
//!
//! In: an entry, when it is stored. Out: the document; and the entry again, if it is what was written. Always: pure; the
//! checksum covers log, seq and bytes, and is looked at whenever an entry is read.

use crate::ports::{EntryRow, NewEntry, StoreError};
use bytes::Bytes;
use im_proto::{LogId, Seq};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};

/// Entries of one page of a log. A read by page returns no more documents than this.
pub const PAGE_ENTRIES: u64 = 64;

pub fn page_of(seq: Seq) -> i64 {
    (seq.0.saturating_sub(1) / PAGE_ENTRIES) as i64
}

/// The entries from `from` to the end of its page. FerretDB finds them by the page, MongoDB by log and seq: without an upper
/// bound MongoDB would read on to the end of the log for a limit that the page cannot fill.
pub fn of_page(log: &LogId, from: Seq) -> Document {
    let page = page_of(from);
    let last = page.saturating_add(1).saturating_mul(PAGE_ENTRIES as i64);
    // No entry has a seq beyond what a document holds, but somebody may ask for one.
    let from = i64::try_from(from.0).unwrap_or(i64::MAX);
    doc! { "l": log.as_str(), "p": page, "s": { "$gte": from, "$lte": last } }
}

/// Behind it begins another page.
pub fn is_last_of_page(seq: Seq) -> bool {
    seq.0.is_multiple_of(PAGE_ENTRIES)
}

/// `window` and `time_ms` say when it is stored.
pub fn of_entry(entry: &NewEntry, window: i64, time_ms: i64) -> Document {
    let mut document = doc! {
        "l": entry.log.as_str(),
        "s": entry.seq.0 as i64,
        "u": entry.sender.as_str(),
        "i": entry.client_id.as_str(),
        "p": page_of(entry.seq),
        "w": window,
        "t": time_ms,
        "c": i64::from(checksum(&entry.log, entry.seq, &entry.stored)),
        "b": Binary { subtype: BinarySubtype::Generic, bytes: entry.stored.to_vec() },
    };
    if entry.seq.0 % PAGE_ENTRIES == 1 {
        document.insert("o", true);
    }
    document
}

/// The entry, if its checksum agrees.
pub fn row(log: &LogId, document: &Document) -> Result<EntryRow, StoreError> {
    let read = || {
        let seq = Seq(document.get_i64("s").ok()?.try_into().ok()?);
        let sum = document.get_i64("c").ok()?;
        Some((seq, sum, document.get_binary_generic("b").ok()?))
    };
    let (seq, sum, stored) = read().ok_or_else(|| damaged(log, None, "a field is missing"))?;
    if i64::from(checksum(log, seq, stored)) != sum {
        return Err(damaged(log, Some(seq), "its checksum does not match"));
    }
    Ok(EntryRow { seq, stored: Bytes::copy_from_slice(stored) })
}

/// Its log and seq.
pub fn name(document: &Document) -> Option<(LogId, Seq)> {
    let log = LogId::parse(document.get_str("l").ok()?).ok()?;
    Some((log, Seq(document.get_i64("s").ok()?.try_into().ok()?)))
}

/// When it was stored.
pub fn time_ms(document: &Document) -> Option<i64> {
    document.get_i64("t").ok()
}

pub fn damaged(log: &LogId, seq: Option<Seq>, what: &str) -> StoreError {
    match seq {
        Some(seq) => StoreError::Damaged(format!("log {log}, entry {seq}: {what}")),
        None => StoreError::Damaged(format!("log {log}: {what}")),
    }
}

fn checksum(log: &LogId, seq: Seq, stored: &[u8]) -> u32 {
    let sum = crc32c::crc32c(log.as_str().as_bytes());
    let sum = crc32c::crc32c_append(sum, &seq.0.to_be_bytes());
    crc32c::crc32c_append(sum, stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::{ClientId, UserId};

    fn entry(seq: u64) -> NewEntry {
        NewEntry {
            log: LogId::parse("x").unwrap(),
            seq: Seq(seq),
            sender: UserId::parse("ann").unwrap(),
            client_id: ClientId::parse("id").unwrap(),
            stored: Bytes::from_static(b"bytes"),
        }
    }

    #[test]
    fn an_entry_comes_back_and_a_changed_one_does_not() {
        let entry = entry(7);
        let document = of_entry(&entry, 1, 2);
        assert_eq!(row(&entry.log, &document).unwrap(), EntryRow { seq: Seq(7), stored: entry.stored.clone() });
        assert_eq!((name(&document), time_ms(&document)), (Some((entry.log.clone(), Seq(7))), Some(2)));
        assert!(row(&LogId::parse("y").unwrap(), &document).is_err(), "it is another log's");
        for (field, value) in [("s", doc! {"v": 8_i64}), ("c", doc! {"v": 0_i64})] {
            let mut changed = document.clone();
            changed.insert(field, value.get("v").cloned().unwrap());
            assert!(matches!(row(&entry.log, &changed), Err(StoreError::Damaged(_))), "{field}");
        }
    }

    #[test]
    fn a_read_of_a_page_names_nothing_behind_it_whatever_seq_it_begins_with() {
        let log = LogId::parse("x").unwrap();
        for (from, last) in [(1, 64), (64, 64), (65, 128), (100, 128), (u64::MAX, i64::MAX)] {
            let filter = of_page(&log, Seq(from));
            let seqs = filter.get_document("s").unwrap();
            assert_eq!(filter.get_i64("p").unwrap(), page_of(Seq(from)));
            assert_eq!(seqs.get_i64("$gte").unwrap(), i64::try_from(from).unwrap_or(i64::MAX));
            assert_eq!(seqs.get_i64("$lte").unwrap(), last, "{from}");
        }
    }

    #[test]
    fn every_page_has_one_opener_and_it_is_its_first() {
        for seq in 1..=3 * PAGE_ENTRIES {
            let document = of_entry(&entry(seq), 1, 2);
            let is_first = page_of(Seq(seq)) != page_of(Seq(seq - 1)) || seq == 1;
            assert_eq!(document.contains_key("o"), is_first, "{seq}");
            assert_eq!(is_last_of_page(Seq(seq)), page_of(Seq(seq)) != page_of(Seq(seq + 1)), "{seq}");
        }
    }
}
