//! Where devices are connected, in memory.
//!
//! In: logins and their ends. Out: the logins of a user. Always: of two logins of a device the later one has the higher
//! generation; only its own end removes a login. Nothing survives a restart; devices register again.

use crate::planted::planted;
use crate::ports::{Dial, Gateway, GatewayBoot, Login, Registered, Routes, StoreError};
use async_trait::async_trait;
use dashmap::DashMap;
use im_proto::{ConnectionId, DeviceId, Generation, UserId};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Devices that left and whose last generation is still known, so that a clock that goes back lets no old login win.
/// Above it, all that belong to users without a login are forgotten.
const DEPARTED_MAX: usize = 65_536;
/// Devices remembered per user. Above it, the departed one with the oldest login is forgotten; without one, the oldest
/// login: its device gets no pushes and learns by heartbeats what moved.
const DEVICES_PER_USER_MAX: usize = 32;

#[derive(Default)]
pub struct EmbeddedRoutes {
    users: DashMap<UserId, Vec<Device>>,
    leases: DashMap<GatewayBoot, Lease>,
    departed: AtomicUsize,
}

struct Lease {
    endpoint: String,
    until: Instant,
}

struct Device {
    id: DeviceId,
    generation: Generation,
    /// `None` after it left.
    place: Option<(GatewayBoot, ConnectionId)>,
    /// Of the last sign-in, if it said so.
    dial: Option<Dial>,
}

impl Device {
    fn login(&self, user: &UserId) -> Option<Login> {
        let (gateway, connection) = self.place?;
        Some(Login { user: user.clone(), device: self.id.clone(), generation: self.generation, gateway, connection })
    }
}

impl EmbeddedRoutes {
    pub fn new() -> Self {
        Self::default()
    }

    fn has_lease(&self, gateway: GatewayBoot) -> bool {
        self.leases.get(&gateway).is_some_and(|lease| lease.until > Instant::now())
    }

    fn confirm_one(&self, login: &Login) -> bool {
        let place = Some((login.gateway, login.connection));
        let mut devices = self.users.entry(login.user.clone()).or_default();
        match devices.iter_mut().find(|device| device.id == login.device) {
            Some(device) if device.generation > login.generation => false,
            // It signed out while the question was on its way: its route stays gone.
            Some(device) if device.generation == login.generation => true,
            Some(device) => {
                if device.place.is_none() {
                    self.departed.fetch_sub(1, Ordering::Relaxed);
                }
                (device.generation, device.place) = (login.generation, place);
                true
            }
            None => {
                if self.make_room(&mut devices, login.generation) {
                    devices.push(Device { id: login.device.clone(), generation: login.generation, place, dial: None });
                }
                true
            }
        }
    }

    /// For one device more. False if there is none: all are logins, and above `generation`.
    fn make_room(&self, devices: &mut Vec<Device>, generation: Generation) -> bool {
        if devices.len() < DEVICES_PER_USER_MAX {
            return true;
        }
        let oldest = (0..devices.len()).min_by_key(|at| (devices[*at].place.is_some(), devices[*at].generation));
        let Some(oldest) = oldest else { return true };
        let has_left = devices[oldest].place.is_none();
        if !has_left && devices[oldest].generation > generation {
            return false;
        }
        devices.swap_remove(oldest);
        self.departed.fetch_sub(usize::from(has_left), Ordering::Relaxed);
        true
    }

    fn forget_departed(&self) {
        let mut kept = 0;
        self.users.retain(|_, devices| {
            let departed = devices.iter().filter(|device| device.place.is_none()).count();
            let stays = departed < devices.len();
            kept += if stays { departed } else { 0 };
            stays
        });
        self.departed.store(kept, Ordering::Relaxed);
    }
}

#[async_trait]
impl Routes for EmbeddedRoutes {
    async fn register(
        &self,
        user: &UserId,
        device: &DeviceId,
        gateway: GatewayBoot,
        connection: ConnectionId,
        dial: Option<Dial>,
        now_ms: i64,
    ) -> Result<Option<Registered>, StoreError> {
        let now = Generation((now_ms.max(0) as u64) << 16);
        let place = Some((gateway, connection));
        let mut devices = self.users.entry(user.clone()).or_default();
        if let Some(known) = devices.iter_mut().find(|known| known.id == *device) {
            if known.place == place && !planted("repeat_replaces") {
                return Ok(Some(Registered { generation: known.generation, replaced: None }));
            }
            let later = known.dial.zip(dial).is_some_and(|(known, dial)| known.is_behind(dial));
            if later && !planted("late_dial_replaces") {
                return Ok(None);
            }
            let replaced = known.login(user);
            if replaced.is_none() {
                self.departed.fetch_sub(1, Ordering::Relaxed);
            }
            known.generation = Generation(known.generation.0 + 1).max(now);
            (known.place, known.dial) = (place, dial);
            return Ok(Some(Registered { generation: known.generation, replaced }));
        }
        // Who signs in now is the newest, whatever the clock says.
        self.make_room(&mut devices, Generation(u64::MAX));
        let generation = now.max(Generation(1));
        devices.push(Device { id: device.clone(), generation, place, dial });
        Ok(Some(Registered { generation, replaced: None }))
    }

    async fn unregister(&self, login: &Login) -> Result<(), StoreError> {
        let mut left = false;
        if let Some(mut devices) = self.users.get_mut(&login.user) {
            let is_it = |device: &Device| match device.login(&login.user) {
                Some(own) if planted("unregister_by_device") => own.device == login.device,
                own => own.as_ref() == Some(login),
            };
            if let Some(device) = devices.iter_mut().find(|device| is_it(device)) {
                device.place = None;
                left = true;
            }
        }
        if left && self.departed.fetch_add(1, Ordering::Relaxed) >= DEPARTED_MAX {
            self.forget_departed();
        }
        Ok(())
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        // Most logins are at one gateway, so its lease is looked at once.
        let mut last = None;
        let mut alive = |gateway| match last {
            Some((known, alive)) if known == gateway => alive,
            _ => {
                let alive = self.has_lease(gateway) || planted("stale_route_accepted");
                last = Some((gateway, alive));
                alive
            }
        };
        let mut logins_of = |user: &UserId| {
            let Some(devices) = self.users.get(user) else { return Vec::new() };
            devices.iter().filter_map(|device| device.login(user)).filter(|login| alive(login.gateway)).collect()
        };
        Ok(users.iter().map(&mut logins_of).collect())
    }

    async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
        Ok(logins.iter().map(|login| self.confirm_one(login)).collect())
    }

    async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
        let now = Instant::now();
        self.leases.retain(|known, lease| *known == gateway.boot || lease.until > now);
        let until = now + Duration::from_millis(lease_ms.into());
        self.leases.insert(gateway.boot, Lease { endpoint: gateway.endpoint.clone(), until });
        Ok(())
    }

    async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError> {
        self.leases.remove(&gateway);
        Ok(())
    }

    async fn gateways(&self) -> Result<Vec<Gateway>, StoreError> {
        let now = Instant::now();
        let living = self.leases.iter().filter(|lease| lease.until > now);
        Ok(living.map(|lease| Gateway { boot: *lease.key(), endpoint: lease.endpoint.clone() }).collect())
    }
}
