//! The adapters on Redis: where devices are connected, and what moved for whom.
//!
//! In: options. Out: a [`RedisRoutes`] and a [`RedisInbox`], each on one connection of its own. Always: Redis may lose
//! everything it holds at any time without harm: generations, versions and fences are lifted by the clock, and a cover over
//! rows that may be gone is refused. Every call ends within [`link::CALL_TIMEOUT`].

mod answer;
mod claims;
mod inbox;
mod keys;
mod leases;
mod link;
mod routes;
mod scripts;
mod server;

pub use inbox::RedisInbox;
pub use routes::RedisRoutes;

use crate::finding::Finding;
use crate::ports::StoreError;
use keys::Keys;
use link::Link;
use std::{fmt, sync::Arc};

#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port/db`; `rediss://` with the feature `redis-tls`.
    pub url: String,
    /// Begins every key.
    pub prefix: String,
    /// Unsafe settings of the server that are accepted, by the names of their [`Finding`]s.
    pub allow: Vec<String>,
}

impl RedisOptions {
    /// Whether they can be used. Asks no server.
    pub fn check(&self) -> Result<(), OpenError> {
        Keys::new(&self.prefix)?;
        Link::new(self).map(drop)
    }
}

/// The URL may hold a password.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, prefix, allow } = self;
        f.debug_struct("RedisOptions").field("prefix", prefix).field("allow", allow).finish_non_exhaustive()
    }
}

/// Why the adapters could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("redis: {0}")]
    Options(String),
    #[error("{0}; mend it, or name it in the allow list")]
    Unsafe(Finding),
    #[error("redis: {0}")]
    Store(#[from] StoreError),
}

pub struct RedisStore {
    routes: Arc<RedisRoutes>,
    inbox: Arc<RedisInbox>,
}

impl RedisStore {
    /// Connects and looks at the server's settings. They are looked at again on every new connection, which may lead to
    /// another server.
    pub async fn open(options: &RedisOptions) -> Result<Self, OpenError> {
        let keys = Keys::new(&options.prefix)?;
        let (of_routes, of_inbox) = (Link::new(options)?, Link::new(options)?);
        of_routes.open().await?;
        of_inbox.open().await?;
        let routes = Arc::new(RedisRoutes::new(of_routes, keys.clone()));
        Ok(Self { routes, inbox: Arc::new(RedisInbox::new(of_inbox, keys)) })
    }

    pub fn routes(&self) -> Arc<RedisRoutes> {
        self.routes.clone()
    }

    pub fn inbox(&self) -> Arc<RedisInbox> {
        self.inbox.clone()
    }

    /// What an operator should know of the server, the worst first. Opens nothing and changes nothing.
    pub async fn check(options: &RedisOptions) -> Result<Vec<Finding>, OpenError> {
        Keys::new(&options.prefix)?;
        Ok(Link::new(options)?.findings().await?)
    }
}
