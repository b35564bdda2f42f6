//! A gateway's lease: as long as it is renewed, its connections count as online and workers know where to deliver.
//!
//! In: the routes, and the gateway as it names itself. Out: renewals, until the lease is ended. Always: a renewal that fails
//! is tried again well before the lease runs out.

use im_storage::ports::{Gateway, Routes, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Renewals in the time of one lease.
const RENEWALS: u32 = 3;
/// After a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub struct Lease {
    routes: Arc<dyn Routes>,
    gateway: Gateway,
    renewals: JoinHandle<()>,
}

impl Lease {
    /// Returns when the lease stands.
    pub async fn take(routes: Arc<dyn Routes>, gateway: Gateway, lease_ms: u32) -> Result<Self, StoreError> {
        routes.renew_lease(&gateway, lease_ms).await?;
        let renewals = tokio::spawn(renew(routes.clone(), gateway.clone(), lease_ms));
        Ok(Self { routes, gateway, renewals })
    }

    /// The connections are gone.
    pub async fn end(self) {
        self.renewals.abort();
        if let Err(error) = self.routes.end_lease(self.gateway.boot).await {
            tracing::warn!(%error, "the lease ends by itself");
        }
    }
}

async fn renew(routes: Arc<dyn Routes>, gateway: Gateway, lease_ms: u32) {
    let interval = Duration::from_millis(u64::from(lease_ms / RENEWALS).max(1));
    loop {
        tokio::time::sleep(interval).await;
        while let Err(error) = routes.renew_lease(&gateway, lease_ms).await {
            tracing::warn!(%error, "the lease was not renewed");
            tokio::time::sleep(RETRY_PAUSE.min(interval)).await;
        }
    }
}
