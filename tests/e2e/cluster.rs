//! What only a cluster can show: two gateways with a device between them, a worker that dies in the middle of a batch beside
//! another, records that no gateway wrote.
//!
//! In: the real services (`scripts/services env`). Out: claims. Always: two gateways and two workers, and a test knows which
//! of them it meets.

#[cfg(feature = "fault-points")]
mod dying_worker;
mod poison;
mod two_gateways;
