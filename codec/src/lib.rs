//! The protocol without I/O: delimited frames and the session state machine of the gateway.
//!
//! In: bytes as they arrive, the time as a number, what the logic answered. Out: frames, and the actions a gateway has to
//! take. Always: no socket, clock, runtime or async here; everything that can happen on a connection can be written down
//! as a test, and nothing a peer sends makes this crate panic or hold more memory than the limits name.
#![forbid(unsafe_code)]

pub mod command;
pub mod error;
pub mod frame;
pub mod given;
pub mod limits;
pub mod pending;
pub mod rate;
pub mod session;
pub mod websocket;

pub use error::{CloseReason, FrameError, Refused};
pub use frame::{Deframer, HEARTBEAT, Incoming, encode_delimited};
pub use limits::SessionLimits;
pub use session::{Action, Login, Session};
