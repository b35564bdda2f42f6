//! The promises of the delivery.

use crate::ports::{Delivery, GatewayBoot};
use async_trait::async_trait;
use im_proto::internal;
use std::sync::Arc;

/// More batches than any way holds that moves none.
const BATCHES_TOO_MANY: u64 = 20_000;
/// Few enough that no bound is near.
const BATCHES: u64 = 200;

/// A delivery, the gateway at its other end, and one connection that is signed in there.
#[async_trait]
pub trait DeliveryWay: Send + Sync {
    fn delivery(&self) -> Arc<dyn Delivery>;

    fn gateway(&self) -> GatewayBoot;

    /// No gateway, or an earlier run that was where the gateway is.
    fn gone(&self) -> GatewayBoot;

    /// A push with a number to the connection.
    fn push(&self, number: u64) -> internal::Delivery;

    /// Until this was called, nothing that was delivered moves on.
    async fn open(&mut self);

    /// What the connection is told next: the number of a push, or `None`, a hint to sync, because something was lost.
    async fn told(&mut self) -> Option<u64>;
}

/// `make` gives ways that are not open.
pub async fn delivery<W: DeliveryWay>(make: impl AsyncFn() -> W) {
    what_is_delivered_arrives_in_order(make().await).await;
    what_is_for_a_gateway_that_is_gone_reaches_nobody(make().await).await;
    a_gateway_that_takes_nothing_stops_nobody_and_what_is_lost_shows(make().await).await;
}

async fn what_is_delivered_arrives_in_order(mut way: impl DeliveryWay) {
    way.open().await;
    let mut numbers = 0..;
    for batch in 0..BATCHES {
        let deliveries = numbers.by_ref().take(1 + batch as usize % 3).map(|number| way.push(number)).collect();
        way.delivery().deliver(way.gateway(), deliveries);
    }
    for number in 0..numbers.start {
        assert_eq!(way.told().await, Some(number), "the next in order, and nothing was lost");
    }
}

async fn what_is_for_a_gateway_that_is_gone_reaches_nobody(mut way: impl DeliveryWay) {
    way.open().await;
    for number in 1..=BATCHES {
        way.delivery().deliver(way.gone(), vec![way.push(number * 1_000)]);
        way.delivery().deliver(way.gateway(), vec![way.push(number)]);
    }
    for number in 1..=BATCHES {
        assert_eq!(way.told().await, Some(number), "what is for this gateway, all of it, and nothing else");
    }
}

async fn a_gateway_that_takes_nothing_stops_nobody_and_what_is_lost_shows(mut way: impl DeliveryWay) {
    // Returns from each call, or the test ends by its time.
    for number in 1..=BATCHES_TOO_MANY {
        way.delivery().deliver(way.gateway(), vec![way.push(number)]);
    }
    way.open().await;
    let mut last = 0;
    for number in BATCHES_TOO_MANY + 1.. {
        // Numbers show a gap by the first batch behind it.
        way.delivery().deliver(way.gateway(), vec![way.push(number)]);
        let Some(told) = way.told().await else { break };
        assert!(told > last, "{told} behind {last}");
        last = told;
    }
}
