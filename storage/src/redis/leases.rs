//! Which gateways are alive.
//!
//! In: renewals. Out: gateways with a lease. Always: a lease is a key that Redis lets expire, so no clock of ours matters;
//! that a gateway is alive is believed for [`LEASES_CACHED`], that it is not is never believed without asking.

use super::{
    answer::{damaged, pairs},
    keys::Keys,
    link::Link,
    scripts::{self, GATEWAYS, LEASE},
};
use crate::ports::{Gateway, GatewayBoot, StoreError};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Saves most look-ups a question; short beside a lease.
const LEASES_CACHED: Duration = Duration::from_millis(100);

const PLACE: &str = "the gateways";

pub struct Leases {
    cached: Mutex<Option<(Instant, Arc<HashSet<GatewayBoot>>)>>,
}

impl Leases {
    pub fn new() -> Self {
        Self { cached: Mutex::new(None) }
    }

    fn cached(&self) -> MutexGuard<'_, Option<(Instant, Arc<HashSet<GatewayBoot>>)>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews the gateway's lease, or ends it with `lease_ms` 0.
    pub async fn set(&self, link: &Link, keys: &Keys, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
        let mut command = scripts::call(&LEASE, &[keys.gateways(), keys.lease(gateway.boot)]);
        command.arg(format!("{:x}", gateway.boot.0)).arg(&gateway.endpoint).arg(lease_ms);
        let answer = link.run_one(command).await;
        *self.cached() = None;
        answer.map(drop)
    }

    pub async fn gateways(&self, link: &Link, keys: &Keys) -> Result<Vec<Gateway>, StoreError> {
        let (answer, _) = link.run_one(scripts::call(&GATEWAYS, &[keys.gateways()])).await?;
        let gateway = |(boot, endpoint): (String, String)| {
            let boot = u64::from_str_radix(&boot, 16).map_err(|_| damaged(PLACE))?;
            Ok(Gateway { boot: GatewayBoot(boot), endpoint })
        };
        pairs(answer, PLACE)?.into_iter().map(gateway).collect()
    }

    /// The living ones, among them all of `asked` that are alive.
    pub async fn living(
        &self,
        link: &Link,
        keys: &Keys,
        asked: &HashSet<GatewayBoot>,
    ) -> Result<Arc<HashSet<GatewayBoot>>, StoreError> {
        if let Some((at, living)) = &*self.cached()
            && at.elapsed() < LEASES_CACHED
            && asked.is_subset(living)
        {
            return Ok(living.clone());
        }
        let asked_at = Instant::now();
        let living = self.gateways(link, keys).await?.into_iter().map(|gateway| gateway.boot);
        let living = Arc::new(living.collect::<HashSet<_>>());
        *self.cached() = Some((asked_at, living.clone()));
        Ok(living)
    }
}
