//! Starting, feeding and stopping a gateway.
//!
//! In: a configuration and the two ports. Out: a [`GatewayHandle`] that any thread may use. Always: no call of the handle
//! waits for a core, but for [`GatewayHandle::join`]; deliveries go to the lane of the core that owns their connection, and
//! each core is woken once per call.

use crate::admission::Admission;
use crate::affinity;
use crate::config::{CORES_MAX, GatewayConfig, StartError};
use crate::descriptors;
use crate::driver::{self, Chosen};
use crate::lane::{Command, CoreLane, LaneEvent};
use crate::large::Record;
use crate::listen::{self, Addresses, Listening};
use crate::metrics::{CoreMetrics, CoreSnapshot, Counter, Snapshot};
use crate::ports::{AskLogic, Forward};
use crate::supervise;
use im_codec::SessionLimits;
use im_proto::{ConnectionId, TraceId, internal};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Workers whose batch numbers are remembered. One more forgets the others: their next batches cannot show a break.
const WORKERS_MAX: usize = 1024;

/// What all cores of a gateway have in common; read only, but for counters.
pub struct Shared {
    pub config: GatewayConfig,
    pub session_limits: Arc<SessionLimits>,
    pub boot: u64,
    pub addresses: Addresses,
    pub driver: Chosen,
    pub lanes: Vec<CoreLane>,
    pub metrics: Vec<CoreMetrics>,
    /// Outlive a core's restart.
    pub connection_counters: Vec<AtomicU64>,
    pub trace_counters: Vec<AtomicU64>,
    pub admission: Arc<Admission>,
    pub forward: Arc<dyn Forward>,
    pub logic: Arc<dyn AskLogic>,
    started: Instant,
}

impl Shared {
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

pub struct Gateway;

impl Gateway {
    /// Listens and starts the cores. When this returns, clients can connect.
    pub fn start(
        config: GatewayConfig,
        forward: Arc<dyn Forward>,
        logic: Arc<dyn AskLogic>,
    ) -> Result<GatewayHandle, StartError> {
        config.check()?;
        descriptors::allow(config.connections_max);
        let processors = affinity::allowed_processors();
        let cores = match config.cores {
            0 => processors.len().clamp(1, CORES_MAX),
            cores => cores,
        };
        let driver = driver::choose(config.driver)?;
        let (listening, addresses) = listen::listen_all(&config, cores)?;
        let pin = config.pin && cores <= processors.len();
        let shared = Arc::new(Shared {
            session_limits: Arc::new(config.session.clone()),
            boot: random_boot(),
            addresses,
            driver,
            lanes: (0..cores).map(|_| CoreLane::default()).collect(),
            metrics: (0..cores).map(|_| CoreMetrics::default()).collect(),
            connection_counters: (0..cores).map(|_| AtomicU64::new(1)).collect(),
            trace_counters: (0..cores).map(|_| AtomicU64::new(1)).collect(),
            admission: Admission::new(&config),
            forward,
            logic,
            started: Instant::now(),
            config,
        });
        let handle = GatewayHandle(Arc::new(Handle { shared, threads: Mutex::default(), workers: Mutex::default() }));
        for (index, listening) in listening.into_iter().enumerate() {
            let processor = if pin { processors.get(index).copied() } else { None };
            if let Err(error) = handle.start_core(index as u16, listening, processor) {
                handle.shutdown();
                handle.join();
                return Err(StartError::Thread(error));
            }
        }
        let Addresses { tcp, websocket } = addresses;
        tracing::info!(%tcp, ?websocket, cores, driver = driver.name(), "gateway listens");
        Ok(handle)
    }
}

/// A running gateway. Clones are the same gateway.
#[derive(Clone)]
pub struct GatewayHandle(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    /// The last batch number by worker boot.
    last: HashMap<u64, u64>,
    breaks: Counter,
}

impl GatewayHandle {
    /// Names this run of the gateway. Random, never 0.
    pub fn boot(&self) -> u64 {
        self.0.shared.boot
    }

    pub fn tcp_address(&self) -> SocketAddr {
        self.0.shared.addresses.tcp
    }

    /// `None`: not configured.
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.0.shared.addresses.websocket
    }

    /// `io_uring` or `epoll`.
    pub fn driver(&self) -> &'static str {
        self.0.shared.driver.name()
    }

    /// Hands deliveries to the cores that own their connections.
    pub fn deliver(&self, deliveries: Vec<internal::Delivery>) {
        let mut touched = 0u64;
        for delivery in deliveries {
            let trace = TraceId::from_wire(delivery.trace);
            match delivery.kind {
                Some(internal::delivery::Kind::Answer(answer)) => {
                    self.push(ConnectionId(answer.connection_id), LaneEvent::Answer { answer, trace }, &mut touched);
                }
                Some(internal::delivery::Kind::Kick(kick)) => {
                    self.push(ConnectionId(kick.connection_id), LaneEvent::Kick(kick), &mut touched);
                }
                Some(internal::delivery::Kind::Push(push)) => self.push_split(push, trace, &mut touched),
                Some(internal::delivery::Kind::LargePush(push)) => self.push_large(push, trace, &mut touched),
                None => {}
            }
        }
        for (index, lane) in self.0.shared.lanes.iter().enumerate() {
            if touched & (1 << index) != 0 {
                lane.wake();
            }
        }
    }

    /// Like [`deliver`](Self::deliver), and hints all connections when a batch of this worker was lost on the way.
    pub fn deliver_batch(&self, batch: internal::DeliveryBatch) {
        if self.is_break(batch.worker_boot, batch.number) {
            self.hint_all();
        }
        self.deliver(batch.deliveries);
    }

    /// Tells every signed-in connection, spread over seconds, to sync.
    pub fn hint_all(&self) {
        self.command(Command::Hint);
    }

    /// Stops accepting, and closes every connection with GOING_AWAY, spread over `spread_ms`. Returns at once; see
    /// [`connections`](Self::connections).
    pub fn drain(&self, spread_ms: u64) {
        self.command(Command::Drain { spread_ms });
    }

    /// Open connections of all cores.
    pub fn connections(&self) -> u64 {
        self.0.shared.metrics.iter().map(|m| m.connections.get()).sum()
    }

    /// Ends every connection and core now. Returns at once; [`join`](Self::join) waits.
    pub fn shutdown(&self) {
        self.command(Command::Stop);
    }

    /// Waits for the cores that [`shutdown`](Self::shutdown) ends.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a core's thread panicked outside its supervision");
            }
        }
    }

    pub fn metrics(&self) -> Snapshot {
        Snapshot {
            driver: self.driver(),
            cores: self.0.shared.metrics.iter().zip(&self.0.shared.lanes).map(snapshot).collect(),
            delivery_breaks: self.workers().breaks.get(),
        }
    }

    fn start_core(&self, index: u16, listening: Listening, processor: Option<usize>) -> std::io::Result<()> {
        let shared = self.0.shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("im-core-{index}"))
            .spawn(move || supervise::run(index, shared, listening, processor))?;
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn push(&self, connection: ConnectionId, event: LaneEvent, touched: &mut u64) {
        let core = self.core_of(connection.0);
        self.0.shared.lanes[core].push(event);
        *touched |= 1 << core;
    }

    /// An id of no core here is of another boot. The first core finds that it is not there, and counts it.
    fn core_of(&self, connection: u64) -> usize {
        let core = usize::from(ConnectionId(connection).core());
        if core < self.0.shared.lanes.len() { core } else { 0 }
    }

    fn push_split(&self, push: internal::Push, trace: Option<TraceId>, touched: &mut u64) {
        let internal::Push { frame, targets } = push;
        let Some(first) = targets.first().map(|t| ConnectionId(t.connection_id)) else { return };
        let core = self.core_of(first.0);
        if targets.iter().all(|t| self.core_of(t.connection_id) == core) {
            return self.push(first, LaneEvent::Push { frame, targets, trace }, touched);
        }
        let mut by_core: Vec<Vec<internal::Target>> = vec![Vec::new(); self.0.shared.lanes.len()];
        for target in targets {
            by_core[self.core_of(target.connection_id)].push(target);
        }
        for targets in by_core {
            if let Some(first) = targets.first().map(|t| ConnectionId(t.connection_id)) {
                self.push(first, LaneEvent::Push { frame: frame.clone(), targets, trace }, touched);
            }
        }
    }

    /// Any core may have members of it.
    fn push_large(&self, push: internal::LargePush, trace: Option<TraceId>, touched: &mut u64) {
        let Some(record) = Record::parse(push, trace).map(Arc::new) else {
            tracing::error!("a worker sent an entry of a large conversation with an id that is none");
            return;
        };
        for (core, lane) in self.0.shared.lanes.iter().enumerate() {
            lane.push(LaneEvent::Large(record.clone()));
            *touched |= 1 << core;
        }
    }

    fn is_break(&self, worker: u64, number: u64) -> bool {
        let mut workers = self.workers();
        if workers.last.len() >= WORKERS_MAX && !workers.last.contains_key(&worker) {
            workers.last.clear();
        }
        let last = workers.last.insert(worker, number);
        // The first batch seen of a worker is number 1, unless earlier ones were lost.
        let is_break = number != last.unwrap_or(0) + 1;
        workers.breaks.add(u64::from(is_break));
        is_break
    }

    fn command(&self, command: Command) {
        for lane in &self.0.shared.lanes {
            lane.command(command);
        }
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Workers> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn snapshot((metrics, lane): (&CoreMetrics, &CoreLane)) -> CoreSnapshot {
    let (lane_depth, lane_bytes, lane_dropped) = (lane.depth(), lane.bytes(), lane.dropped());
    CoreSnapshot { lane_depth, lane_bytes, lane_dropped, ..metrics.snapshot() }
}

/// A `RandomState` has random keys of the operating system's.
fn random_boot() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}
