//! The transports over real sockets: each goes through the same scene against a server that drops the first link.

#![allow(clippy::unwrap_used)]

mod on_monoio;
mod on_tokio;
mod scene;
