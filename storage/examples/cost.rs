//! What storing costs: CPU per message of `append` by batch size, per row of `bump`, and the checks of an open.
//!
//! In: a folder on the disk to measure (first argument), messages per cell (second). Out: one line per cell. Always: CPU
//! is user + system of the whole process, so the writing thread is in it; compare only figures of one machine.

use bytes::Bytes;
use im_proto::{ClientId, InboxVersion, LogId, Ordinal, Seq, UserId};
use im_storage::{
    embedded::{EmbeddedStore, OpenOptions},
    ports::{EntryLog, Inbox, Move, NewEntry, Projection as _, ReadCursor, Shard},
};
use std::{error::Error, path::PathBuf, time::Instant};

const LOGS: usize = 1_000;
const BATCHES: [usize; 4] = [500, 64, 8, 1];
const MEMBERS: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("name a folder")?);
    let messages: usize = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    let options = OpenOptions { folder, cache_bytes: 256 << 20, now_ms: 1 };
    let store = EmbeddedStore::open(&options)?;
    let mut writer = Appender::new()?;
    for batch in BATCHES {
        let count = (messages * batch / BATCHES[0]).max(2_000.min(messages));
        writer.run(&store, batch, count).await?;
    }
    bump(&store).await?;
    store.close().await?;
    drop(store);
    for what in ["closed in order", "left open"] {
        let started = Start::now();
        let store = EmbeddedStore::open(&options)?;
        started.print(&format!("open, {what}, {} entries", writer.total), 1);
        store.close().await?;
        drop(store);
        mark_unclean(&options)?;
    }
    Ok(())
}

/// Makes the file look as a killed process leaves it: the engine's flag that asks for a repair.
fn mark_unclean(options: &OpenOptions) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(options.folder.join("store.redb"))?;
    let mut flags = [0];
    file.read_exact_at(&mut flags, 9)?;
    file.write_all_at(&[flags[0] | 2], 9)
}

struct Appender {
    logs: Vec<LogId>,
    seqs: Vec<u64>,
    users: Vec<UserId>,
    random: u64,
    total: u64,
}

impl Appender {
    fn new() -> Result<Self, Box<dyn Error>> {
        let users = (0..LOGS).map(|n| UserId::parse(&format!("user-{n}"))).collect::<Result<Vec<_>, _>>()?;
        let peer = UserId::parse("peer")?;
        let logs = users.iter().map(|user| LogId::direct(user, &peer)).collect();
        Ok(Self { logs, seqs: vec![0; LOGS], users, random: 1, total: 0 })
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn batch(&mut self, count: usize) -> Result<Vec<NewEntry>, Box<dyn Error>> {
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let place = self.random() as usize % LOGS;
            self.seqs[place] += 1;
            self.total += 1;
            batch.push(NewEntry {
                log: self.logs[place].clone(),
                seq: Seq(self.seqs[place]),
                sender: self.users[place].clone(),
                client_id: ClientId::parse(&format!("{:016x}{}", self.random(), self.total))?,
                stored: Bytes::from(vec![7; 100]),
            });
        }
        Ok(batch)
    }

    async fn run(&mut self, store: &EmbeddedStore, batch: usize, count: usize) -> Result<(), Box<dyn Error>> {
        let batches = (0..count / batch).map(|_| self.batch(batch)).collect::<Result<Vec<_>, _>>()?;
        let log = store.entry_log();
        let shards: Vec<_> = Shard::all().collect();
        let claim = store.inbox().claim(&shards).await?;
        let started = Start::now();
        let mut covered = 0;
        for entries in batches {
            let appended = log.append(entries).await;
            if let Some(stop) = appended.stop {
                return Err(format!("{stop:?}").into());
            }
            covered += batch;
            if covered >= 20_000 {
                covered = 0;
                let end = log.end().await?;
                store.inbox().cover(&claim, &end).await?;
                log.release(&shards, &end).await?;
            }
        }
        started.print(&format!("append, batches of {batch}, {} stored", self.total), count as u64);
        Ok(())
    }
}

async fn bump(store: &EmbeddedStore) -> Result<(), Box<dyn Error>> {
    let group = LogId::group(&UserId::parse("creator")?, &ClientId::parse("g")?);
    let members = (0..MEMBERS).map(|n| UserId::parse(&format!("member-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let moves = |seq: u64| -> Vec<Move> {
        let one = |user: &UserId| Move {
            user: user.clone(),
            log: group.clone(),
            head: Seq(seq),
            head_ordinal: Ordinal(seq),
            read: ReadCursor::default(),
            touch: false,
        };
        members.iter().map(one).collect()
    };
    let inbox = store.inbox();
    let claim = inbox.claim(&Shard::all().collect::<Vec<_>>()).await?;
    for (name, messages, cover_each) in [("cold", 1, 1), ("warm", 2_000, u64::MAX), ("warm, covered each 10", 200, 10)]
    {
        let first = inbox.versions(&members[..1]).await?[0].0 + 1_000_000;
        let started = Start::now();
        for message in 0..messages {
            inbox.bump(moves(first + message)).await?;
            if (message + 1) % cover_each == 0 {
                let end = store.entry_log().end().await?;
                inbox.cover(&claim, &end).await?;
            }
        }
        started.print(&format!("bump, {MEMBERS} rows a message, {name}"), messages * MEMBERS as u64);
    }
    let started = Start::now();
    for _ in 0..100 {
        for member in &members {
            inbox.since(member, InboxVersion(0), 100).await?;
        }
    }
    started.print("since, one row", 100 * MEMBERS as u64);
    Ok(())
}

struct Start {
    wall: Instant,
    cpu_us: u64,
}

impl Start {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu_us: cpu_us() }
    }

    fn print(&self, what: &str, count: u64) {
        let (cpu, wall) = (cpu_us() - self.cpu_us, self.wall.elapsed());
        let each = cpu as f64 / count as f64;
        let rate = count as f64 / wall.as_secs_f64();
        println!("{what}: {each:.2} us CPU each, {rate:.0}/s, {:.0} ms in all", wall.as_secs_f64() * 1e3);
    }
}

/// User and system time of this process so far; ticks of 10 ms.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| fields.split_whitespace().nth(place).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10_000
}
