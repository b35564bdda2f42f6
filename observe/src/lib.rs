//! What a running server tells about itself, as cheaply as it can.
//!
//! In: durations, sizes, lines about to be logged. Out: histograms to be printed, and whether a line may go. Always: no lock
//! and no allocation when something is noted; whoever notes is never held up.

mod histogram;
mod line_limit;

pub use histogram::{Durations, Histogram, Sizes};
pub use line_limit::LineLimit;

/// The target of the lines that follow one command from hop to hop, at level debug: `log.level: info,im_trace=debug`.
pub const TRACE: &str = "im_trace";
/// The target of the lines about refused commands, at level info.
pub const REFUSED: &str = "im_refused";
