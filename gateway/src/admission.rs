//! Who may connect: bounds of connections, and per client address.
//!
//! In: accepted addresses, from every core. Out: a [`Permit`], or why not. Always: what a permit counts is given back when
//! it is dropped; the table of addresses is bounded and forgets those that have nothing to remember.

use crate::config::GatewayConfig;
use im_codec::rate::Bucket;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses remembered at once. Beyond it a new address is refused until others are forgotten.
const ADDRESSES_MAX: usize = 65_536;
/// How often the whole table is looked through for addresses to forget, at most.
const SWEEP_INTERVAL_MS: u64 = 1_000;

pub struct Admission {
    connections: AtomicUsize,
    connections_max: usize,
    rate_per_s: u32,
    burst: u32,
    unauthenticated_max: u32,
    addresses: Mutex<Addresses>,
}

#[derive(Default)]
struct Addresses {
    by_address: HashMap<IpAddr, Address>,
    swept_at_ms: u64,
}

struct Address {
    bucket: Bucket,
    unauthenticated: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    ConnectionsMax,
    AcceptRate,
    UnauthenticatedMax,
    AddressesMax,
}

impl Admission {
    pub fn new(config: &GatewayConfig) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            connections_max: config.connections_max,
            rate_per_s: config.accept_rate_per_address_per_s,
            burst: config.accept_burst_per_address,
            unauthenticated_max: config.unauthenticated_per_address_max,
            addresses: Mutex::default(),
        })
    }

    pub fn admit(self: &Arc<Self>, address: IpAddr, now_ms: u64) -> Result<Permit, Refused> {
        let address = limited_as(address);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.by_address.contains_key(&address) {
            self.make_room(&mut addresses, now_ms)?;
        }
        let known = addresses
            .by_address
            .entry(address)
            .or_insert_with(|| Address { bucket: Bucket::full(self.burst, now_ms), unauthenticated: 0 });
        known.bucket.take(self.rate_per_s, self.burst, now_ms).map_err(|_| Refused::AcceptRate)?;
        if known.unauthenticated >= self.unauthenticated_max {
            return Err(Refused::UnauthenticatedMax);
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::ConnectionsMax);
        }
        known.unauthenticated += 1;
        Ok(Permit { admission: self.clone(), unauthenticated: Some(address) })
    }

    fn make_room(&self, addresses: &mut Addresses, now_ms: u64) -> Result<(), Refused> {
        if addresses.by_address.len() < ADDRESSES_MAX {
            return Ok(());
        }
        if now_ms.saturating_sub(addresses.swept_at_ms) >= SWEEP_INTERVAL_MS {
            addresses.swept_at_ms = now_ms;
            let (rate, burst) = (self.rate_per_s, self.burst);
            addresses.by_address.retain(|_, a| a.unauthenticated > 0 || !a.bucket.is_full(rate, burst, now_ms));
        }
        if addresses.by_address.len() < ADDRESSES_MAX { Ok(()) } else { Err(Refused::AddressesMax) }
    }
}

/// One open connection.
pub struct Permit {
    admission: Arc<Admission>,
    unauthenticated: Option<IpAddr>,
}

impl Permit {
    /// The connection has signed in and no longer counts against its address.
    pub fn authenticated(&mut self) {
        let Some(address) = self.unauthenticated.take() else { return };
        let mut addresses = self.admission.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.by_address.get_mut(&address) {
            known.unauthenticated -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.authenticated();
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// IPv6 clients own a /64 at least, so that is what is limited.
fn limited_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(change: impl FnOnce(&mut GatewayConfig)) -> Arc<Admission> {
        let mut config = GatewayConfig::default();
        change(&mut config);
        Admission::new(&config)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_hold_all_places_of_unauthenticated_connections() {
        let admission = admission(|c| c.unauthenticated_per_address_max = 2);
        let mut held: Vec<_> = (0..2).map(|_| admission.admit(address("10.0.0.1"), 0).unwrap()).collect();
        assert_eq!(admission.admit(address("10.0.0.1"), 0).err(), Some(Refused::UnauthenticatedMax));
        assert!(admission.admit(address("10.0.0.2"), 0).is_ok());
        held[0].authenticated();
        assert!(admission.admit(address("10.0.0.1"), 0).is_ok());
    }

    #[test]
    fn the_accept_rate_of_an_address_is_bounded() {
        let admission = admission(|c| (c.accept_burst_per_address, c.accept_rate_per_address_per_s) = (2, 10));
        for _ in 0..2 {
            assert!(admission.admit(address("10.0.0.1"), 0).is_ok());
        }
        assert_eq!(admission.admit(address("10.0.0.1"), 0).err(), Some(Refused::AcceptRate));
        assert!(admission.admit(address("10.0.0.1"), 100).is_ok());
    }

    #[test]
    fn a_closed_connection_gives_its_place_back() {
        let admission = admission(|c| c.connections_max = 1);
        let permit = admission.admit(address("10.0.0.1"), 0).unwrap();
        assert_eq!(admission.admit(address("10.0.0.2"), 0).err(), Some(Refused::ConnectionsMax));
        drop(permit);
        assert!(admission.admit(address("10.0.0.2"), 0).is_ok());
    }

    #[test]
    fn an_ipv6_client_is_limited_by_its_network() {
        assert_eq!(limited_as(address("2001:db8:1:2:3::1")), limited_as(address("2001:db8:1:2:4::9")));
        assert_eq!(limited_as(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
