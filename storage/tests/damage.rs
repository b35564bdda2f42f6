//! A failing disk is reported and never believed; a flipped bit is refused or changes no answer.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "each test file uses a part")]
mod support;

use im_proto::{InboxVersion, Seq};
use im_storage::{
    conformance,
    embedded::{EmbeddedStore, OpenError},
    ports::{Directory, EntryLog, Inbox, Shard, Stop, StoreError},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use support::{
    disk::{Disk, Fault},
    run::{LOGS, Run, entry, log_of, open, relations},
    setting, user,
};

/// All that a store answers, as text.
async fn answers(store: &EmbeddedStore) -> String {
    let (entries, inbox, directory) = (store.entry_log(), store.inbox(), store.directory());
    let mut text = format!("{:?}", entries.epoch());
    for number in 0..LOGS {
        let rows = entries.range(&log_of(number), Seq(0), usize::MAX, usize::MAX).await.unwrap();
        for row in &rows {
            let written = entry(number, row.seq.0);
            text += &format!("{:?}", entries.find(&written.log, &written.sender, &written.client_id).await.unwrap());
        }
        text += &format!("{:?}", directory.conversation(&log_of(number)).await.unwrap());
    }
    for n in 0..6 {
        let user = user(&format!("user-{n}"));
        text += &format!("{:?}", inbox.since(&user, InboxVersion(0), 1_000).await.unwrap());
        text += &format!("{:?}", directory.conversations_of(&user, None, 1_000).await.unwrap());
    }
    text += &format!("{:?}", relations(store).await);
    for shard in Shard::all() {
        let covered = conformance::covered(&*inbox, shard).await;
        let end = entries.end().await.unwrap();
        text += &format!("{:?}", entries.tail(shard, covered.as_ref(), &end, 10_000).await.unwrap());
    }
    text
}

/// A store with content: (closed in order, left open).
async fn images(seed: u64) -> (Disk, Disk) {
    let disk = Disk::new();
    let mut run = Run::new(disk.clone(), seed);
    run.go(80).await;
    let witness = disk.witness().last().unwrap();
    let left_open = Disk::with_image(disk.image(), witness);
    run.close().await;
    let witness = disk.witness().last().unwrap();
    (Disk::with_image(disk.image(), witness), left_open)
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_refused_or_changes_no_answer() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    let flips = setting("IM_FLIPS", 150);
    println!("IM_SEED={seed} IM_FLIPS={flips}");
    let (closed, left_open) = images(seed).await;
    let mut random = SmallRng::seed_from_u64(seed);
    for disk in [closed, left_open] {
        let (image, witness) = (disk.image(), disk.witness().last().unwrap());
        let store = open(&disk).unwrap();
        let expected = answers(&store).await;
        store.close().await.unwrap();
        let mut refused = 0;
        for flip in 0..flips {
            // Half of them in the first page, where the engine keeps what it believes without a checksum.
            let bytes = if flip % 2 == 0 { 320 } else { image.len() };
            let (byte, bit) = (random.random_range(0..bytes), random.random_range(0..8));
            println!("flip {byte}:{bit}");
            let mut image = image.clone();
            image[byte] ^= 1 << bit;
            match open(&Disk::with_image(image, witness)) {
                Ok(store) => {
                    assert!(answers(&store).await == expected, "a flip at {byte}:{bit} changed an answer");
                    store.close().await.unwrap();
                }
                Err(OpenError::Damaged(place)) => {
                    assert!(!place.is_empty());
                    refused += 1;
                }
                Err(other) => panic!("a flip at {byte}:{bit} was taken for something else: {other}"),
            }
        }
        assert!(refused > 0, "no flip met anything that matters");
    }
}

/// The engine keeps the last two commits, and one bit says which of them is the later.
#[tokio::test]
async fn a_store_that_was_closed_in_order_is_never_taken_for_what_it_was_before_its_last_writes() {
    const LATER: (usize, u8) = (9, 0);
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    let mut opened = 0;
    for seed in seed..seed + 40 {
        let disk = Disk::new();
        let mut run = Run::new(disk.clone(), seed);
        run.go(20).await;
        run.bump_all().await;
        run.close().await;
        let (mut image, witness) = (disk.image(), disk.witness().last().unwrap());
        let expected = answers(&open(&Disk::with_image(image.clone(), witness)).unwrap()).await;
        image[LATER.0] ^= 1 << LATER.1;
        match open(&Disk::with_image(image, witness)) {
            Ok(store) => {
                assert!(
                    answers(&store).await == expected,
                    "seed {seed}: the last writes are gone, and the store opened"
                );
                opened += 1;
            }
            Err(OpenError::Damaged(_)) => {}
            Err(other) => panic!("seed {seed}: taken for something else: {other}"),
        }
    }
    println!("{opened} of 40 opened, and lacked nothing");
}

/// The format is a row as any other; it is looked at before the engine has looked at the file.
#[tokio::test]
async fn a_flip_is_never_taken_for_a_newer_format() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    let (closed, _) = images(seed).await;
    let (image, witness) = (closed.image(), closed.witness().last().unwrap());
    // Where a 2 in four bytes may be the format.
    let mut refused = 0;
    for at in (0..image.len() - 4).filter(|at| image[*at..].starts_with(&[2, 0, 0, 0])) {
        let mut image = image.clone();
        image[at] ^= 1;
        match open(&Disk::with_image(image, witness)) {
            Ok(_) => {}
            Err(OpenError::Damaged(_)) => refused += 1,
            Err(other) => panic!("a flip at {at}:0 was taken for something else: {other}"),
        }
    }
    assert!(refused > 0, "no flip met anything that matters");
}

#[tokio::test]
async fn a_flip_in_an_entry_is_refused_with_its_place() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    let (closed, left_open) = images(seed).await;
    let mut random = SmallRng::seed_from_u64(seed);
    for disk in [closed, left_open] {
        let (image, witness) = (disk.image(), disk.witness().last().unwrap());
        for number in 0..LOGS {
            let written = entry(number, 2);
            let place = format!("log {}, entry 2:", written.log);
            let (mut image, mut copies) = (image.clone(), 0);
            let (byte, bit) = (random.random_range(0..written.stored.len()), random.random_range(0..8));
            // Older pages still hold copies; the flip goes into all, as one of them is the living one.
            for at in 0..image.len() - written.stored.len() {
                if image[at..].starts_with(&written.stored) {
                    image[at + byte] ^= 1 << bit;
                    copies += 1;
                }
            }
            assert!(copies > 0, "the entry is nowhere in the file");
            match open(&Disk::with_image(image, witness)) {
                Err(OpenError::Damaged(what)) => assert!(what.contains(&place), "{what:?} does not name {place:?}"),
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("{place} damaged, and the store opened"),
            }
        }
    }
}

#[tokio::test]
async fn a_flip_in_an_entry_of_an_open_store_is_refused_at_the_read() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    let (disk, _) = images(seed).await;
    let store = open(&disk).unwrap();
    let written = entry(1, 2);
    disk.damage(|image| {
        for at in 0..image.len() - written.stored.len() {
            if image[at..].starts_with(&written.stored) {
                image[at + 5] ^= 4;
            }
        }
    });
    let expected = format!("log {}, entry 2:", written.log);
    let rows = store.entry_log().range(&written.log, Seq(1), 100, 100_000).await;
    let found = store.entry_log().find(&written.log, &written.sender, &written.client_id).await;
    for refusal in [rows.unwrap_err(), found.unwrap_err()] {
        assert!(matches!(&refusal, StoreError::Damaged(place) if place.contains(&expected)), "{refusal}");
    }
}

#[tokio::test]
async fn a_failed_sync_stops_all_acks_and_loses_none() {
    let seed = setting("IM_SEED", rand::random_range(0..1_000_000));
    println!("IM_SEED={seed}");
    for sync in [1, 2, 3, 5, 9, 17] {
        let disk = Disk::new().recording();
        let mut run = Run::new(disk.clone(), seed);
        run.go(20).await;
        disk.set_fault(Some(Fault::Sync(sync)));
        run.go(100).await;
        assert!(run.history.failed, "no sync failed");
        run.stays_failed().await;
        nothing_acked_is_lost(&disk, run).await;
    }
}

#[tokio::test]
async fn a_full_disk_stops_all_acks_and_loses_none() {
    let disk = Disk::new().recording();
    let mut run = Run::new(disk.clone(), 1);
    run.go(20).await;
    disk.set_fault(Some(Fault::Full(disk.image().len() as u64)));
    run.go(10_000).await;
    assert!(run.history.failed, "the disk never filled");
    run.stays_failed().await;
    nothing_acked_is_lost(&disk, run).await;
}

/// The disk works again: what it holds opens, and has everything that was reported.
async fn nothing_acked_is_lost(disk: &Disk, run: Run) {
    disk.set_fault(None);
    let history = run.close().await;
    let store = open(&Disk::with_image(disk.image(), disk.witness().last().unwrap())).unwrap();
    history.check(&store, disk.moment()).await;
}

#[tokio::test]
async fn a_failed_store_says_why_and_refuses_every_append() {
    let disk = Disk::new();
    let store = open(&disk).unwrap();
    disk.set_fault(Some(Fault::Sync(1)));
    for _ in 0..3 {
        let appended = store.entry_log().append(vec![entry(0, 1)]).await;
        assert_eq!(appended.stored, 0);
        assert!(matches!(appended.stop, Some(Stop::Unknown(_))));
        // The disk recovers; the store must not.
        disk.set_fault(None);
    }
    assert!(!store.failed().await.is_empty());
}
