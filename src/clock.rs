//! The wall clock: the one place of the server that reads it.
//!
//! In: nothing. Out: milliseconds since 1970, handed to gateway and logic as a function. Always: for display, token expiry, the
//! age of a record in a backlog and, in one process, the start of epochs and generations; no order and no deadline rests on it, so it
//! may jump. Between machines the clocks of MongoDB and Redis count, which all workers have in common.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn now_ms() -> i64 {
    // Before 1970 the clock is certainly wrong; 0 then refuses tokens as not yet valid rather than panicking.
    let system_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    system_ms.saturating_add(jump_ms())
}

#[cfg(not(feature = "fault-points"))]
const fn jump_ms() -> i64 {
    0
}

/// How far a test has set the clock: milliseconds in the file that `IM_FAULT_CLOCK_FILE` names, read each time.
#[cfg(feature = "fault-points")]
fn jump_ms() -> i64 {
    static FILE: std::sync::OnceLock<Option<std::path::PathBuf>> = std::sync::OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("IM_FAULT_CLOCK_FILE").map(Into::into));
    let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
