//! A gateway's lease: as long as it is renewed, its connections count as online and workers know where to deliver.
//!
//! In: the routes, and the gateway as it names itself. Out: renewals, until the lease is ended, and whether it stands. Always: a
//! renewal that fails is tried again well before the lease runs out; a lease that was not renewed for its own length is held
//! to have lapsed, though the store alone could say so.

use im_storage::ports::{Gateway, Routes, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Renewals in the time of one lease.
const RENEWALS: u32 = 3;
/// After a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub struct Lease {
    routes: Arc<dyn Routes>,
    gateway: Gateway,
    renewals: JoinHandle<()>,
    #[cfg_attr(
        not(feature = "distributed"),
        expect(dead_code, reason = "in one process nobody looks for the gateway")
    )]
    stands: watch::Receiver<bool>,
}

impl Lease {
    /// Returns when the lease stands.
    pub async fn take(routes: Arc<dyn Routes>, gateway: Gateway, lease_ms: u32) -> Result<Self, StoreError> {
        let renewed_at = Instant::now();
        routes.renew_lease(&gateway, lease_ms).await?;
        let (tell, stands) = watch::channel(true);
        let renewals = tokio::spawn(renew(routes.clone(), gateway.clone(), lease_ms, renewed_at, tell));
        Ok(Self { routes, gateway, renewals, stands })
    }

    /// Whether the lease stands, and each change of it.
    #[cfg(feature = "distributed")]
    pub fn stands(&self) -> watch::Receiver<bool> {
        self.stands.clone()
    }

    /// The connections are gone.
    pub async fn end(self) {
        self.renewals.abort();
        if let Err(error) = self.routes.end_lease(self.gateway.boot).await {
            tracing::warn!(%error, "the lease ends by itself");
        }
    }
}

async fn renew(
    routes: Arc<dyn Routes>,
    gateway: Gateway,
    lease_ms: u32,
    mut renewed_at: Instant,
    stands: watch::Sender<bool>,
) {
    let lease = Duration::from_millis(lease_ms.into());
    let interval = (lease / RENEWALS).max(Duration::from_millis(1));
    let turned = |now: bool| stands.send_if_modified(|before| std::mem::replace(before, now) != now);
    loop {
        tokio::time::sleep(interval).await;
        loop {
            // Counted from before the call: the store counts from later.
            let asked_at = Instant::now();
            let Err(error) = routes.renew_lease(&gateway, lease_ms).await else {
                renewed_at = asked_at;
                break;
            };
            tracing::warn!(%error, "the lease was not renewed");
            let has_lapsed = renewed_at.elapsed() >= lease;
            if has_lapsed && turned(false) {
                tracing::error!("the lease has lapsed: other roles do not know this gateway any more");
            }
            tokio::time::sleep(RETRY_PAUSE.min(interval)).await;
        }
        if turned(true) {
            tracing::info!("the lease stands again");
        }
    }
}

#[cfg(test)]
#[cfg(feature = "distributed")]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use im_proto::{ConnectionId, DeviceId, UserId};
    use im_storage::embedded::EmbeddedRoutes;
    use im_storage::ports::{Dial, GatewayBoot, Login, Registered};
    use std::sync::atomic::{AtomicBool, Ordering};

    const LEASE_MS: u32 = 300;
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Routes whose leases cannot be written while they are away.
    struct Cut {
        inner: EmbeddedRoutes,
        is_away: AtomicBool,
    }

    #[async_trait]
    impl Routes for Cut {
        async fn register(
            &self,
            user: &UserId,
            device: &DeviceId,
            gateway: GatewayBoot,
            connection: ConnectionId,
            dial: Option<Dial>,
            now_ms: i64,
        ) -> Result<Option<Registered>, StoreError> {
            self.inner.register(user, device, gateway, connection, dial, now_ms).await
        }

        async fn unregister(&self, login: &Login) -> Result<(), StoreError> {
            self.inner.unregister(login).await
        }

        async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
            self.inner.look_up(users).await
        }

        async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
            self.inner.confirm(logins).await
        }

        async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
            match self.is_away.load(Ordering::SeqCst) {
                true => Err(StoreError::Unavailable("away".to_owned())),
                false => self.inner.renew_lease(gateway, lease_ms).await,
            }
        }

        async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError> {
            self.inner.end_lease(gateway).await
        }

        async fn gateways(&self) -> Result<Vec<Gateway>, StoreError> {
            self.inner.gateways().await
        }
    }

    #[tokio::test]
    async fn a_lease_that_cannot_be_renewed_has_lapsed_after_its_own_length_and_stands_again_with_the_next_renewal() {
        let routes = Arc::new(Cut { inner: EmbeddedRoutes::new(), is_away: AtomicBool::new(false) });
        let gateway = Gateway { boot: GatewayBoot(7), endpoint: "http://gateway:1".to_owned() };
        let begun = Instant::now();
        let lease = Lease::take(routes.clone(), gateway, LEASE_MS).await.unwrap();
        let mut stands = lease.stands();
        assert!(*stands.borrow());
        routes.is_away.store(true, Ordering::SeqCst);
        let lapsed = tokio::time::timeout(PATIENCE, stands.wait_for(|stands| !stands)).await;
        assert!(matches!(lapsed, Ok(Ok(_))), "it never lapses");
        assert!(begun.elapsed() >= Duration::from_millis(LEASE_MS.into()), "no sooner than its length");
        drop(lapsed);
        routes.is_away.store(false, Ordering::SeqCst);
        let again = tokio::time::timeout(PATIENCE, stands.wait_for(|stands| *stands)).await;
        assert!(matches!(again, Ok(Ok(_))), "it never stands again");
        drop(again);
        lease.end().await;
        assert!(routes.gateways().await.unwrap().is_empty());
    }
}
