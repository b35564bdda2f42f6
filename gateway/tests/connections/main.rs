//! Real clients at a real gateway: who is let in, what is answered, what is bounded, and how a connection ends.
//!
//! One program, since each costs seconds to compile. Not in it: what counts or bounds descriptors of a whole process.

#![allow(clippy::unwrap_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod admission;
mod backpressure;
mod bad_input;
mod deadlines;
mod drain;
mod heartbeat;
mod large;
mod panics;
mod path;
mod slow_consumer;
mod websocket;
