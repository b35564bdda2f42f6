//! Deliveries to gateways in other processes, and the end of them there.
//!
//! In: batches of workers and kicks of sign-ins. Out: numbered batches on a stream to each gateway that has a lease, and from
//! there to its cores. Always:
//! never waits; the leases say who lives where, and are read again at once when a batch is for a gateway that they did not
//! name, or another run answers at its address; one that names no address is passed over, and told of once.

use im_gateway::GatewayHandle;
use im_proto::internal;
use im_rpc::{DeliverySink, DeliveryStreams};
use im_storage::ports::{Delivery, GatewayBoot, Routes};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the leases, unless they are wanted earlier.
const LEASES_INTERVAL: Duration = Duration::from_secs(2);
/// A batch for a gateway that is gone must not make every worker ask all the time.
const LEASES_PAUSE: Duration = Duration::from_millis(100);

pub struct DeliverOverStreams(pub Arc<DeliveryStreams>);

impl Delivery for DeliverOverStreams {
    fn deliver(&self, gateway: GatewayBoot, deliveries: Vec<internal::Delivery>) {
        self.0.deliver(gateway.0, deliveries);
    }
}

impl DeliverOverStreams {
    /// Follows the leases until the runtime ends.
    pub fn follow_leases(&self, routes: Arc<dyn Routes>) {
        let streams = self.0.clone();
        tokio::spawn(async move {
            let mut refused = HashSet::new();
            loop {
                match routes.gateways().await {
                    Ok(gateways) => {
                        let gateways: Vec<(u64, String)> =
                            gateways.into_iter().map(|gateway| (gateway.boot.0, gateway.endpoint)).collect();
                        let now_refused = streams.set_gateways(&gateways);
                        for (gateway, error) in now_refused.iter().filter(|(gateway, _)| !refused.contains(gateway)) {
                            tracing::warn!(%error, gateway, "a gateway's lease names no address; it gets nothing");
                        }
                        refused = now_refused.into_iter().map(|(gateway, _)| gateway).collect();
                    }
                    // Those that were known may well live.
                    Err(error) => tracing::warn!(%error, "the gateways' leases cannot be read"),
                }
                tokio::time::sleep(LEASES_PAUSE).await;
                let _ = tokio::time::timeout(LEASES_INTERVAL, streams.leases_wanted()).await;
            }
        });
    }
}

/// What workers deliver, into the lanes of the cores.
pub struct TakeFromStreams(pub GatewayHandle);

impl DeliverySink for TakeFromStreams {
    fn boot(&self) -> u64 {
        self.0.boot()
    }

    fn deliver(&self, batch: internal::DeliveryBatch) {
        self.0.deliver_batch(batch);
    }
}
