//! One gateway's lane in a worker process, and the task that moves its batches.
//!
//! In: numbered batches; once, the gateway's address. Out: the same batches on one stream at a time. Always: bounded in batches
//! and bytes; a stream that broke is opened anew for as long as the lane is there; a batch that never got onto a stream is
//! counted as dropped.

use crate::delivery_service::{BATCH_BYTES_MAX, BOOT_HEADER};
use crate::generated::delivery_service_client::DeliveryServiceClient;
use crate::planted::planted;
use im_proto::internal::DeliveryBatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// What waits for one gateway; beyond either bound a batch is dropped.
pub const LANE_BATCHES_MAX: usize = 1_024;
pub const LANE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Between attempts to open a stream.
pub const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What became of the batches.
#[derive(Debug, Default)]
pub struct DeliveryCounts {
    /// Put on a stream. What is on its way when the stream breaks is lost all the same, and shows in the numbers.
    pub handed_on: AtomicU64,
    /// The lane was full or ended, or there was none.
    pub dropped: AtomicU64,
    pub streams_opened: AtomicU64,
}

/// What the lanes of a process have in common.
#[derive(Default)]
pub struct Shared {
    pub counts: DeliveryCounts,
    /// What the leases say may not hold any more.
    pub leases_wanted: Notify,
}

pub struct Lane {
    last_number: u64,
    batches: mpsc::Sender<Waiting>,
    address: watch::Sender<Option<Endpoint>>,
    state: Arc<State>,
}

/// A batch and its bytes, counted once.
struct Waiting {
    bytes: usize,
    batch: DeliveryBatch,
}

#[derive(Default)]
struct State {
    waiting_bytes: AtomicUsize,
    /// The gateway could be connected to when it was tried last, and is still the same run.
    is_reached: AtomicBool,
}

impl Lane {
    /// Must be called on a tokio runtime. `last_number`: of the lane that was here before.
    pub fn start(gateway: u64, last_number: u64, shared: Arc<Shared>) -> Self {
        let (batches, waiting) = mpsc::channel(LANE_BATCHES_MAX);
        let (address, told) = watch::channel(None);
        let state = Arc::<State>::default();
        tokio::spawn(Run { gateway, waiting, state: state.clone(), shared }.run(told));
        Self { last_number, batches, address, state }
    }

    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    pub fn has_address(&self) -> bool {
        self.address.borrow().is_some()
    }

    pub fn set_address(&self, address: Endpoint) {
        self.address.send_replace(Some(address));
    }

    pub fn is_reached(&self) -> bool {
        self.state.is_reached.load(Ordering::Relaxed)
    }

    /// (batches, bytes)
    pub fn waiting(&self) -> (usize, usize) {
        let batches = self.batches.max_capacity() - self.batches.capacity();
        (batches, self.state.waiting_bytes.load(Ordering::Relaxed))
    }

    /// Numbers the batch, and takes it unless there is no room, or it is one that no gateway would take.
    pub fn take(&mut self, bytes: usize, batch: impl FnOnce(u64) -> DeliveryBatch) -> bool {
        // Numbered first: a batch that is dropped must leave a gap.
        self.last_number += 1;
        let number = self.last_number;
        let waiting = self.state.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let is_taken = waiting <= LANE_BYTES_MAX
            && bytes <= BATCH_BYTES_MAX
            && self.batches.try_send(Waiting { bytes, batch: batch(number) }).is_ok();
        if !is_taken {
            self.last_number -= u64::from(planted("dropped_unnumbered"));
            self.state.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_taken
    }
}

/// The task of one lane. It ends when the lane is dropped.
struct Run {
    gateway: u64,
    waiting: mpsc::Receiver<Waiting>,
    state: Arc<State>,
    shared: Arc<Shared>,
}

impl Run {
    async fn run(mut self, mut told: watch::Receiver<Option<Endpoint>>) {
        if let Ok(Some(address)) = told.wait_for(Option::is_some).await.map(|address| address.clone()) {
            self.keep_a_stream(&address).await;
        }
        while let Ok(left) = self.waiting.try_recv() {
            self.state.waiting_bytes.fetch_sub(left.bytes, Ordering::Relaxed);
            self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn keep_a_stream(&mut self, address: &Endpoint) {
        let mut pause = FIRST_PAUSE;
        let mut is_another_run = false;
        while !self.waiting.is_closed() {
            match address.connect().await {
                Ok(channel) => {
                    self.state.is_reached.store(!is_another_run, Ordering::Relaxed);
                    self.shared.counts.streams_opened.fetch_add(1, Ordering::Relaxed);
                    let opened = Instant::now();
                    is_another_run = self.stream(DeliveryServiceClient::new(channel)).await;
                    // One that ends at once is refused, for whatever reason, and will be again.
                    let has_served = opened.elapsed() > LONGEST_PAUSE || planted("refused_stream_pressed");
                    if is_another_run {
                        self.state.is_reached.store(false, Ordering::Relaxed);
                        self.shared.leases_wanted.notify_one();
                    } else if has_served {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => {
                    self.state.is_reached.store(false, Ordering::Relaxed);
                    tracing::warn!(%error, gateway = self.gateway, "a gateway cannot be reached");
                }
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Moves batches until the stream breaks or the lane ends. One that was taken out when it broke is lost. Returns whether
    /// another run of the gateway lives at the address.
    async fn stream(&mut self, mut client: DeliveryServiceClient<Channel>) -> bool {
        let (next, batches) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(batches));
        request.metadata_mut().insert(BOOT_HEADER, self.gateway.into());
        let mut call = std::pin::pin!(client.deliver(request));
        let ended = loop {
            tokio::select! {
                ended = &mut call => break ended,
                room = next.reserve() => {
                    let Ok(room) = room else { break call.as_mut().await };
                    tokio::select! {
                        ended = &mut call => break ended,
                        batch = self.waiting.recv() => {
                            let Some(Waiting { bytes, batch }) = batch else { return false };
                            self.state.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                            self.shared.counts.handed_on.fetch_add(1, Ordering::Relaxed);
                            room.send(batch);
                        }
                    }
                }
            }
        };
        let Err(status) = ended else { return false };
        tracing::warn!(gateway = self.gateway, code = ?status.code(), "a delivery stream ended");
        status.code() == Code::FailedPrecondition
    }
}
