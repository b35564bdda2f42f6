//! Joins the gateway to the queue and the logic, so that neither names the other.
//!
//! In: the gateway's two traits. Out: calls of the queue port and of the request handlers, in this process or over gRPC.
//! Always: nothing here waits on a gateway core's thread; questions that cannot be taken are answered at once, not forgotten.
//!
//! | file | what it is |
//! |---|---|
//! | `ask` | questions as tasks, a bounded number of them |
//! | `local` | answered by the request handlers of this process |
//! | `remote`, `handler` | asked over gRPC, and answered at the other end |
//! | `unanswered` | how often nobody answered |
//! | `large`, `large_remote` | what is asked of large conversations, answered here or over gRPC |
//! | `streams` | deliveries to gateways elsewhere, and their end there |

mod ask;
#[cfg(test)]
mod delivery_tests;
#[cfg(feature = "distributed")]
mod handler;
#[cfg(test)]
#[cfg(feature = "distributed")]
mod handler_tests;
mod large;
#[cfg(feature = "distributed")]
mod large_remote;
mod local;
#[cfg(feature = "distributed")]
mod remote;
#[cfg(feature = "distributed")]
mod streams;
#[cfg(feature = "distributed")]
mod unanswered;

pub use ask::Ask;
#[cfg(feature = "distributed")]
pub use {
    handler::Handler, remote::Remote, streams::DeliverOverStreams, streams::TakeFromStreams, unanswered::Unanswered,
};

use im_gateway::{Forward, GatewayHandle, Upstream};
use im_proto::internal;
use im_storage::ports::{Delivery, GatewayBoot, Queue, Record};
use std::sync::{Arc, OnceLock};

/// Puts records into the queue.
pub struct ForwardToQueue {
    queue: Arc<dyn Queue>,
}

impl ForwardToQueue {
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue }
    }
}

impl Forward for ForwardToQueue {
    fn forward(&self, upstream: &mut Vec<Upstream>) {
        let mut records: Vec<Record> = upstream.drain(..).map(to_record).collect();
        self.queue.produce(&mut records);
        upstream.extend(records.into_iter().map(to_upstream));
    }
}

fn to_record(Upstream { log, record, trace }: Upstream) -> Record {
    Record { log, upstream: record, trace }
}

fn to_upstream(Record { log, upstream, trace }: Record) -> Upstream {
    Upstream { log, record: upstream, trace }
}

/// Hands deliveries to the gateway of this process. They cannot be lost on the way, so they need no numbers.
#[derive(Default)]
pub struct DeliverToGateway {
    gateway: OnceLock<GatewayHandle>,
}

impl DeliverToGateway {
    /// Before this there is no gateway, and so nobody to deliver to.
    pub fn connect(&self, gateway: GatewayHandle) {
        let _ = self.gateway.set(gateway);
    }
}

impl Delivery for DeliverToGateway {
    fn deliver(&self, boot: GatewayBoot, deliveries: Vec<internal::Delivery>) {
        if let Some(gateway) = self.gateway.get().filter(|gateway| gateway.boot() == boot.0) {
            gateway.deliver(deliveries);
        }
    }
}
