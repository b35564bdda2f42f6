//! The wall clock, where the process gives no other ([`LogicConfig::wall_clock_ms`](crate::LogicConfig)).
//!
//! In: nothing. Out: milliseconds since 1970. Always: for display, token expiry and the age of a record; no order rests on
//! it.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn now_ms() -> i64 {
    // Before 1970 the clock is certainly wrong; 0 then refuses tokens as not yet valid rather than panicking.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
