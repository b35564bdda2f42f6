//! What a gateway counts.
//!
//! In: a core counts into its own [`CoreMetrics`]. Out: a [`Snapshot`] for whoever asks. Always: a counter is written by
//! one thread, so counting costs no shared cache line; a snapshot may be a moment old and never tears a number.

use im_proto::client::CloseCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// The close codes, in the order of their counters.
pub const CLOSE_CODES: [CloseCode; 14] = [
    CloseCode::GoingAway,
    CloseCode::IdleTimeout,
    CloseCode::SlowConsumer,
    CloseCode::SignInTimeout,
    CloseCode::Overloaded,
    CloseCode::Internal,
    CloseCode::TokenExpired,
    CloseCode::ProtocolError,
    CloseCode::FrameTooLarge,
    CloseCode::BadToken,
    CloseCode::ReplacedByNewer,
    CloseCode::SignedOutRemotely,
    CloseCode::UserBanned,
    CloseCode::UnsupportedVersion,
];

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        // One writer: no read-modify-write is needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Written by one core.
        #[derive(Debug, Default)]
        pub struct CoreMetrics {
            $(pub $name: Counter,)*
            pub closes: [Counter; CLOSE_CODES.len()],
        }

        /// One core, at one moment. Counters since the start, but for the gauges that say so.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct CoreSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections that this side closed, by code.
            pub closes: Vec<(&'static str, u64)>,
        }

        impl CoreMetrics {
            pub fn snapshot(&self) -> CoreSnapshot {
                CoreSnapshot {
                    $($name: self.$name.get(),)*
                    closes: CLOSE_CODES.iter().zip(&self.closes).map(|(c, n)| (c.as_str_name(), n.get())).collect(),
                }
            }
        }

        impl CoreSnapshot {
            /// Every counter by name, for an exporter.
            pub fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters!(
    /// Gauge: open connections.
    connections,
    /// Gauge: those of them over WebSocket; the others are over TCP.
    websocket_connections,
    /// Gauge: those that are signed in.
    signed_in,
    accepts,
    /// Refused by a limit of connections or rate.
    accepts_refused,
    /// `accept` failed: no descriptors or memory.
    accept_errors,
    /// Requests that were no WebSocket handshake for here, or of a page that may not connect.
    handshakes_refused,
    bytes_in,
    /// Commands and sign-ins taken from clients; refused ones are not counted.
    commands,
    heartbeats,
    /// Records handed to the queue.
    forwarded,
    /// Gauge: records the queue has not taken yet.
    forward_backlog,
    /// Gauge: their bytes.
    forward_backlog_bytes,
    /// Records the queue did not take before their senders were told UNKNOWN.
    forward_given_up,
    /// Commands refused here, without the logic: badly formed, too fast, no room, no answer in time.
    commands_refused,
    /// Commands answered BUSY because the backlog was full.
    forward_refused,
    frames_out,
    bytes_out,
    /// Writes to sockets; `frames_out / writes` is how many frames one write merged.
    writes,
    /// Answers that came for a request.
    answers,
    /// Answers that nobody waited for any more.
    answers_late,
    /// Pushes that came for a connection of this core.
    pushes,
    /// Pushes left out because the client reads too slowly.
    pushes_dropped,
    /// Deliveries for a connection that is not here, or not signed in.
    not_here,
    /// Entries of large conversations that came, for however many connections of this core.
    large_records,
    /// Times the logic was asked who is in a large conversation.
    large_refreshes,
    /// Sync hints sent.
    hints,
    kicks,
    /// Gauge: deliveries and answers of the logic that wait for the core.
    lane_depth,
    /// Gauge: the bytes of their frames and lists.
    lane_bytes,
    /// Deliveries that found the core's lane full.
    lane_dropped,
    /// Connections that their client ended.
    closed_by_client,
    connection_panics,
    core_restarts,
);

impl CoreMetrics {
    pub fn closed(&self, code: CloseCode) {
        if let Some(at) = CLOSE_CODES.iter().position(|&c| c == code) {
            self.closes[at].add(1);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `io_uring` or `epoll`.
    pub driver: &'static str,
    pub cores: Vec<CoreSnapshot>,
    /// Breaks seen in the numbers of delivery batches.
    pub delivery_breaks: u64,
}

impl Snapshot {
    /// The sum of one number over all cores.
    pub fn sum(&self, of: impl Fn(&CoreSnapshot) -> u64) -> u64 {
        self.cores.iter().map(of).sum()
    }

    /// Connections that the gateway closed with `code`.
    pub fn closes(&self, code: CloseCode) -> u64 {
        self.sum(|core| core.closes.iter().filter(|(name, _)| *name == code.as_str_name()).map(|(_, n)| n).sum())
    }
}
