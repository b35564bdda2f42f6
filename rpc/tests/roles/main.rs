//! Real servers and clients of both roles over loopback.
#![allow(clippy::unwrap_used)]

mod calls;
mod certificates;
mod deliveries;
mod logic;
mod silence;
