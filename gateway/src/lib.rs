//! The gateway: holds the clients' connections, a thread and an io_uring per core.
//!
//! In: bytes from clients, answers and deliveries from the logic. Out: records for the queue, questions for the logic,
//! frames for clients. Always: a core's state is `Rc` and never shared; [`lane`] is the one way into a core from another
//! thread; every queue is bounded and says what happens when it is full; nothing here knows the logic or a store.
//!
//! The path of a message through the files: `accept` → `connection` (reads, asks the session in `im_codec`) → `forward` →
//! [`Forward`] … → `lane` → `receive` → `send`. Around it: `gateway` starts and stops, `supervise` runs a core's thread,
//! `core` is a core's state, `timer` its deadlines, `admission` the limits per address, `descriptors` the limit of the process.

mod accept;
mod admission;
mod affinity;
mod config;
mod connection;
mod connection_map;
mod core;
pub mod descriptors;
mod driver;
mod faults;
mod forward;
mod gateway;
mod lane;
mod large;
mod listen;
mod metrics;
mod planted;
mod ports;
mod receive;
mod send;
mod supervise;
mod sweep;
mod timer;
mod transport;

pub use config::{Driver, GatewayConfig, StartError, WebsocketConfig};
pub use faults::{Faults, PushFault};
pub use gateway::{Gateway, GatewayHandle};
pub use lane::CoreLane;
pub use metrics::{CoreSnapshot, Snapshot};
pub use ports::{
    ASKED_AT_ONCE_MAX, AskLogic, Forward, HeldLogin, LargeHead, LargeMembers, LargeMembership, LogicAnswer, Question,
    SignInRefused, SignedIn, Upstream,
};
