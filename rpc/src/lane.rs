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
/// A stream that ended earlier may have been refused: the next one is not hurried.
const LIVED: Duration = Duration::from_secs(1);

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
    /// The gateway could be connected to when it was tried last, refused no stream, and is still the same run.
    is_reached: AtomicBool,
}

impl State {
    fn reached(&self, is_reached: bool) {
        self.is_reached.store(is_reached, Ordering::Relaxed);
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It broke, or the lane ended: the next one may go well.
    Broken,
    /// The next one would be refused too, until somebody mends something.
    Refused,
    /// Another run of the gateway lives at the address.
    AnotherRun,
}

impl Ended {
    fn by(code: Code) -> Self {
        match code {
            Code::FailedPrecondition => Self::AnotherRun,
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
                if !planted("refused_lane_stays") =>
            {
                Self::Refused
            }
            _ => Self::Broken,
        }
    }
}

/// The pauses between attempts: each twice the one before, until a stream lives.
struct Pauses(Duration);

impl Pauses {
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= LIVED || planted("refusals_hurried") {
            self.0 = FIRST_PAUSE;
        }
        let next = LONGEST_PAUSE.min(self.0 * 2);
        std::mem::replace(&mut self.0, next)
    }

    fn is_longest(&self) -> bool {
        self.0 == LONGEST_PAUSE
    }
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
        let mut pauses = Pauses(FIRST_PAUSE);
        let mut ended = Ended::Broken;
        while !self.waiting.is_closed() {
            let mut lived = Duration::ZERO;
            match address.connect().await {
                Ok(channel) => {
                    // What takes connections and keeps no stream is no gateway either.
                    self.state.reached(ended == Ended::Broken && !pauses.is_longest());
                    self.shared.counts.streams_opened.fetch_add(1, Ordering::Relaxed);
                    let since = Instant::now();
                    ended = self.stream(DeliveryServiceClient::new(channel)).await;
                    lived = since.elapsed();
                    if ended != Ended::Broken {
                        self.state.reached(false);
                    }
                    if ended == Ended::AnotherRun {
                        self.shared.leases_wanted.notify_one();
                    }
                }
                Err(error) => {
                    self.state.reached(false);
                    tracing::warn!(%error, gateway = self.gateway, "a gateway cannot be reached");
                }
            }
            tokio::time::sleep(pauses.after(lived)).await;
        }
    }

    /// Moves batches until the stream breaks or the lane ends. One that was taken out when it broke is lost.
    async fn stream(&mut self, mut client: DeliveryServiceClient<Channel>) -> Ended {
        let (next, batches) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(batches));
        request.metadata_mut().insert(BOOT_HEADER, self.gateway.into());
        let mut call = std::pin::pin!(client.deliver(request));
        let mut lives = std::pin::pin!(tokio::time::sleep(LIVED));
        let mut has_lived = false;
        let ended = loop {
            tokio::select! {
                ended = &mut call => break ended,
                () = &mut lives, if !has_lived => {
                    has_lived = true;
                    self.state.reached(true);
                }
                room = next.reserve() => {
                    let Ok(room) = room else { break call.as_mut().await };
                    tokio::select! {
                        ended = &mut call => break ended,
                        () = &mut lives, if !has_lived => {
                            has_lived = true;
                            self.state.reached(true);
                        }
                        batch = self.waiting.recv() => {
                            let Some(Waiting { bytes, batch }) = batch else { return Ended::Broken };
                            self.state.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                            self.shared.counts.handed_on.fetch_add(1, Ordering::Relaxed);
                            room.send(batch);
                        }
                    }
                }
            }
        };
        let Err(status) = ended else { return Ended::Broken };
        tracing::warn!(gateway = self.gateway, code = ?status.code(), "a delivery stream ended");
        Ended::by(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_end_at_once_are_opened_ever_more_seldom_until_one_has_lived() {
        let mut pauses = Pauses(FIRST_PAUSE);
        let all: Vec<Duration> = (0..10).map(|_| pauses.after(Duration::ZERO)).collect();
        assert!(all.windows(2).all(|pair| pair[1] == LONGEST_PAUSE.min(pair[0] * 2)), "{all:?}");
        assert_eq!((all[0], all[9]), (FIRST_PAUSE, LONGEST_PAUSE));
        assert_eq!(pauses.after(LIVED), FIRST_PAUSE);
    }
}
