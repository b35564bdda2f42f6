//! One measured window: what was counted, how long it took, what CPU it cost on both sides.
//!
//! In: counts as they happen and two instants. Out: a [`Window`]. Always: counts and CPU times are taken at the same
//! two moments, so a ratio of them needs no correction; latencies are those of messages answered inside the window.

use crate::error::BenchError;
use crate::proc;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Latencies up to a minute, to 3 digits.
const LATENCY_MAX_US: u64 = 60_000_000;
const LATENCY_DIGITS: u8 = 3;

/// Counts of a run. Shared by the tasks of the load thread.
pub struct Counts {
    pub messages: Cell<u64>,
    pub deliveries: Cell<u64>,
    recording: Cell<bool>,
    ack_us: RefCell<Histogram<u64>>,
    delivery_us: RefCell<Histogram<u64>>,
}

impl Counts {
    pub fn new() -> Result<Self, BenchError> {
        let histogram = || {
            Histogram::new_with_max(LATENCY_MAX_US, LATENCY_DIGITS)
                .map(RefCell::new)
                .map_err(|error| BenchError::Setup(format!("histogram: {error}")))
        };
        Ok(Self {
            messages: Cell::new(0),
            deliveries: Cell::new(0),
            recording: Cell::new(false),
            ack_us: histogram()?,
            delivery_us: histogram()?,
        })
    }

    /// A message was answered, so long after it was due.
    pub fn answered(&self, latency: Duration) {
        self.messages.set(self.messages.get() + 1);
        self.record(&self.ack_us, latency);
    }

    /// A message reached one receiver, so long after it was due.
    pub fn delivered(&self, latency: Duration) {
        self.deliveries.set(self.deliveries.get() + 1);
        self.record(&self.delivery_us, latency);
    }

    fn record(&self, histogram: &RefCell<Histogram<u64>>, latency: Duration) {
        if self.recording.get() {
            histogram.borrow_mut().saturating_record(latency.as_micros() as u64);
        }
    }
}

/// The figures of one window.
pub struct Window {
    pub seconds: f64,
    pub messages: u64,
    pub deliveries: u64,
    pub server_cpu: Option<Duration>,
    pub load_cpu: Duration,
    pub ack_us: Histogram<u64>,
    pub delivery_us: Histogram<u64>,
}

struct Moment {
    at: Instant,
    messages: u64,
    deliveries: u64,
    server_cpu: Option<Duration>,
    load_cpu: Duration,
}

impl Moment {
    fn now(counts: &Counts, server_pid: Option<u32>) -> Result<Self, BenchError> {
        Ok(Self {
            server_cpu: server_pid.map(proc::cpu_time).transpose()?,
            load_cpu: proc::cpu_time(std::process::id())?,
            at: Instant::now(),
            messages: counts.messages.get(),
            deliveries: counts.deliveries.get(),
        })
    }
}

/// Lets the load run for `warmup`, then measures for `length`. `each_second` is told the seconds passed and the counts
/// of that second.
pub async fn window(
    counts: &Counts,
    server_pid: Option<u32>,
    warmup: Duration,
    length: Duration,
    mut each_second: impl FnMut(u64, u64, u64),
) -> Result<Window, BenchError> {
    monoio::time::sleep(warmup).await;
    let start = Moment::now(counts, server_pid)?;
    counts.recording.set(true);
    let (mut messages, mut deliveries) = (start.messages, start.deliveries);
    let mut second = 0;
    while start.at.elapsed() < length {
        second += 1;
        let until = (start.at + Duration::from_secs(second)).min(start.at + length);
        monoio::time::sleep_until(monoio::time::Instant::from_std(until)).await;
        let now = (counts.messages.get(), counts.deliveries.get());
        each_second(second, now.0 - messages, now.1 - deliveries);
        (messages, deliveries) = now;
    }
    let end = Moment::now(counts, server_pid)?;
    counts.recording.set(false);
    Ok(Window {
        seconds: (end.at - start.at).as_secs_f64(),
        messages: end.messages - start.messages,
        deliveries: end.deliveries - start.deliveries,
        server_cpu: end.server_cpu.zip(start.server_cpu).map(|(end, start)| end.saturating_sub(start)),
        load_cpu: end.load_cpu.saturating_sub(start.load_cpu),
        ack_us: counts.ack_us.borrow().clone(),
        delivery_us: counts.delivery_us.borrow().clone(),
    })
}
