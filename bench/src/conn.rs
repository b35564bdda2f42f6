//! `conn`: what a connection costs. Opens N, signs in, syncs, holds them.
//!
//! In: options. Out: a row with memory and CPU per connection, and CPU while idle. Always: all connections are still
//! there at the end; one that is not is a violation.

use crate::clock::Clock;
use crate::error::BenchError;
use crate::fleet::Fleet;
use crate::floor;
use crate::link::Observer;
use crate::measure::Counts;
use crate::placement::Placement;
use crate::proc;
use crate::report::{Row, Verified};
use crate::run::{self, Outcome};
use crate::server_process::{Server, ServerArgs};
use crate::traffic::Traffic;
use clap::Args;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// Between the last sign-in and the first reading: the server's own buffers go first.
const SETTLING: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct ConnArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    placement: Placement,
    /// How many, each signed in as a user of its own.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Open so many a second; 0: as fast as they are accepted.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Hold them for so many seconds and measure the CPU of being idle.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    hold: u64,
    /// Hold as many connections to the bare floor server first, and report CPU as a multiple of it.
    #[arg(long)]
    floor: bool,
}

pub async fn run(args: &ConnArgs) -> Result<Outcome, BenchError> {
    let floor = if args.floor { Some(floor(args).await?) } else { None };
    let server = Server::of(&args.server, &args.placement)?;
    args.placement.pin_load()?;
    let clock = Clock::start();
    let traffic = Traffic::new(clock, Counts::new()?, 0);
    let observer: Rc<dyn Observer> = traffic.clone();
    let observer: Weak<dyn Observer> = Rc::downgrade(&observer);
    let fleet = Fleet::new(&server, args.connections, clock, &observer)?;
    fleet.keep_time();
    let before = reading(&server)?;
    let start = Instant::now();
    fleet.open(args.rate).await?;
    let seconds = start.elapsed().as_secs_f64();
    monoio::time::sleep(SETTLING).await;
    let open = reading(&server)?;
    let idle = Instant::now();
    monoio::time::sleep(Duration::from_secs(args.hold)).await;
    let idle_seconds = idle.elapsed().as_secs_f64();
    let held = reading(&server)?;
    let connections = args.connections as f64;
    let found = traffic.violations.borrow();
    let row = Row {
        case: format!("conn over {}, {} connections", server.transport(), args.connections),
        transport: Some(server.transport()),
        connections: args.connections as u64,
        seconds: Some(seconds),
        connections_per_s: Some(connections / seconds),
        server_rss_bytes: held.as_ref().map(|held| held.rss_bytes),
        server_rss_bytes_per_connection: held
            .as_ref()
            .zip(before.as_ref())
            .map(|(held, before)| held.rss_bytes.saturating_sub(before.rss_bytes) as f64 / connections),
        server_cpu_us_per_connection: open
            .as_ref()
            .zip(before.as_ref())
            .map(|(open, before)| (open.cpu - before.cpu).as_secs_f64() * 1e6 / connections),
        idle_cpu_percent: held
            .as_ref()
            .zip(open.as_ref())
            .filter(|_| args.hold > 0)
            .map(|(held, open)| (held.cpu - open.cpu).as_secs_f64() / idle_seconds * 100.0),
        verified: Some(Verified { violations: found.total(), ..Verified::default() }),
        ..Row::default()
    };
    let mut outcome = Outcome { rows: vec![row], violated: run::judge(&found, false) };
    outcome.compare_with(floor, |row| row.server_cpu_us_per_connection);
    server.stop()?;
    Ok(outcome)
}

struct Reading {
    cpu: Duration,
    rss_bytes: u64,
}

fn reading(server: &Server) -> Result<Option<Reading>, BenchError> {
    let read = |pid| Ok(Reading { cpu: proc::cpu_time(pid)?, rss_bytes: proc::rss_bytes(pid)? });
    server.pid.map(read).transpose()
}

async fn floor(args: &ConnArgs) -> Result<Row, BenchError> {
    args.placement.pin_load()?;
    floor::idle(args.server.transport(), args.placement.server_cpu, args.connections).await
}
