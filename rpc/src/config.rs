//! What an operator sets of a gRPC server or client.
//!
//! In: values of the configuration file. Out: values checked before anything is connected. Always: a certificate is read
//! once, at start; a private key is never printed.

use crate::connect::uri;
use std::path::PathBuf;
use std::time::Duration;

/// How a service is reached.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// `http://host:port` or, with TLS, `https://host:port`. Calls go to all of them by turns; one that is away is passed
    /// over.
    pub endpoints: Vec<String>,
    /// Of one attempt.
    pub timeout: Duration,
    /// A call that got no answer is repeated, at another endpoint where there is one.
    pub attempts: u32,
    pub connect: ConnectOptions,
}

impl CallOptions {
    /// One connection to each endpoint does for both.
    pub(crate) fn reaches_the_same_as(&self, other: &Self) -> bool {
        (&self.endpoints, &self.connect) == (&other.endpoints, &other.connect)
    }

    /// Whether they can be used, but for the files that they name. Asks nobody.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.endpoints.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        self.endpoints.iter().try_for_each(|address| uri(address, self.connect.tls.is_some()).map(drop))
    }
}

/// How each service of the logic roles is reached. Those that are reached alike share their connections.
#[derive(Debug, Clone)]
pub struct LogicOptions {
    pub session: CallOptions,
    pub conversation: CallOptions,
    pub device: CallOptions,
}

impl LogicOptions {
    pub fn alike(options: &CallOptions) -> Self {
        Self { session: options.clone(), conversation: options.clone(), device: options.clone() }
    }
}

/// How a connection is made and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Until it stands.
    pub timeout: Duration,
    /// A peer that was silent for so long is asked for a sign of life; without one for as long again it is gone.
    pub keep_alive: Duration,
    pub tls: Option<TlsOptions>,
}

/// Mutual TLS: both ends show a certificate of the same authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM: who signs.
    pub authority: PathBuf,
    /// PEM: this end's certificate and key.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The DNS names of which the other end's certificate must carry one, exactly.
    pub peer_names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{what} {path}: {error}")]
    File { what: &'static str, path: PathBuf, error: std::io::Error },
    #[error("{0:?} is no address like http://host:port, or with TLS https://host:port")]
    Endpoint(String),
    #[error("no endpoint is named")]
    NoEndpoint,
    #[error("{0:?} names no host that others could connect to")]
    Unspecified(String),
    #[error("peer_names is empty: nobody could connect")]
    NoPeerNames,
    #[error("tls: {0}")]
    Tls(String),
}
