//! `floor`: what this machine can do at best, for comparison: bare monoio servers and a bare append+fdatasync loop.
//!
//! In: CPUs, sizes and seconds. Out: one [`Row`] per case. Always: the server is a process of its own, so its CPU time
//! is counted apart; each case gets a fresh one.

pub mod child;
mod disk;
mod frames;
mod load;
pub mod server;

use crate::connect::Transport;
use crate::error::BenchError;
use crate::measure::{self, Counts};
use crate::placement::Placement;
use crate::report::Row;
use crate::{proc, progress};
use child::FloorServer;
use clap::Args;
use load::Load;
use server::Kind;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

const DISK_BATCHES: [usize; 4] = [1, 8, 64, 500];
const WARMUP: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct FloorArgs {
    #[command(flatten)]
    pub placement: Placement,
    /// Connections of the echo cases.
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Connections of the fan-out cases.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// Connections of the idle case.
    #[arg(long, default_value_t = 1000)]
    pub idle: usize,
    /// What the frames ride on: a length, or the header of a WebSocket message.
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// Size of what a frame carries.
    #[arg(long, default_value_t = 64)]
    pub payload_bytes: usize,
    /// Length of each case.
    #[arg(long, default_value_t = 2)]
    pub seconds: u64,
    /// Where the append+fdatasync loop writes; choose the disk that the server's data is on.
    #[arg(long, default_value = ".")]
    pub folder: PathBuf,
}

/// What the cases with messages share.
#[derive(Clone, Copy)]
pub struct Setting {
    pub transport: Transport,
    pub cpu: Option<usize>,
    pub payload_bytes: usize,
    pub length: Duration,
}

/// All cases, one after the other.
pub async fn run(args: &FloorArgs) -> Result<Vec<Row>, BenchError> {
    args.placement.pin_load()?;
    let FloorArgs { transport, payload_bytes, .. } = *args;
    let (cpu, length) = (args.placement.server_cpu, Duration::from_secs(args.seconds));
    let setting = Setting { transport, cpu, payload_bytes, length };
    let mut rows = vec![idle(transport, cpu, args.idle).await?];
    for outstanding in [1, 16] {
        rows.push(echo(setting, args.pairs, outstanding).await?);
    }
    for kind in [Kind::FanOutUnmerged, Kind::FanOutMerged] {
        for in_flight in [2, 16] {
            rows.push(fan_out(setting, kind, args.members, in_flight).await?);
        }
    }
    for batch in DISK_BATCHES {
        rows.push(disk::append_and_sync(&args.folder, batch, length)?);
    }
    Ok(rows)
}

/// Opens connections to the echo server and leaves them idle.
pub async fn idle(transport: Transport, cpu: Option<usize>, connections: usize) -> Result<Row, BenchError> {
    let server = FloorServer::start(Kind::Echo, transport, cpu)?;
    let (rss_at_start, cpu_at_start) = (server.rss_bytes()?, proc::cpu_time(server.pid())?);
    let start = Instant::now();
    let mut streams = Vec::with_capacity(connections);
    for serial in 0..connections {
        streams.push(load::open(server.address, transport, serial).await?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let rss = server.rss_bytes()?;
    let cpu = proc::cpu_time(server.pid())? - cpu_at_start;
    Ok(Row {
        case: format!("floor idle over {transport}, {connections} connections"),
        transport: Some(transport),
        connections: connections as u64,
        server_rss_bytes: Some(rss),
        server_rss_bytes_per_connection: Some(rss.saturating_sub(rss_at_start) as f64 / connections as f64),
        server_cpu_us_per_connection: Some(cpu.as_secs_f64() * 1e6 / connections as f64),
        connections_per_s: Some(connections as f64 / seconds),
        ..Row::default()
    })
}

/// One message at a time or several on each of `connections`, sent back by the server.
pub async fn echo(setting: Setting, connections: usize, outstanding: u64) -> Result<Row, BenchError> {
    let server = FloorServer::start(Kind::Echo, setting.transport, setting.cpu)?;
    let counts = Rc::new(Counts::new()?);
    let load = Load::new(Rc::clone(&counts), setting.transport, setting.payload_bytes);
    for serial in 0..connections {
        let stream = load::open(server.address, setting.transport, serial).await?;
        monoio::spawn(load::echo(stream, Rc::clone(&load), outstanding));
    }
    let case = format!("floor echo over {}, {connections} x {outstanding}", setting.transport);
    let window = measure::window(&counts, Some(server.pid()), WARMUP, setting.length, progress::of(&case)).await?;
    let row = Row::of(case, connections as u64, Some(outstanding), &window);
    Ok(Row { transport: Some(setting.transport), ..row })
}

/// One connection sends, all of them receive.
pub async fn fan_out(setting: Setting, kind: Kind, members: usize, in_flight: u64) -> Result<Row, BenchError> {
    let server = FloorServer::start(kind, setting.transport, setting.cpu)?;
    let counts = Rc::new(Counts::new()?);
    let load = Load::new(Rc::clone(&counts), setting.transport, setting.payload_bytes);
    let mut streams = Vec::with_capacity(members);
    for serial in 0..members {
        streams.push(load::open(server.address, setting.transport, serial).await?);
    }
    load::fan_out(streams, &load, in_flight);
    let writes = if kind == Kind::FanOutMerged { "merged" } else { "unmerged" };
    let case = format!("floor fan-out {writes} over {}, {members} x {in_flight}", setting.transport);
    let window = measure::window(&counts, Some(server.pid()), WARMUP, setting.length, progress::of(&case)).await?;
    let row = Row::of(case, members as u64, Some(in_flight), &window);
    Ok(Row { transport: Some(setting.transport), ..row })
}
