//! What every adapter of a port must do, written once for all of them.
//!
//! In: how to make an adapter. Out: a panic that names the broken promise. Always: each check uses ids of its own, so a
//! store may be shared by all checks of a run; no check knows which adapter it runs against.

mod delivery;
mod directory;
mod entry_log;
mod inbox;
mod projection;
mod queue;
mod relations;
mod routes;

pub use delivery::{DeliveryWay, delivery};
pub use directory::{directory, directory_after_a_crash};
pub use entry_log::{entry_log, entry_log_after_a_crash};
pub use inbox::{inbox, inbox_after_a_crash};
pub use projection::{cover, covered};
pub use queue::{queue, queue_in_memory};
pub use relations::{relations, relations_after_a_restart};
pub use routes::{routes, routes_with_leases};

use crate::ports::{Directory, EntryLog, Inbox};
use async_trait::async_trait;
use bytes::Bytes;
use im_proto::{ClientId, DeviceId, LogId, Seq, UserId};
use std::sync::Arc;

/// The durable ports of one store.
#[derive(Clone)]
pub struct Ports {
    pub entry_log: Arc<dyn EntryLog>,
    pub directory: Arc<dyn Directory>,
    pub inbox: Arc<dyn Inbox>,
}

/// Makes stores.
#[async_trait]
pub trait Stores: Send + Sync {
    /// A store in which none of the suites' ids was ever used.
    async fn empty(&self) -> Ports;

    /// Kills what is behind `ports` without warning and opens what it left.
    async fn crash(&self, ports: Ports) -> Ports;
}

fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap_or_else(|_| panic!("{text} is no id"))
}

fn log(text: &str) -> LogId {
    LogId::parse(text).unwrap_or_else(|_| panic!("{text} is no id"))
}

fn device(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap_or_else(|_| panic!("{text} is no id"))
}

fn client_id(text: &str) -> ClientId {
    ClientId::parse(text).unwrap_or_else(|_| panic!("{text} is no id"))
}

/// An entry of `log` whose client id and content name its seq.
fn entry(log: &LogId, seq: u64) -> crate::ports::NewEntry {
    crate::ports::NewEntry {
        log: log.clone(),
        seq: Seq(seq),
        sender: user("sender"),
        client_id: client_id(&format!("id-{seq}")),
        stored: Bytes::from(format!("entry {seq} of {log}")),
    }
}

/// What a port answered; any error breaks the suite.
#[track_caller]
fn ok<T>(answer: Result<T, crate::ports::StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("the adapter failed: {error}"))
}
