//! The names of what is kept in Redis.
//!
//! In: ids. Out: keys. Always: begins with the prefix, so deployments and tests can share a server; ids hold no colon or
//! brace, so no two keys can run into each other.
//!
//! | key | what | expires |
//! |---|---|---|
//! | `i:{user}:r` | hash: log → head, ordinal, read, ordinal | never |
//! | `i:{user}:v` | zset: log by version | never |
//! | `r:{user}` | hash: device → generation and place | [`super::routes::DEVICES_TTL_MS`] after the last sign-in |
//! | `r:{user}:d` | hash: device → run and number of the last dial | as `r:{user}` |
//! | `{gateways}` | set of gateway boots | never |
//! | `{gateways}:boot` | endpoint | with the lease |
//! | `{covers}` | hash: shard → claim, cover | never |
//!
//! Braces are hash tags: all of a user lies in one slot of a cluster. What a cluster would still need: moves of one script
//! grouped by slot, and claims and covers on every master, since each loses rows by itself. Until then the adapter refuses
//! a cluster.

use super::OpenError;
use crate::ports::GatewayBoot;
use im_proto::UserId;

const PREFIX_BYTES_MAX: usize = 32;

#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Result<Self, OpenError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(plain) {
            let wanted = format!("the key prefix is at most {PREFIX_BYTES_MAX} characters of A-Z a-z 0-9 _ - . :");
            return Err(OpenError::Options(wanted));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub fn inbox_rows(&self, user: &UserId) -> String {
        format!("{}i:{{{user}}}:r", self.prefix)
    }

    pub fn inbox_order(&self, user: &UserId) -> String {
        format!("{}i:{{{user}}}:v", self.prefix)
    }

    pub fn devices(&self, user: &UserId) -> String {
        format!("{}r:{{{user}}}", self.prefix)
    }

    pub fn dials(&self, user: &UserId) -> String {
        format!("{}:d", self.devices(user))
    }

    pub fn gateways(&self) -> String {
        format!("{}{{gateways}}", self.prefix)
    }

    pub fn lease(&self, boot: GatewayBoot) -> String {
        format!("{}:{:x}", self.gateways(), boot.0)
    }

    pub fn covers(&self) -> String {
        format!("{}{{covers}}", self.prefix)
    }
}
