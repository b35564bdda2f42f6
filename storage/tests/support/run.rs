//! A seeded run against a store, and what every later store must then know.
//!
//! In: a disk and a seed. Out: each batch with what its append answered and when, each cover, each relation, the versions
//! given. Always: an entry's content follows from its log and seq, so what is read can be judged without having been
//! remembered.

use super::{client_id, disk::Disk, log, user};
use bytes::Bytes;
use im_proto::{InboxVersion, LogId, Ordinal, Seq};
use im_storage::{
    conformance,
    embedded::{EmbeddedStore, OpenError, OpenOptions},
    ports::{
        Created, Cursor, Directory, EntryLog, Followed, Inbox, MembershipChange, Move, NewEntry, Projection,
        ReadCursor, Relation, RelationKey, RelationKind, Relations, Shard, Stop, Tail,
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};

pub const LOGS: u64 = 12;
const USERS: u64 = 5;

/// Small, so that pages reach the disk before their commit.
const CACHE_BYTES: usize = 128 * 1024;
/// Small, so that entries are met both before and after they were indexed, and runs are cut short.
const RUN_ENTRIES: usize = 150;

pub fn open(disk: &Disk) -> Result<EmbeddedStore, OpenError> {
    let options = OpenOptions { folder: "simulated".into(), cache_bytes: CACHE_BYTES, now_ms: 1_000 };
    let backend = disk.clone();
    EmbeddedStore::open_with_backend(move || Ok(backend.clone()), disk.witness(), RUN_ENTRIES, &options)
}

pub fn log_of(number: u64) -> LogId {
    log(&format!("log-{number}"))
}

/// The one entry that ever has this place.
pub fn entry(number: u64, seq: u64) -> NewEntry {
    let length = 20 + (number * 31 + seq * 17) % 300;
    let filling: String = (0..length).map(|at| char::from(b'a' + ((number + seq * 7 + at) % 26) as u8)).collect();
    NewEntry {
        log: log_of(number),
        seq: Seq(seq),
        sender: user(&format!("sender-{}", seq % 3)),
        client_id: client_id(&format!("id-{seq}")),
        stored: Bytes::from(format!("{number}/{seq}:{filling}")),
    }
}

/// One append: its entries as (log, seq), how many were reported as stored, and the moment of the report.
pub struct Append {
    pub entries: Vec<(u64, u64)>,
    pub begun: usize,
    pub stored: usize,
    pub reported: usize,
}

/// A cover: begun and returned at these moments; everything appended before `appends` had been stored.
pub struct Cover {
    pub begun: usize,
    pub returned: Option<usize>,
    pub appends: usize,
    pub heads: BTreeMap<(u64, u64), u64>,
    pub cursor: Cursor,
}

/// One relation that was put: what it became, from when on that was possible, and when it was reported.
pub struct Put {
    pub of: u64,
    pub value: Option<Bytes>,
    pub begun: usize,
    pub reported: Option<usize>,
}

fn relation_key(of: u64) -> RelationKey {
    RelationKey { kind: RelationKind::Account, user: user(&format!("user-{of}")) }
}

/// All that are kept.
pub async fn relations(store: &EmbeddedStore) -> BTreeMap<RelationKey, Bytes> {
    let mut feed = store.relations().follow().await.unwrap();
    let mut kept = BTreeMap::new();
    while let Followed::Kept(Relation { key, value }) = feed.next().await {
        kept.insert(key, value.unwrap());
    }
    kept
}

/// What a run did, in its order.
#[derive(Default)]
pub struct History {
    pub appends: Vec<Append>,
    pub covers: Vec<Cover>,
    pub puts: Vec<Put>,
    /// (moment, highest version given so far)
    pub versions: Vec<(usize, u64)>,
    pub failed: bool,
}

pub struct Run {
    disk: Disk,
    store: EmbeddedStore,
    random: SmallRng,
    heads: BTreeMap<u64, u64>,
    bumped: BTreeMap<(u64, u64), u64>,
    pub history: History,
}

impl Run {
    pub fn new(disk: Disk, seed: u64) -> Self {
        let store = open(&disk).unwrap();
        let random = SmallRng::seed_from_u64(seed);
        Self { disk, store, random, heads: BTreeMap::new(), bumped: BTreeMap::new(), history: History::default() }
    }

    /// `steps` steps, or fewer if the store fails.
    pub async fn go(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.random_range(0..20) {
                0 => self.cover().await,
                1..=4 => self.bump().await,
                5 => self.join().await,
                6 | 7 => self.relate().await,
                _ => self.append().await,
            }
            if self.history.failed {
                return;
            }
        }
    }

    pub async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open(&self.disk).unwrap();
    }

    /// A failed store reports its failure and answers no append.
    pub async fn stays_failed(&self) {
        assert!(!self.store.failed().await.is_empty());
        let appended = self.store.entry_log().append(vec![entry(LOGS, 1)]).await;
        assert!(appended.stored == 0 && matches!(appended.stop, Some(Stop::Unknown(_))));
    }

    /// Closes the store; one that failed cannot be closed in order.
    pub async fn close(self) -> History {
        assert_eq!(self.store.close().await.is_err(), self.history.failed);
        self.history
    }

    /// Two batches at once, of several logs each, so that group commit has something to group.
    async fn append(&mut self) {
        let begun = self.disk.moment();
        let batches = [0, 1].map(|half| {
            let count = self.random.random_range(1..12);
            let mut entries = Vec::new();
            for _ in 0..count {
                let number = self.random.random_range(0..LOGS / 2) * 2 + half;
                let head = self.heads.entry(number).or_default();
                *head += 1;
                entries.push((number, *head));
            }
            entries
        });
        let log = self.store.entry_log();
        let append = |entries: &Vec<(u64, u64)>| log.append(entries.iter().map(|(n, seq)| entry(*n, *seq)).collect());
        let (first, second) = tokio::join!(append(&batches[0]), append(&batches[1]));
        let reported = self.disk.moment();
        for (entries, appended) in batches.into_iter().zip([first, second]) {
            match appended.stop {
                None => assert_eq!(appended.stored, entries.len()),
                Some(Stop::Unknown(_)) => self.history.failed = true,
                Some(Stop::Taken) => panic!("a free place was taken"),
            }
            self.history.appends.push(Append { entries, begun, stored: appended.stored, reported });
        }
    }

    async fn bump(&mut self) {
        let number = self.random.random_range(0..LOGS);
        self.bump_log(number).await;
    }

    /// Writes that nobody waits for until they are durable.
    pub async fn bump_all(&mut self) {
        for number in 0..LOGS {
            self.bump_log(number).await;
        }
    }

    async fn bump_log(&mut self, number: u64) {
        let Some(head) = self.heads.get(&number).copied() else { return };
        let moves = (0..USERS).map(|n| Move {
            user: user(&format!("user-{n}")),
            log: log_of(number),
            head: Seq(head),
            head_ordinal: Ordinal(head),
            read: ReadCursor::default(),
            touch: false,
        });
        let Ok(moved) = self.store.inbox().bump(moves.collect()).await else {
            self.history.failed = true;
            return;
        };
        for n in 0..USERS {
            self.bumped.insert((n, number), head);
        }
        let highest = moved.iter().map(|moved| moved.version.0).max().unwrap_or(0);
        self.history.versions.push((self.disk.moment(), highest));
    }

    async fn join(&mut self) {
        let number = self.random.random_range(0..LOGS);
        let head = self.heads.get(&number).copied().unwrap_or(0);
        let joined = (0..USERS).map(|n| user(&format!("user-{n}"))).collect();
        let change = MembershipChange {
            log: log_of(number),
            seq: Seq(head.max(1)),
            after: Seq(0),
            created: Some(Created { name: "a name".to_owned(), creator: user("user-0"), peer: None }),
            joined,
            joined_ordinal: Ordinal(0),
            left: Vec::new(),
        };
        self.history.failed |= self.store.directory().apply(vec![change]).await.is_err();
    }

    /// Every third one is removed.
    async fn relate(&mut self) {
        let (of, number) = (self.random.random_range(0..USERS), self.history.puts.len());
        let value = (number % 3 != 2).then(|| Bytes::from(format!("relation {number}")));
        let begun = self.disk.moment();
        let put = self.store.relations().put(Relation { key: relation_key(of), value: value.clone() }).await;
        let reported = put.is_ok().then(|| self.disk.moment());
        self.history.failed |= put.is_err();
        self.history.puts.push(Put { of, value, begun, reported });
    }

    async fn cover(&mut self) {
        let appends = self.history.appends.len();
        let Ok(cursor) = self.store.entry_log().end().await else {
            self.history.failed = true;
            return;
        };
        let (begun, heads) = (self.disk.moment(), self.bumped.clone());
        let shards: Vec<_> = Shard::all().collect();
        let (directory, inbox) = (self.store.directory(), self.store.inbox());
        let done = cover(&*directory, &shards, &cursor).await && cover(&*inbox, &shards, &cursor).await;
        let returned = done.then(|| self.disk.moment());
        let released = done && self.store.entry_log().release(&shards, &cursor).await.is_ok();
        self.history.failed |= !released;
        self.history.covers.push(Cover { begun, returned, appends, heads, cursor });
    }
}

/// Takes the shards over and covers them. False: the disk has failed.
async fn cover(projection: &dyn Projection, shards: &[Shard], cursor: &Cursor) -> bool {
    match projection.claim(shards).await {
        Ok(claim) => projection.cover(&claim, cursor).await.is_ok(),
        Err(_) => false,
    }
}

impl History {
    /// Checks a store opened on what a disk held at `moment` of this run. Answers how many entries it has.
    pub async fn check(&self, store: &EmbeddedStore, moment: usize) -> u64 {
        let stored = self.check_entries(store, moment).await;
        self.check_projections(store, moment, &stored).await;
        self.check_relations(store, moment).await;
        self.check_goes_on(store, moment, &stored).await;
        stored.values().sum()
    }

    /// Every reported entry is there, byte for byte, under both keys; no log has a gap; of no batch more than a prefix.
    async fn check_entries(&self, store: &EmbeddedStore, moment: usize) -> BTreeMap<u64, u64> {
        let entries = store.entry_log();
        let mut stored = BTreeMap::new();
        for number in 0..LOGS {
            let rows = entries.range(&log_of(number), Seq(0), usize::MAX, usize::MAX).await.unwrap();
            for (row, expected) in rows.iter().zip(1..) {
                let written = entry(number, expected);
                assert_eq!((row.seq, &row.stored), (Seq(expected), &written.stored));
                let found = entries.find(&written.log, &written.sender, &written.client_id).await.unwrap();
                assert_eq!(found.as_ref(), Some(row), "log {number} entry {expected}");
            }
            assert_eq!(entries.head(&log_of(number)).await.unwrap().as_ref(), rows.last());
            let behind = entry(number, rows.len() as u64 + 1);
            assert_eq!(entries.find(&behind.log, &behind.sender, &behind.client_id).await.unwrap(), None);
            stored.insert(number, rows.len() as u64);
        }
        for append in self.appends.iter().filter(|append| append.begun <= moment) {
            let is_stored = |(number, seq): &(u64, u64)| stored[number] >= *seq;
            let prefix = append.entries.iter().take_while(|place| is_stored(place)).count();
            assert!(!append.entries[prefix..].iter().any(is_stored), "stored behind a hole: {:?}", append.entries);
            if append.reported <= moment {
                assert!(prefix >= append.stored, "lost {:?} of {:?}", append.entries[prefix], append.entries);
            }
        }
        stored
    }

    /// What a cover made durable is there; what none covered is named by the journal; no version comes again.
    async fn check_projections(&self, store: &EmbeddedStore, moment: usize, stored: &BTreeMap<u64, u64>) {
        let mut named = BTreeSet::new();
        let covered = conformance::covered(&*store.inbox(), Shard::of(&log_of(0))).await;
        for shard in Shard::all() {
            let mut after = conformance::covered(&*store.inbox(), shard).await;
            let end = store.entry_log().end().await.unwrap();
            assert_eq!(after, covered, "one cover covers all shards alike");
            loop {
                let tail = store.entry_log().tail(shard, after.as_ref(), &end, 7).await.unwrap();
                let Tail::Named { entries, next } = tail else { panic!("released what no cover covers") };
                after = Some(next);
                if entries.is_empty() {
                    break;
                }
                assert!(entries.iter().all(|(log, _)| Shard::of(log) == shard));
                named.extend(entries);
            }
        }
        let last = self.covers.iter().rev().find(|cover| cover.returned.is_some_and(|at| at <= moment));
        if let Some(last) = last {
            assert!(covered.as_ref().map(|c| &c.0) >= Some(&last.cursor.0), "a cover was lost");
            let by_directory = conformance::covered(&*store.directory(), Shard::of(&log_of(0))).await;
            assert!(by_directory.map(|c| c.0) >= Some(last.cursor.0.clone()), "a cover of the directory was lost");
            for ((reader, number), head) in &last.heads {
                let page = store.inbox().since(&user(&format!("user-{reader}")), InboxVersion(0), 1_000).await.unwrap();
                let row = page.rows.iter().find(|row| row.log == log_of(*number)).unwrap();
                assert!(row.head.0 >= *head && row.version <= page.version);
            }
        }
        let begun = self.covers.iter().rev().find(|cover| cover.begun <= moment).map_or(0, |cover| cover.appends);
        for (number, seq) in self.appends[begun..].iter().flat_map(|append| &append.entries) {
            let is_named = named.contains(&(log_of(*number), Seq(*seq)));
            assert_eq!(is_named, stored[number] >= *seq, "the journal and log {number} differ on entry {seq}");
        }
    }

    /// Of each key what the last reported put made of it, or a later one that had begun.
    async fn check_relations(&self, store: &EmbeddedStore, moment: usize) {
        let kept = relations(store).await;
        for of in 0..USERS {
            let mut possible = vec![None];
            for put in self.puts.iter().filter(|put| put.of == of && put.begun <= moment) {
                if put.reported.is_some_and(|at| at <= moment) {
                    possible.clear();
                }
                possible.push(put.value.as_ref());
            }
            let found = kept.get(&relation_key(of));
            assert!(possible.contains(&found), "the relation of user-{of} is {found:?}, none of {possible:?}");
        }
    }

    /// The next entry of each log can be stored, a stored one cannot, and a new move has a new version.
    async fn check_goes_on(&self, store: &EmbeddedStore, moment: usize, stored: &BTreeMap<u64, u64>) {
        let next: Vec<_> = stored.iter().map(|(number, head)| entry(*number, head + 1)).collect();
        let appended = store.entry_log().append(next).await;
        assert!(appended.stop.is_none(), "{:?}", appended.stop);
        let mut resent = entry(3, 1);
        resent.seq = Seq(stored[&3] + 2);
        let appended = store.entry_log().append(vec![resent]).await;
        assert!(matches!(appended.stop, Some(Stop::Taken)), "a resent client id was stored again");
        let touch = Move {
            user: user("user-0"),
            log: log_of(0),
            head: Seq(1),
            head_ordinal: Ordinal(1),
            read: ReadCursor::default(),
            touch: true,
        };
        let moved = store.inbox().bump(vec![touch]).await.unwrap();
        let given = self.versions.iter().filter(|(at, _)| *at <= moment).map(|(_, version)| *version).max();
        assert!(Some(moved[0].version.0) > given, "a version was given twice");
    }
}
