//! What the client promises, as claims, against a server that is a script: bytes in, bytes out, the time as a number.
#![allow(clippy::unwrap_used)]

mod gaps;
mod link;
mod outbox;
mod requests;
mod script;
mod state;
mod sync;
