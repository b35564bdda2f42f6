//! What a server of MongoDB's protocol carries: appends, then reads of a log's head, of one entry by its client id, and of 100
//! entries, with so many messages stored.
//!
//! In: the server's URL (first argument), messages (second, 200,000), logs (third, 1,000). Out: one line a question, with its
//! median and 99th percentile. Always: one question at a time, through the port, in a database of its own that stays behind.

use im_proto::{ClientId, LogId, Seq, UserId};
use im_storage::mongo::{MongoEntryLog, MongoOptions};
use im_storage::ports::{EntryLog as _, NewEntry, StoreError};
use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BATCH: usize = 500;
const BODY_BYTES: usize = 200;
const ASKED: usize = 300;
const RANGE: usize = 100;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name a server")?;
    let messages: usize = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    let logs: usize = arguments.next().map_or(Ok(1_000), |count| count.parse())?;
    let database = format!("im_cost_{}", std::process::id());
    let allow = vec!["mongodb.standalone".to_owned()];
    let timeout = Duration::from_secs(30);
    let options = MongoOptions { url, database, timeout, wall_clock_ms: now_ms, given_time_ms: None, allow };
    let store = MongoEntryLog::open(&options).await?;
    let sender = UserId::parse("sender")?;
    let names = (0..logs).map(|n| LogId::parse(&format!("cost-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let (mut heads, mut dice) = (vec![0u64; logs], Dice(1));
    let (begun, mut stored) = (Instant::now(), 0);
    while stored < messages {
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH.min(messages - stored) {
            let at = dice.roll(logs);
            heads[at] += 1;
            let (log, seq) = (names[at].clone(), Seq(heads[at]));
            let client_id = ClientId::parse(&format!("id-{seq}"))?;
            batch.push(NewEntry { log, seq, sender: sender.clone(), client_id, stored: vec![7; BODY_BYTES].into() });
        }
        stored += batch.len();
        if let Some(stop) = store.append(batch).await.stop {
            return Err(format!("an append stopped: {stop:?}").into());
        }
    }
    println!("{messages} messages in {logs} logs: {:.0}/s", messages as f64 / begun.elapsed().as_secs_f64());
    let mut log = || {
        let at = dice.roll(logs);
        let seq = 1 + dice.roll(heads[at].max(1) as usize) as u64;
        (&names[at], seq)
    };
    measure("head", &mut log, async |(log, _)| store.head(log).await.map(drop)).await?;
    let find = async |(log, seq): (&LogId, u64)| {
        let id = ClientId::parse(&format!("id-{seq}")).map_err(|_| StoreError::Damaged("an id".to_owned()))?;
        store.find(log, &sender, &id).await.map(drop)
    };
    measure("find by client id", &mut log, find).await?;
    let absent = ClientId::parse("absent")?;
    measure("find, absent", &mut log, async |(log, _)| store.find(log, &sender, &absent).await.map(drop)).await?;
    let range = async |(log, seq)| store.range(log, Seq(seq), RANGE, usize::MAX).await.map(drop);
    measure("range of 100", &mut log, range).await?;
    Ok(())
}

async fn measure<'a, F: Future<Output = Result<(), StoreError>>>(
    what: &str,
    next: &mut impl FnMut() -> (&'a LogId, u64),
    ask: impl Fn((&'a LogId, u64)) -> F,
) -> Result<(), StoreError> {
    let mut took = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let begun = Instant::now();
        ask(next()).await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1_000.0;
    println!("{what}: p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}
