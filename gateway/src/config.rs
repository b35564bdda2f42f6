//! What an operator sets of a gateway, and why it may refuse to start.
//!
//! In: numbers from the configuration file. Out: a checked [`GatewayConfig`]. Always: every bound has a default here that
//! works, and [`GatewayConfig::check`] passes before a thread is started.

use crate::faults::Faults;
use im_codec::SessionLimits;
use im_codec::limits::InvalidLimits;
use im_codec::websocket::Origins;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// Cores of one gateway; their number has 16 bits in a connection id, and a delivery marks them in one word.
pub const CORES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where the kernel has none or forbids it.
    Auto,
    Uring,
    Epoll,
}

/// The second way in, for browsers.
#[derive(Debug, Clone)]
pub struct WebsocketConfig {
    pub address: SocketAddr,
    /// Whose pages may connect. A client that names no origin is no browser and may.
    pub origins: Origins,
}

#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub tcp: SocketAddr,
    /// `None`: no WebSocket.
    pub websocket: Option<WebsocketConfig>,
    /// Threads that hold connections; 0: one a processor.
    pub cores: usize,
    /// Each core keeps to one of the processors that this process may use.
    pub pin: bool,
    pub driver: Driver,
    /// Milliseconds since 1970, by the one clock of the process: for what leaves it. Deadlines run on another clock.
    pub wall_clock_ms: fn() -> i64,
    pub session: SessionLimits,
    /// Of all cores.
    pub connections_max: usize,
    pub accept_rate_per_address_per_s: u32,
    pub accept_burst_per_address: u32,
    pub unauthenticated_per_address_max: u32,
    /// Waiting output of one connection; beyond either bound pushes are dropped, and beyond the first its client is read
    /// no more until it has taken half of it.
    pub output_bytes_max: usize,
    pub output_frames_max: usize,
    /// A connection that takes nothing of its waiting output for so long is closed.
    pub stall_timeout_ms: u64,
    /// The kernel's send buffer of a connection; `None`: the kernel decides.
    pub send_buffer_bytes: Option<usize>,
    /// After a break in the deliveries the connections are hinted over this time.
    pub hint_spread_ms: u32,
    pub faults: Faults,
}

/// The wall clock, where the process gives no other.
fn system_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            tcp: SocketAddr::from((Ipv4Addr::LOCALHOST, 6100)),
            websocket: None,
            cores: 0,
            pin: true,
            driver: Driver::Auto,
            wall_clock_ms: system_ms,
            session: SessionLimits::default(),
            connections_max: 100_000,
            accept_rate_per_address_per_s: 20,
            accept_burst_per_address: 100,
            unauthenticated_per_address_max: 100,
            output_bytes_max: 256 * 1024,
            output_frames_max: 256,
            stall_timeout_ms: 20_000,
            send_buffer_bytes: None,
            hint_spread_ms: 5_000,
            faults: Faults::default(),
        }
    }
}

impl GatewayConfig {
    pub fn check(&self) -> Result<(), StartError> {
        self.session.check()?;
        if self.cores > CORES_MAX {
            return Err(StartError::Invalid("cores is at most 64"));
        }
        if self.connections_max == 0 || self.unauthenticated_per_address_max == 0 {
            return Err(StartError::Invalid("connections_max and unauthenticated_per_address_max must be at least 1"));
        }
        if self.accept_rate_per_address_per_s == 0 || self.accept_burst_per_address == 0 {
            return Err(StartError::Invalid("the accept rate and burst must be at least 1"));
        }
        if self.output_bytes_max < 1024 || self.output_frames_max == 0 {
            return Err(StartError::Invalid("output_bytes_max must be at least 1024, output_frames_max at least 1"));
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Limits(#[from] InvalidLimits),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{address} is in use by another process")]
    AddressInUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("this kernel offers no io_uring, or forbids it; use driver auto or epoll")]
    NoUring,
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}
