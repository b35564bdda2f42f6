//! The way from workers to gateways: answers, pushes and kicks.
//!
//! In: deliveries for one gateway. Out: numbered batches at that gateway. Always: batches of one worker arrive in order;
//! any may be lost, and then the gateway sees a break in the numbers and hints its connections. Never waits: a slow
//! gateway stops no worker.

use im_proto::internal;

/// Names one run of one gateway process. Random, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GatewayBoot(pub u64);

pub trait Delivery: Send + Sync + 'static {
    /// Hands on one numbered batch. A full buffer or an unknown gateway drops it, counts it and leaves the gap in the
    /// numbers.
    fn deliver(&self, gateway: GatewayBoot, deliveries: Vec<internal::Delivery>);
}
