//! The promises of the entry log.

use super::{Stores, client_id, entry, log, ok, user};
use crate::ports::{Appended, EntryLog, NewEntry, Shard, Stop, Tail};
use im_proto::{LogId, Seq};
use std::collections::BTreeSet;

#[track_caller]
fn all_stored(appended: &Appended, count: usize) {
    assert!(appended.stop.is_none() && appended.stored == count, "{appended:?}");
}

#[track_caller]
fn taken_at(appended: &Appended, place: usize) {
    assert!(matches!(appended.stop, Some(Stop::Taken)) && appended.stored == place, "{appended:?}");
}

pub async fn entry_log(stores: &dyn Stores) {
    let entries = stores.empty().await.entry_log;
    assert_ne!(entries.epoch().0, 0, "an epoch is never 0");
    assert!(ok(entries.is_empty().await));
    an_empty_log_has_no_head(&*entries).await;
    assert!(ok(entries.is_empty().await), "nothing was appended");
    what_was_appended_is_read_back(&*entries).await;
    a_taken_key_stops_the_batch_behind_a_stored_prefix(&*entries).await;
    a_client_id_is_one_per_log_and_sender(&*entries).await;
    a_range_is_bounded_by_entries_and_bytes(&*entries).await;
    the_tail_names_what_lies_behind_a_cursor(&*entries).await;
    a_tail_comes_to_an_end_while_more_is_stored(&*entries).await;
    the_logs_of_a_shard_can_be_listed(&*entries).await;
    a_race_for_a_seq_has_one_winner(&*entries).await;
}

async fn an_empty_log_has_no_head(entries: &dyn EntryLog) {
    let log = log("empty");
    assert_eq!(ok(entries.head(&log).await), None);
    assert_eq!(ok(entries.range(&log, Seq(1), 10, 10_000).await), []);
    assert_eq!(ok(entries.find(&log, &user("sender"), &client_id("id-1")).await), None);
    all_stored(&entries.append(Vec::new()).await, 0);
}

async fn what_was_appended_is_read_back(entries: &dyn EntryLog) {
    let (a, b) = (log("read-a"), log("read-a-b"));
    let batch = vec![entry(&a, 1), entry(&b, 1), entry(&a, 2), entry(&b, 2), entry(&a, 3)];
    all_stored(&entries.append(batch.clone()).await, 5);
    assert!(!ok(entries.is_empty().await), "an append was reported");
    for written in &batch {
        let found = ok(entries.find(&written.log, &written.sender, &written.client_id).await);
        let found = found.unwrap_or_else(|| panic!("{written:?} is not found"));
        assert_eq!((found.seq, found.stored), (written.seq, written.stored.clone()));
    }
    for (log, head) in [(&a, 3), (&b, 2)] {
        let rows = ok(entries.range(log, Seq(1), 100, 100_000).await);
        assert_eq!(rows.iter().map(|row| row.seq.0).collect::<Vec<_>>(), (1..=head).collect::<Vec<_>>());
        assert_eq!(ok(entries.head(log).await).as_ref(), rows.last());
    }
}

async fn a_taken_key_stops_the_batch_behind_a_stored_prefix(entries: &dyn EntryLog) {
    let (a, b) = (log("taken-a"), log("taken-b"));
    all_stored(&entries.append(vec![entry(&a, 1), entry(&a, 2)]).await, 2);
    let other = NewEntry { client_id: client_id("other"), ..entry(&a, 2) };
    taken_at(&entries.append(vec![entry(&b, 1), other.clone(), entry(&b, 2)]).await, 1);
    // The same id again, at the next free seq: the other key.
    let again = NewEntry { seq: Seq(3), ..entry(&a, 1) };
    taken_at(&entries.append(vec![entry(&b, 2), again, entry(&b, 3)]).await, 1);
    assert_eq!(ok(entries.head(&b).await).map(|row| row.seq), Some(Seq(2)));
    assert_eq!(ok(entries.head(&a).await).map(|row| row.stored), Some(entry(&a, 2).stored));
    assert_eq!(ok(entries.find(&a, &other.sender, &other.client_id).await), None, "a refused entry left its client id");
    // What was refused may come again in its right place.
    all_stored(&entries.append(vec![NewEntry { seq: Seq(3), ..other }]).await, 1);
    // The same id twice in one batch.
    let twice = NewEntry { seq: Seq(5), ..entry(&a, 4) };
    taken_at(&entries.append(vec![entry(&a, 4), twice]).await, 1);
}

async fn a_client_id_is_one_per_log_and_sender(entries: &dyn EntryLog) {
    let (a, b) = (log("ids-a"), log("ids-b"));
    let theirs = NewEntry { seq: Seq(2), sender: user("another"), ..entry(&a, 1) };
    all_stored(&entries.append(vec![entry(&a, 1), entry(&b, 1), theirs.clone()]).await, 3);
    let found = ok(entries.find(&a, &theirs.sender, &theirs.client_id).await);
    assert_eq!(found.map(|row| row.seq), Some(Seq(2)));
    assert_eq!(ok(entries.find(&b, &theirs.sender, &theirs.client_id).await), None);
}

async fn a_range_is_bounded_by_entries_and_bytes(entries: &dyn EntryLog) {
    let log = log("bounded");
    let sized = |seq| NewEntry { stored: vec![7; 100].into(), ..entry(&log, seq) };
    all_stored(&entries.append((1..=10).map(sized).collect()).await, 10);
    let seqs = async |from: u64, entries_max, bytes_max| {
        let rows = ok(entries.range(&log, Seq(from), entries_max, bytes_max).await);
        rows.iter().map(|row| row.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(seqs(4, 3, 10_000).await, [4, 5, 6]);
    assert_eq!(seqs(1, 100, 300).await, [1, 2, 3]);
    assert_eq!(seqs(2, 100, 1).await, [2], "the first comes whatever its size");
    assert_eq!(seqs(0, 2, 10_000).await, [1, 2]);
    assert_eq!(seqs(10, 100, 10_000).await, [10]);
    assert_eq!(seqs(11, 100, 10_000).await, [0; 0], "above the head there is nothing");
}

async fn the_tail_names_what_lies_behind_a_cursor(entries: &dyn EntryLog) {
    let logs: Vec<LogId> = (0..40).map(|n| log(&format!("tail-{n}"))).collect();
    let batch = |seq| logs.iter().map(|log| entry(log, seq)).collect::<Vec<_>>();
    all_stored(&entries.append(batch(1)).await, 40);
    let middle = ok(entries.end().await);
    all_stored(&entries.append(batch(2)).await, 40);
    for shard in Shard::all() {
        let expected = |seq| {
            let of_shard = logs.iter().filter(move |log| Shard::of(log) == shard);
            of_shard.map(move |log| (log.clone(), Seq(seq))).collect::<BTreeSet<_>>()
        };
        let whole: BTreeSet<_> = read_tail(entries, shard, None).await.into_iter().collect();
        assert!(whole.is_superset(&expected(1)) && whole.is_superset(&expected(2)), "{whole:?}");
        let behind: BTreeSet<_> = read_tail(entries, shard, Some(middle.clone())).await.into_iter().collect();
        assert!(behind.is_superset(&expected(2)), "{behind:?}");
        assert!(behind.iter().all(|(log, _)| Shard::of(log) == shard));
    }
    ok(entries.release(&Shard::all().collect::<Vec<_>>(), &middle).await);
    let mut left = BTreeSet::new();
    for shard in Shard::all() {
        left.extend(read_tail(entries, shard, Some(middle.clone())).await);
    }
    assert!(logs.iter().all(|log| left.contains(&(log.clone(), Seq(2)))), "released too much: {left:?}");
    a_tail_is_whole_or_forgotten(entries, &logs).await;
    assert_eq!(ok(entries.range(&logs[0], Seq(1), 10, 10_000).await).len(), 2, "only the order may be forgotten");
}

async fn a_tail_comes_to_an_end_while_more_is_stored(entries: &dyn EntryLog) {
    let (log, start) = (log("busy"), ok(entries.end().await));
    all_stored(&entries.append((1..=5).map(|seq| entry(&log, seq)).collect()).await, 5);
    let end = ok(entries.end().await);
    let (mut after, mut seqs) = (start, Vec::new());
    for seq in 6.. {
        let tail = ok(entries.tail(Shard::of(&log), Some(&after), &end, 3).await);
        let Tail::Named { entries: named, next } = tail else { panic!("nothing was released") };
        if named.is_empty() {
            break;
        }
        seqs.extend(named.into_iter().filter(|(of, _)| *of == log).map(|(_, seq)| seq.0));
        assert!(seq < 1_000, "it never ends: {seqs:?}");
        all_stored(&entries.append(vec![entry(&log, seq)]).await, 1);
        after = next;
    }
    assert!(seqs.starts_with(&[1, 2, 3, 4, 5]), "{seqs:?}");
}

/// From before what was released it may still be there, whole; it is never there in part and passed off as whole.
async fn a_tail_is_whole_or_forgotten(entries: &dyn EntryLog, logs: &[LogId]) {
    let end = ok(entries.end().await);
    for log in logs {
        match ok(entries.tail(Shard::of(log), None, &end, 1_000_000).await) {
            Tail::Forgotten => {}
            Tail::Named { entries, .. } => assert!(entries.contains(&(log.clone(), Seq(1))), "{log} is left out"),
        }
    }
}

async fn the_logs_of_a_shard_can_be_listed(entries: &dyn EntryLog) {
    let logs: BTreeSet<LogId> = (0..40).map(|n| log(&format!("listed-{n}"))).collect();
    for log in &logs {
        all_stored(&entries.append(vec![entry(log, 1), entry(log, 2)]).await, 2);
    }
    for shard in Shard::all() {
        let (mut after, mut all) = (None, BTreeSet::new());
        loop {
            let page = ok(entries.logs(shard, after.as_ref(), 2).await);
            assert!(page.len() <= 2 && page.is_sorted());
            let Some(last) = page.last().cloned() else { break };
            assert!(after.is_none_or(|after| page[0] > after));
            all.extend(page);
            after = Some(last);
        }
        assert!(all.iter().all(|log| Shard::of(log) == shard), "{all:?}");
        let expected: BTreeSet<_> = logs.iter().filter(|log| Shard::of(log) == shard).cloned().collect();
        assert!(all.is_superset(&expected), "{shard:?}: {all:?}");
    }
}

/// The whole tail, in small pages; the entries of a log must rise.
async fn read_tail(entries: &dyn EntryLog, shard: Shard, mut after: Option<crate::ports::Cursor>) -> Vec<(LogId, Seq)> {
    let (mut all, end): (Vec<(LogId, Seq)>, _) = (Vec::new(), ok(entries.end().await));
    loop {
        let Tail::Named { entries: named, next } = ok(entries.tail(shard, after.as_ref(), &end, 3).await) else {
            panic!("the order behind {after:?} is gone")
        };
        if named.is_empty() {
            return all;
        }
        for (log, seq) in named {
            assert!(all.iter().all(|(other, earlier)| *other != log || *earlier < seq), "{log} {seq} out of order");
            all.push((log, seq));
        }
        after = Some(next);
    }
}

async fn a_race_for_a_seq_has_one_winner(entries: &dyn EntryLog) {
    let log = log("race");
    let of = |name: &str| NewEntry { client_id: client_id(name), ..entry(&log, 1) };
    let (one, two) = tokio::join!(entries.append(vec![of("one")]), entries.append(vec![of("two")]));
    assert_eq!(one.stored + two.stored, 1, "{one:?} {two:?}");
    let loser = if one.stored == 0 { one } else { two };
    taken_at(&loser, 0);
}

/// What was reported as stored is there after a crash, and nothing is there twice.
pub async fn entry_log_after_a_crash(stores: &dyn Stores) {
    let ports = stores.empty().await;
    let epoch = ports.entry_log.epoch();
    let log = log("crash");
    all_stored(&ports.entry_log.append((1..=20).map(|seq| entry(&log, seq)).collect()).await, 20);
    let entries = stores.crash(ports).await.entry_log;
    assert_eq!(entries.epoch(), epoch, "a crash is not a restored backup");
    let rows = ok(entries.range(&log, Seq(1), 100, 100_000).await);
    assert_eq!(rows.len(), 20);
    for row in rows {
        assert_eq!(row.stored, entry(&log, row.seq.0).stored);
    }
    taken_at(&entries.append(vec![NewEntry { seq: Seq(21), ..entry(&log, 7) }]).await, 0);
    all_stored(&entries.append(vec![entry(&log, 21)]).await, 1);
    let mut named = read_tail(&*entries, Shard::of(&log), None).await;
    named.retain(|(other, _)| *other == log);
    assert_eq!(named.len(), 21, "uncovered entries are named after a crash");
}
