//! Who signs in, and the bounds of what the client holds.
//!
//! In: the app's choices. Out: plain values. Always: a token is never printed.

use im_proto::{DeviceId, UserId};
use std::fmt;

/// A signed token as the app got it from its backend.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where a device without a sync token begins in conversations that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// At the first entry this user may read: everything is pulled.
    All,
    /// Behind the head: only what comes from now on.
    FromNow,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// The token's subject. It is needed before sign-in, because ids of direct conversations derive from it.
    pub user: UserId,
    pub device: DeviceId,
    pub platform: String,
    pub token: Token,
    pub history: History,
    /// Sends and group commands without a final answer. One more is refused with [`Full`](crate::Full).
    pub outbox_sends_max: usize,
    /// Other requests without an answer. One more is refused with [`Full`](crate::Full).
    pub requests_max: usize,
}

impl Config {
    pub fn new(user: UserId, device: DeviceId, token: impl Into<String>) -> Self {
        Self {
            user,
            device,
            platform: "rust".to_owned(),
            token: Token(token.into()),
            history: History::All,
            outbox_sends_max: 10_000,
            requests_max: 1_000,
        }
    }
}
