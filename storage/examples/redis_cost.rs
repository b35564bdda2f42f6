//! What the Redis adapters cost: CPU of this process and of the server per row, by call; memory per row.
//!
//! In: the URL of an empty server of one's own (first argument). Out: one line per cell. Always: the server's CPU is its
//! own count, so nothing else may use it; compare only figures of one machine.

use im_proto::{ClientId, ConnectionId, DeviceId, LogId, Ordinal, Seq, UserId};
use im_storage::{
    ports::{Cursor, Gateway, GatewayBoot, Inbox, Login, Move, Projection as _, ReadCursor, Routes, Shard},
    redis::{RedisInbox, RedisOptions, RedisStore},
};
use std::{error::Error, time::Instant};

const USERS: usize = 500;
const ROUNDS: u64 = 200;
/// Calls at once in the cell that shows what sharing a connection brings.
const AT_ONCE: usize = 16;

type Failure = Box<dyn Error + Send + Sync>;

struct Costs {
    server: redis::aio::MultiplexedConnection,
}

impl Costs {
    /// Prints what `rows` rows of `call` cost.
    async fn of<T>(
        &mut self,
        what: &str,
        rows: u64,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (wall, own_us, server_us) = (Instant::now(), own_cpu_us(), self.server_cpu_us().await?);
        let answer = call.await?;
        let wall_us = wall.elapsed().as_micros() as f64;
        let per_row = |us: f64| us / rows as f64;
        let (own, server) = ((own_cpu_us() - own_us) as f64, self.server_cpu_us().await? - server_us);
        println!(
            "{what}: {:.2} us wall, {:.2} us CPU here, {:.2} us CPU of the server, each of {rows} rows",
            per_row(wall_us),
            per_row(own),
            per_row(server)
        );
        Ok(answer)
    }

    async fn server_cpu_us(&mut self) -> Result<f64, Failure> {
        let info: String = redis::cmd("INFO").arg("cpu").query_async(&mut self.server).await?;
        let fields = info.lines().filter_map(|line| line.split_once(':'));
        let used = fields.filter(|(name, _)| ["used_cpu_sys", "used_cpu_user"].contains(name));
        Ok(used.filter_map(|(_, seconds)| seconds.parse::<f64>().ok()).sum::<f64>() * 1e6)
    }

    async fn bytes(&mut self, key: &str) -> Result<u64, Failure> {
        Ok(redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query_async(&mut self.server).await?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).ok_or("name a server")?;
    let options = RedisOptions { url: url.clone(), prefix: String::new(), allow: Vec::new() };
    let store = RedisStore::open(&options).await?;
    let server = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut costs = Costs { server };
    let users = (0..USERS).map(|n| UserId::parse(&format!("user-{n:06}"))).collect::<Result<Vec<_>, _>>()?;
    inbox(&mut costs, &store.inbox(), &users).await?;
    routes(&mut costs, &*store.routes(), &users).await?;
    memory(&mut costs, &store.inbox()).await
}

fn head(user: &UserId, log: &LogId, head: u64) -> Move {
    let (head, head_ordinal, read) = (Seq(head), Ordinal(head), ReadCursor::default());
    Move { user: user.clone(), log: log.clone(), head, head_ordinal, read, touch: false }
}

async fn inbox(costs: &mut Costs, inbox: &RedisInbox, users: &[UserId]) -> Result<(), Failure> {
    let pair = |n: usize| [&users[n % USERS], &users[(n + 1) % USERS]];
    let message = |n: u64| {
        let [from, to] = pair(n as usize);
        let log = LogId::direct(from, to);
        vec![head(from, &log, n + 1), head(to, &log, n + 1)]
    };
    let one_by_one = async {
        for n in 0..2_000 {
            inbox.bump(message(n)).await?;
        }
        Ok(())
    };
    costs.of("bump, 2 rows, one call at a time", 4_000, one_by_one).await?;
    let at_once = async {
        for turn in 0..500 {
            let calls = (0..AT_ONCE as u64).map(|n| inbox.bump(message(2_000 + turn * AT_ONCE as u64 + n)));
            let mut calls: Vec<_> = calls.collect();
            std::future::poll_fn(|context| {
                calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
                if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        }
        Ok(())
    };
    costs.of("bump, 2 rows, 16 calls at once", 1_000 * AT_ONCE as u64, at_once).await?;
    let group = LogId::group(&users[0], &ClientId::parse("group")?);
    let many = async {
        for seq in 1..=ROUNDS {
            inbox.bump(users.iter().map(|user| head(user, &group, seq)).collect()).await?;
        }
        Ok(())
    };
    costs.of("bump, 500 rows", ROUNDS * USERS as u64, many).await?;
    let versions = async {
        for _ in 0..ROUNDS * 5 {
            inbox.versions(&users[..100]).await?;
        }
        Ok(())
    };
    costs.of("versions of 100", ROUNDS * 500, versions).await?;
    let pages = async {
        for round in 0..ROUNDS * 10 {
            inbox.since(&users[round as usize % USERS], Default::default(), 100).await?;
        }
        Ok(())
    };
    costs.of("since, 3 rows", ROUNDS * 30, pages).await?;
    let claim = inbox.claim(&Shard::all().collect::<Vec<_>>()).await?;
    let covers = async {
        for round in 0..ROUNDS as u32 {
            inbox.cover(&claim, &Cursor(round.to_be_bytes().to_vec().into())).await?;
        }
        Ok(())
    };
    costs.of("cover of 256 shards", ROUNDS, covers).await
}

async fn routes(costs: &mut Costs, routes: &dyn Routes, users: &[UserId]) -> Result<(), Failure> {
    let gateway = Gateway { boot: GatewayBoot(1 << 60), endpoint: "http://10.0.0.1:6200".to_owned() };
    routes.renew_lease(&gateway, 600_000).await?;
    let device = DeviceId::parse("device-0123456789")?;
    let register = async {
        let mut logins = Vec::new();
        for (n, user) in users.iter().enumerate() {
            let connection = ConnectionId::new(1, n as u64);
            let generation = routes
                .register(user, &device, gateway.boot, connection, None, 1_795_000_000_000)
                .await?
                .ok_or("a late dial")?
                .generation;
            logins.push(Login {
                user: user.clone(),
                device: device.clone(),
                generation,
                gateway: gateway.boot,
                connection,
            });
        }
        Ok(logins)
    };
    let logins = costs.of("register", USERS as u64, register).await?;
    for at_once in [USERS, 2] {
        let look_up = async {
            for _ in 0..ROUNDS * 4 {
                routes.look_up(&users[..at_once]).await?;
            }
            Ok(())
        };
        costs.of(&format!("look_up of {at_once}"), ROUNDS * 4 * at_once as u64, look_up).await?;
    }
    let confirm = async {
        for _ in 0..ROUNDS {
            routes.confirm(&logins).await?;
        }
        Ok(())
    };
    costs.of("confirm of 500", ROUNDS * USERS as u64, confirm).await
}

/// Bytes per row by how many conversations the user has.
async fn memory(costs: &mut Costs, inbox: &RedisInbox) -> Result<(), Failure> {
    for rows in [20, 100, 128, 129, 1_000] {
        let user = UserId::parse(&format!("memory-{rows}"))?;
        let creator = UserId::parse("creator")?;
        for n in 0..rows {
            let log = LogId::group(&creator, &ClientId::parse(&format!("{n}"))?);
            let read = ReadCursor { seq: Seq(12_000 + n), ordinal: Ordinal(11_000 + n) };
            inbox.bump(vec![Move { read, ..head(&user, &log, 12_345 + n) }]).await?;
        }
        let bytes = costs.bytes(&format!("i:{{{user}}}:r")).await? + costs.bytes(&format!("i:{{{user}}}:v")).await?;
        println!("memory, {rows} rows: {:.0} bytes each", bytes as f64 / rows as f64);
    }
    let bytes = costs.bytes("r:{user-000000}").await?;
    println!("memory, devices of a user with one: {bytes} bytes");
    Ok(())
}

/// User and system time of this process so far; ticks of 10 ms.
fn own_cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| fields.split_whitespace().nth(place).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10_000
}
