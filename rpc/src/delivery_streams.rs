//! The worker's side of the delivery streams: one lane for each gateway.
//!
//! In: deliveries, and which gateways live where. Out: numbered batches on one stream to each. Always: handing on never
//! waits; a lane is bounded in batches and bytes, and one that is full, or whose gateway is away, drops the batch and leaves
//! the gap in the numbers; numbers go on over every new stream; a gateway that can be reached keeps its lane, lease or not.

use crate::config::{ConfigError, ConnectOptions};
use crate::connect::Connect;
use crate::lane::{DeliveryCounts, FIRST_PAUSE, Lane, Shared};
use crate::planted::planted;
use im_proto::internal::{Delivery, DeliveryBatch};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lanes, those of gateways whose address is not known yet included. One more gateway gets nothing until another is gone.
const LANES_MAX: usize = 1_024;
/// Numbers remembered of lanes that ended; beyond it they are forgotten, and what was lost in those lanes may go unnoticed
/// until a heartbeat.
const ENDED_MAX: usize = 1_024;
/// A batch above it leaves in several, each with its number.
const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// Before each delivery in a batch: a tag and a length.
const FIELD_BYTES_MAX: usize = 6;

/// All lanes of one worker process.
pub struct DeliveryStreams {
    /// Names this run of the worker; numbers begin anew with it.
    boot: u64,
    connect: Connect,
    lanes: Mutex<Lanes>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Lanes {
    open: HashMap<u64, Lane>,
    /// The last number of each lane that ended: if the gateway comes back, it sees what was lost.
    ended: HashMap<u64, u64>,
}

impl DeliveryStreams {
    pub fn new(boot: u64, options: &ConnectOptions) -> Result<Arc<Self>, ConfigError> {
        let (lanes, shared) = (Mutex::default(), Arc::default());
        Ok(Arc::new(Self { boot, connect: Connect::new(options)?, lanes, shared }))
    }

    pub fn counts(&self) -> &DeliveryCounts {
        &self.shared.counts
    }

    /// What waits in the lanes of all gateways: (batches, bytes).
    pub fn waiting(&self) -> (usize, usize) {
        self.lanes().open.values().map(Lane::waiting).fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// Returns when the leases should be read: a gateway is wanted whose address was not told yet, or another run of one
    /// lives at its address.
    pub async fn leases_wanted(&self) {
        self.shared.leases_wanted.notified().await;
    }

    /// The living gateways: (boot, address). Lanes of others end once they cannot be reached. Returns those whose address is
    /// none: they get nothing.
    pub fn set_gateways(&self, gateways: &[(u64, String)]) -> Vec<(u64, ConfigError)> {
        let mut lanes = self.lanes();
        // A gateway that lost its lease alone still has clients, who wait for answers. Pushes find no routes to it.
        lanes.end_unless(|boot, lane| {
            let is_reached = lane.is_reached() && !planted("lane_ends_with_lease");
            is_reached || gateways.iter().any(|(known, _)| *known == boot)
        });
        let mut refused = Vec::new();
        for (boot, address) in gateways {
            let Some(lane) = lanes.lane(*boot, &self.shared).filter(|lane| !lane.has_address()) else { continue };
            match self.connect.endpoint(address) {
                Ok(endpoint) => lane.set_address(endpoint),
                Err(error) => refused.push((*boot, error)),
            }
        }
        refused
    }

    /// Hands on one batch, or drops it; a large one in pieces. Must be called on a tokio runtime.
    pub fn deliver(&self, gateway: u64, deliveries: Vec<Delivery>) {
        let mut lanes = self.lanes();
        let mut lane = lanes.lane(gateway, &self.shared);
        for (bytes, deliveries) in pieces(deliveries) {
            let batch = |number| DeliveryBatch { gateway_boot: gateway, worker_boot: self.boot, number, deliveries };
            if !lane.as_deref_mut().is_some_and(|lane| lane.take(bytes, batch)) {
                self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if lane.is_some_and(|lane| !lane.has_address()) {
            self.shared.leases_wanted.notify_one();
        }
    }

    /// Returns when no batch waits in a lane any more.
    pub async fn handed_on(&self) {
        while self.waiting() != (0, 0) {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// The gateway's lane; a new one waits for its address.
    fn lane(&mut self, boot: u64, shared: &Arc<Shared>) -> Option<&mut Lane> {
        if !self.open.contains_key(&boot) && self.open.len() < LANES_MAX {
            let last_number = self.ended.remove(&boot).unwrap_or(0);
            self.open.insert(boot, Lane::start(boot, last_number, shared.clone()));
        }
        self.open.get_mut(&boot)
    }

    fn end_unless(&mut self, stays: impl Fn(u64, &Lane) -> bool) {
        for (boot, lane) in self.open.extract_if(|boot, lane| !stays(*boot, lane)) {
            if self.ended.len() >= ENDED_MAX {
                self.ended.clear();
            }
            self.ended.insert(boot, lane.last_number());
        }
    }
}

/// The deliveries in their order, in pieces with their bytes. One that is larger by itself is a piece by itself.
fn pieces(deliveries: Vec<Delivery>) -> Vec<(usize, Vec<Delivery>)> {
    let size = |delivery: &Delivery| delivery.encoded_len() + FIELD_BYTES_MAX;
    let bytes = deliveries.iter().map(size).sum();
    if bytes <= PIECE_BYTES_MAX || planted("batches_whole") {
        return vec![(bytes, deliveries)];
    }
    let mut pieces: Vec<(usize, Vec<Delivery>)> = Vec::new();
    for delivery in deliveries {
        let more = size(&delivery);
        match pieces.last_mut() {
            Some((bytes, piece)) if *bytes + more <= PIECE_BYTES_MAX => {
                *bytes += more;
                piece.push(delivery);
            }
            _ => pieces.push((more, vec![delivery])),
        }
    }
    pieces
}
