//! What `pair` and `group` share: their options, and one measured and verified run.
//!
//! In: streams on an open fleet. Out: a [`Row`] and whether every promise was kept. Always: every message of the run
//! is verified, warm-up and drain included; the run ends when nothing is under way or waiting has become pointless.

use crate::error::BenchError;
use crate::fleet::Fleet;
use crate::floor;
use crate::measure;
use crate::metrics;
use crate::placement::Placement;
use crate::proc;
use crate::progress;
use crate::report::{Row, Verified};
use crate::server_process::{Server, ServerArgs};
use crate::traffic::{Model, Stream, Totals, Traffic};
use crate::verify::Violations;
use clap::Args;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Every request ends within 10 s (contract C5), its push a moment later.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
/// With repairs allowed: two heartbeats, for a lost push at the end shows with the next one.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(70);
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// A second push of the last message would come within this time.
const LATE_PUSHES: Duration = Duration::from_millis(300);
const PAYLOAD_BYTES_MIN: i64 = crate::payload::PAYLOAD_BYTES_MIN as i64;
/// The server's count of socket writes.
const WRITES_COUNTER: &str = "im_gateway_writes_total";

#[derive(Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub placement: Placement,
    /// Closed model: so many messages of each conversation under way, from the send until the answer and the last
    /// delivery [default: 1].
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u64).range(1..))]
    outstanding: Option<u64>,
    /// Open model: so many messages a second in all, whatever the server does; latency counts from the moment a
    /// message was due.
    #[arg(long, value_name = "MESSAGES/S")]
    rate: Option<f64>,
    /// Size of a message's content (at least 24).
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN..))]
    payload_bytes: u32,
    /// Length of the measured window.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Load before the window, in seconds. Verified too.
    #[arg(long, default_value_t = 1)]
    warmup: u64,
    /// Accept lost, doubled and swapped pushes, those to the sender itself and lost connections as long as every message
    /// arrives by repair: for runs in which the server is killed, a worker takes over or a receiver is slow.
    #[arg(long)]
    allow_repairs: bool,
    /// Run the floor too and report CPU as a multiple of it.
    #[arg(long)]
    pub floor: bool,
}

impl LoadArgs {
    pub fn model(&self) -> Model {
        match (self.rate, self.outstanding) {
            (Some(per_second), _) => Model::Rate(per_second),
            (None, outstanding) => Model::Outstanding(outstanding.unwrap_or(1)),
        }
    }

    /// Under way at most, where the model says so.
    pub fn in_flight(&self) -> Option<u64> {
        match self.model() {
            Model::Outstanding(outstanding) => Some(outstanding),
            Model::Rate(_) => None,
        }
    }

    /// The name of the case in reports.
    pub fn describe(&self, what: &str) -> String {
        match self.model() {
            Model::Outstanding(outstanding) => format!("{what} x {outstanding}"),
            Model::Rate(per_second) => format!("{what} at {per_second}/s"),
        }
    }

    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// Of the floor to compare with.
    pub fn floor_setting(&self) -> floor::Setting {
        floor::Setting {
            transport: self.server.transport(),
            cpu: self.placement.server_cpu,
            payload_bytes: self.payload_bytes(),
            length: self.length(),
        }
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Rows to report, and what the verifier found if it found anything.
pub struct Outcome {
    pub rows: Vec<Row>,
    pub violated: Option<String>,
}

impl Outcome {
    /// Puts the floor's row first and gives the last row's figure as a multiple of it.
    pub fn compare_with(&mut self, floor: Option<Row>, figure: impl Fn(&Row) -> Option<f64>) {
        let Some(floor) = floor else { return };
        if let (Some(row), Some(least)) = (self.rows.last_mut(), figure(&floor).filter(|least| *least > 0.0)) {
            row.times_the_floor = figure(row).map(|figure| figure / least);
        }
        self.rows.insert(0, floor);
    }
}

/// Sends, measures, drains and judges.
pub async fn measured(
    args: &LoadArgs,
    case: String,
    server: &Server,
    fleet: &Fleet,
    traffic: &Rc<Traffic>,
    streams: Vec<Stream>,
) -> Result<Outcome, BenchError> {
    traffic.start(&fleet.links, streams, args.model());
    let warmup = Duration::from_secs(args.warmup);
    let writes_before = metrics::counter(server.http, WRITES_COUNTER);
    let deliveries_before = traffic.counts.deliveries.get();
    let window = measure::window(&traffic.counts, server.pid, warmup, args.length(), progress::of(&case)).await?;
    let deliveries = traffic.counts.deliveries.get() - deliveries_before;
    let writes = metrics::counter(server.http, WRITES_COUNTER).zip(writes_before).map(|(after, before)| after - before);
    let rss_bytes = server.pid.map(proc::rss_bytes).transpose()?;
    traffic.stop();
    drain(traffic, if args.allow_repairs { REPAIR_TIMEOUT } else { DRAIN_TIMEOUT }).await;
    let Totals { answered, pushed, repaired, repeated } = traffic.finish();
    let found = traffic.violations.borrow();
    let violations = found.inexcusable(args.allow_repairs);
    let row = Row {
        transport: Some(server.transport()),
        server_rss_bytes: rss_bytes,
        writes_per_delivery: writes.filter(|_| deliveries > 0).map(|writes| writes / deliveries as f64),
        verified: Some(Verified { answered, pushed, repaired, repeated, violations }),
        ..Row::of(case, fleet.links.len() as u64, args.in_flight(), &window)
    };
    Ok(Outcome { rows: vec![row], violated: judge(&found, args.allow_repairs) })
}

async fn drain(traffic: &Traffic, timeout: Duration) {
    let start = Instant::now();
    while traffic.in_flight() > 0 && start.elapsed() < timeout {
        monoio::time::sleep(DRAIN_POLL).await;
    }
    monoio::time::sleep(LATE_PUSHES).await;
}

/// Prints what was found. `None`: nothing that is not excused.
pub fn judge(found: &Violations, allow_repairs: bool) -> Option<String> {
    for line in found.described() {
        eprintln!("{line}");
    }
    (found.inexcusable(allow_repairs) > 0).then(|| found.summary())
}
