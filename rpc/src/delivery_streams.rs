//! The worker's side of the delivery streams: one lane for each gateway.
//!
//! In: deliveries, and which gateways live where. Out: numbered batches on one stream to each. Always: handing on never
//! waits; a lane is bounded in batches and bytes, and one that is full, or whose gateway is away, drops the batch and leaves
//! the gap in the numbers; numbers go on over every new stream.

use crate::config::{CallOptions, ConfigError};
use crate::generated::delivery_service_client::DeliveryServiceClient;
use crate::logic_client::endpoint;
use im_proto::internal::{Delivery, DeliveryBatch};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// What waits for one gateway; beyond either bound a batch is dropped.
pub const LANE_BATCHES_MAX: usize = 1_024;
pub const LANE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Lanes, those of gateways whose address is not known yet included. One more gateway gets nothing until another is gone.
const LANES_MAX: usize = 1_024;
/// Between attempts to open a stream.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What became of the batches.
#[derive(Debug, Default)]
pub struct DeliveryCounts {
    pub handed_on: AtomicU64,
    /// The lane was full, or there was none.
    pub dropped: AtomicU64,
    pub streams_opened: AtomicU64,
}

/// All lanes of one worker process.
pub struct DeliveryStreams {
    /// Names this run of the worker; numbers begin anew with it.
    boot: u64,
    options: CallOptions,
    lanes: Mutex<HashMap<u64, Lane>>,
    counts: Arc<DeliveryCounts>,
    /// A batch came for a gateway whose address is not known.
    wanted: Notify,
}

struct Lane {
    last_number: u64,
    batches: mpsc::Sender<DeliveryBatch>,
    bytes: Arc<AtomicUsize>,
    address: watch::Sender<Option<Endpoint>>,
}

impl DeliveryStreams {
    /// `options.endpoints` is not used: gateways tell their own.
    pub fn new(boot: u64, options: CallOptions) -> Arc<Self> {
        let (lanes, counts) = (Mutex::default(), Arc::default());
        Arc::new(Self { boot, options, lanes, counts, wanted: Notify::new() })
    }

    pub fn counts(&self) -> &DeliveryCounts {
        &self.counts
    }

    /// What waits in the lanes of all gateways: (batches, bytes).
    pub fn waiting(&self) -> (usize, usize) {
        let lanes = self.lanes();
        let of_lane =
            |lane: &Lane| (lane.batches.max_capacity() - lane.batches.capacity(), lane.bytes.load(Ordering::Relaxed));
        lanes.values().map(of_lane).fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// Returns when a gateway is wanted whose address was not told yet.
    pub async fn unknown_gateway(&self) {
        self.wanted.notified().await;
    }

    /// The living gateways: (boot, endpoint). Lanes of all others end.
    pub fn set_gateways(&self, gateways: &[(u64, String)]) -> Result<(), ConfigError> {
        let mut lanes = self.lanes();
        lanes.retain(|boot, _| gateways.iter().any(|(known, _)| known == boot));
        for (boot, address) in gateways {
            let endpoint = endpoint(address, &self.options)?;
            if let Some(lane) = self.lane(&mut lanes, *boot)
                && lane.address.borrow().is_none()
            {
                lane.address.send_replace(Some(endpoint));
            }
        }
        Ok(())
    }

    /// Hands on one batch, or drops it. Must be called on a tokio runtime.
    pub fn deliver(&self, gateway: u64, deliveries: Vec<Delivery>) {
        let mut lanes = self.lanes();
        let Some(lane) = self.lane(&mut lanes, gateway) else {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // Numbered first: a batch that is dropped must leave a gap.
        lane.last_number += 1;
        let number = lane.last_number;
        let batch = DeliveryBatch { gateway_boot: gateway, worker_boot: self.boot, number, deliveries };
        let bytes = batch.encoded_len();
        let waiting = lane.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let counter = if waiting <= LANE_BYTES_MAX && lane.batches.try_send(batch).is_ok() {
            &self.counts.handed_on
        } else {
            lane.bytes.fetch_sub(bytes, Ordering::Relaxed);
            &self.counts.dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if lane.address.borrow().is_none() {
            self.wanted.notify_one();
        }
    }

    /// Returns when no batch waits in a lane any more.
    pub async fn handed_on(&self) {
        while self.lanes().values().any(|lane| lane.bytes.load(Ordering::Relaxed) > 0) {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<u64, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gateway's lane; a new one waits for its address.
    fn lane<'a>(&self, lanes: &'a mut HashMap<u64, Lane>, boot: u64) -> Option<&'a mut Lane> {
        if !lanes.contains_key(&boot) && lanes.len() < LANES_MAX {
            let (batches, waiting) = mpsc::channel(LANE_BATCHES_MAX);
            let (address, told) = watch::channel(None);
            let bytes = Arc::new(AtomicUsize::new(0));
            let run = Run { gateway: boot, waiting, told, bytes: bytes.clone(), counts: self.counts.clone() };
            tokio::spawn(run.run());
            lanes.insert(boot, Lane { last_number: 0, batches, bytes, address });
        }
        lanes.get_mut(&boot)
    }
}

/// The task of one lane. It ends when the lane is dropped.
struct Run {
    gateway: u64,
    waiting: mpsc::Receiver<DeliveryBatch>,
    told: watch::Receiver<Option<Endpoint>>,
    bytes: Arc<AtomicUsize>,
    counts: Arc<DeliveryCounts>,
}

impl Run {
    async fn run(mut self) {
        let Ok(Some(address)) = self.told.wait_for(Option::is_some).await.map(|address| address.clone()) else {
            return;
        };
        let mut pause = FIRST_PAUSE;
        while !self.waiting.is_closed() {
            match address.connect().await {
                Ok(channel) => {
                    pause = FIRST_PAUSE;
                    self.counts.streams_opened.fetch_add(1, Ordering::Relaxed);
                    self.stream(DeliveryServiceClient::new(channel)).await;
                }
                Err(error) => tracing::warn!(%error, gateway = self.gateway, "a gateway cannot be reached"),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Moves batches until the stream breaks or the lane ends. One that was taken out when it broke is lost.
    async fn stream(&mut self, mut client: DeliveryServiceClient<tonic::transport::Channel>) {
        let (next, batches) = mpsc::channel(1);
        let mut call = std::pin::pin!(client.deliver(ReceiverStream::new(batches)));
        loop {
            tokio::select! {
                ended = &mut call => {
                    if let Err(status) = ended {
                        tracing::warn!(gateway = self.gateway, code = ?status.code(), "a delivery stream ended");
                    }
                    return;
                }
                room = next.reserve() => {
                    let Ok(room) = room else { return };
                    let Some(batch) = self.next(&mut call).await else { return };
                    room.send(batch);
                }
            }
        }
    }

    /// The next batch; `None` when the stream or the lane ended first.
    async fn next<T>(&mut self, call: &mut (impl Future<Output = T> + Unpin)) -> Option<DeliveryBatch> {
        tokio::select! {
            batch = self.waiting.recv() => {
                let batch = batch?;
                self.bytes.fetch_sub(batch.encoded_len(), Ordering::Relaxed);
                Some(batch)
            }
            _ = call => None,
        }
    }
}
