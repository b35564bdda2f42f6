//! Connections to other roles.
//!
//! In: what an operator set. Out: addresses with all that a connection needs. Always: certificates were read before, once; with
//! TLS no address is connected to without it.

use crate::config::{ConfigError, ConnectOptions};
use crate::tls::{self, ClientTls};
use std::net::IpAddr;
use std::time::Duration;
use tonic::transport::{Endpoint, Uri};

/// What all connections to one service have in common.
pub struct Connect {
    timeout: Duration,
    keep_alive: Duration,
    tls: Option<ClientTls>,
}

impl Connect {
    pub fn new(options: &ConnectOptions) -> Result<Self, ConfigError> {
        let tls = options.tls.as_ref().map(|tls| tls::of_client(tls, options.timeout)).transpose()?;
        Ok(Self { timeout: options.timeout, keep_alive: options.keep_alive, tls })
    }

    pub fn endpoint(&self, address: &str) -> Result<Endpoint, ConfigError> {
        let endpoint = Endpoint::from(uri(address, self.tls.is_some())?)
            .connect_timeout(self.timeout)
            .http2_keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        match &self.tls {
            Some(tls) => tls.protect(endpoint),
            None => Ok(endpoint),
        }
    }
}

/// Whether others could connect to what a role tells them as its address.
pub fn check_advertised(address: &str, is_tls: bool) -> Result<(), ConfigError> {
    let uri = uri(address, is_tls)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(ConfigError::Unspecified(address.to_owned())),
        _ => Ok(()),
    }
}

/// Its scheme says whether TLS is spoken, so it must be the one that was configured.
pub(crate) fn uri(address: &str, is_tls: bool) -> Result<Uri, ConfigError> {
    let scheme = if is_tls { "https" } else { "http" };
    let uri = address.parse::<Uri>().ok();
    let fits = uri.filter(|uri| uri.scheme_str() == Some(scheme) && uri.host().is_some_and(|host| !host.is_empty()));
    fits.ok_or_else(|| ConfigError::Endpoint(address.to_owned()))
}
