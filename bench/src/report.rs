//! What a run reports: a table for people, JSON for programs.
//!
//! In: measured [`Window`]s and what surrounds them. Out: [`Row`]s, printed and written. Always: a figure that was not
//! measured is absent, never zero; CPU is that of the server process in microseconds.

use crate::connect::Transport;
use crate::error::{BenchError, During};
use crate::measure::Window;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::Path;

/// All rows of one run.
#[derive(Serialize)]
pub struct Report {
    pub command: String,
    pub cpus: usize,
    pub kernel: String,
    pub rows: Vec<Row>,
}

/// One case of a run.
#[derive(Serialize, Default)]
pub struct Row {
    pub case: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    pub connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliveries_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes: Option<u64>,
    /// `conn`: memory and CPU of one connection, and how fast they were opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rss_bytes_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us_per_connection: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes_per_delivery: Option<f64>,
    /// CPU figures as a multiple of the floor's of the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_the_floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<Latency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Latency>,
    /// What the verifier found; absent for the floor, which promises nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// Percentiles in microseconds.
#[derive(Serialize)]
pub struct Latency {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub max_us: u64,
}

/// The verdict over every message of a run, warm-up included.
#[derive(Serialize, Default)]
pub struct Verified {
    pub answered: u64,
    pub pushed: u64,
    pub repaired: u64,
    pub repeated: u64,
    pub violations: u64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        })
    }
}

impl Row {
    pub fn of(case: String, connections: u64, in_flight: Option<u64>, window: &Window) -> Self {
        let per = |count: u64| {
            let cpu_us = window.server_cpu?.as_micros() as f64;
            (count > 0).then(|| cpu_us / count as f64)
        };
        let percent = |cpu: std::time::Duration| cpu.as_secs_f64() / window.seconds * 100.0;
        Self {
            case,
            connections,
            in_flight,
            seconds: Some(window.seconds),
            messages_per_s: Some(window.messages as f64 / window.seconds),
            deliveries_per_s: (window.deliveries > 0).then(|| window.deliveries as f64 / window.seconds),
            server_cpu_us_per_message: per(window.messages),
            server_cpu_us_per_delivery: per(window.deliveries),
            server_cpu_percent: window.server_cpu.map(percent),
            load_cpu_percent: Some(percent(window.load_cpu)),
            ack: Latency::of(&window.ack_us),
            delivery: Latency::of(&window.delivery_us),
            ..Self::default()
        }
    }
}

impl Report {
    pub fn new(rows: Vec<Row>) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            rows,
        }
    }

    pub fn print(&self) {
        print!("{}", self.table());
    }

    pub fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| BenchError::Setup(format!("the report as JSON: {error}")))?;
        std::fs::write(path, text + "\n").during(path.display().to_string())
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for row in self.rows.iter().filter(|row| row.messages_per_s.is_some()) {
            if text.is_empty() {
                text += &table_line(HEADINGS.map(str::to_owned));
            }
            text += &table_line([
                row.case.clone(),
                rounded(row.messages_per_s, 0),
                rounded(row.deliveries_per_s, 0),
                rounded(row.server_cpu_us_per_message, 2),
                rounded(row.server_cpu_us_per_delivery, 2),
                rounded(row.server_cpu_percent, 0),
                rounded(row.load_cpu_percent, 0),
            ]);
        }
        self.rows.iter().fold(text, |text, row| text + &details(row))
    }
}

const HEADINGS: [&str; 7] = ["case", "messages/s", "deliveries/s", "CPU µs/m", "CPU µs/d", "server %", "load %"];

fn table_line([case, messages, deliveries, cpu_message, cpu_delivery, server, load]: [String; 7]) -> String {
    format!("{case:<44} {messages:>10} {deliveries:>12} {cpu_message:>9} {cpu_delivery:>9} {server:>8} {load:>7}\n")
}

fn rounded(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// The lines below the table: latencies, memory, verdict; only those that the case has.
fn details(row: &Row) -> String {
    let mut lines = Vec::new();
    for (name, latency) in [("ack", &row.ack), ("delivery", &row.delivery)] {
        if let Some(l) = latency {
            lines.push(format!(
                "{name} µs: p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                l.p50_us, l.p90_us, l.p99_us, l.p99_9_us, l.max_us
            ));
        }
    }
    let figures = [
        ("server RSS MiB", row.server_rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0), 1),
        ("server RSS bytes/connection", row.server_rss_bytes_per_connection, 0),
        ("server CPU µs/connection", row.server_cpu_us_per_connection, 1),
        ("connections opened/s", row.connections_per_s, 0),
        ("server CPU % while idle", row.idle_cpu_percent, 2),
        ("server writes/delivery", row.writes_per_delivery, 3),
        ("times the floor", row.times_the_floor, 1),
    ];
    for (name, figure, digits) in figures {
        if figure.is_some() {
            lines.push(format!("{name}: {}", rounded(figure, digits)));
        }
    }
    if let Some(v) = &row.verified {
        lines.push(format!(
            "verified: {} answered, {} pushed, {} repaired, {} commands repeated, {} violations",
            v.answered, v.pushed, v.repaired, v.repeated, v.violations
        ));
    }
    if lines.is_empty() { String::new() } else { format!("\n{}\n  {}\n", row.case, lines.join("\n  ")) }
}
