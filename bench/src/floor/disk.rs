//! The floor of the store: append and fdatasync in a loop, nothing else.
//!
//! In: a folder and a batch size. Out: CPU per record and time per sync. Always: CPU is that of the calling thread;
//! kernel threads that write back are not in it, for no store's figures hold them either.

use crate::error::{BenchError, During};
use crate::proc;
use crate::report::{Latency, Row};
use hdrhistogram::Histogram;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

pub const RECORD_BYTES: usize = 200;
/// The file starts again from its beginning here, so a long run does not fill the disk.
const FILE_BYTES_MAX: usize = 256 << 20;

/// Appends batches of `batch` records to a file in `folder` for `length`.
pub fn append_and_sync(folder: &Path, batch: usize, length: Duration) -> Result<Row, BenchError> {
    let mut file = tempfile::tempfile_in(folder).during(folder.display().to_string())?;
    let bytes = vec![0x5a; batch * RECORD_BYTES];
    let mut sync_us = Histogram::<u64>::new(3).map_err(|error| BenchError::Setup(format!("histogram: {error}")))?;
    let (start, cpu_at_start) = (Instant::now(), proc::thread_cpu_time()?);
    let (mut records, mut file_bytes) = (0, 0);
    while start.elapsed() < length {
        if file_bytes + bytes.len() > FILE_BYTES_MAX {
            file = tempfile::tempfile_in(folder).during(folder.display().to_string())?;
            file_bytes = 0;
        }
        let before = Instant::now();
        file.write_all(&bytes).during("append")?;
        file.sync_data().during("fdatasync")?;
        sync_us.saturating_record(before.elapsed().as_micros() as u64);
        records += batch;
        file_bytes += bytes.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = proc::thread_cpu_time()? - cpu_at_start;
    Ok(Row {
        case: format!("append+fdatasync, batch {batch}"),
        in_flight: Some(batch as u64),
        seconds: Some(seconds),
        messages_per_s: Some(records as f64 / seconds),
        server_cpu_us_per_message: Some(cpu.as_secs_f64() * 1e6 / records as f64),
        server_cpu_percent: Some(cpu.as_secs_f64() / seconds * 100.0),
        ack: Latency::of(&sync_us),
        ..Row::default()
    })
}
