//! The Rust client of im-server. The tests and the load generator use it too, so nobody writes the protocol twice.
//!
//! In: what the app wants, and what the server sends. Out: events for the app. Always: [`Core`] is a state machine without
//! socket, clock, runtime or hidden randomness; a transport moves bytes and time in and out of it and decides nothing.
//!
//! One idea per file: [`backoff`] how long to wait, `connect` the link and sign-in, `heartbeat` silence, `outbox` what
//! writes conversations, in order until answered (`write` one such command), `gaps` entries in order without a hole, `sync` what moved while away, `requests` everything else,
//! `receive` one frame to the one it concerns.
#![forbid(unsafe_code)]

pub mod backoff;
mod config;
mod connect;
mod core;
mod event;
mod gaps;
mod heartbeat;
mod outbox;
mod receive;
mod requests;
mod state;
mod sync;
mod wire;
mod write;

#[cfg(feature = "monoio")]
pub mod monoio_transport;
#[cfg(feature = "tokio")]
pub mod tokio_transport;
pub mod websocket;

pub use config::{Config, History, Token};
pub use connect::LinkAction;
pub use core::{Core, Counters, PushFilter};
pub use event::{Answer, Cause, Command, Event, Full, Recipient, Refusal, Request, Ticket};
pub use state::{ClientState, ConversationCursor, InvalidState, OutboxSend};
#[cfg(feature = "tokio")]
pub use tokio_transport::{Acked, CallError, Client, Events};
