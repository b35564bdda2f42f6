//! Where everything lies: the ports the logic is written against, and their adapters.
//!
//! In: decisions of the logic. Out: durable logs, projections, routes, and the queue and delivery between processes.
//! Always: no port promises more than Kafka, MongoDB, MySQL or Redis can do alone, and nothing is atomic across two
//! ports. This crate alone names a database driver.

pub mod embedded;
#[cfg(feature = "distributed")]
pub mod finding;
#[cfg(feature = "distributed")]
pub mod kafka;
#[cfg(feature = "distributed")]
pub mod mongo;
#[cfg(feature = "distributed")]
pub mod mysql;
pub mod ports;
#[cfg(feature = "distributed")]
pub mod redis;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "fault-points")]
pub mod fault;
#[cfg(all(feature = "distributed", feature = "services"))]
pub mod scratch;

mod planted;
