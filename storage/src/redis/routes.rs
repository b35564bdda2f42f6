//! Where devices are connected, in Redis: one hash per user.
//!
//! In: logins and their ends. Out: the logins of a user. Always: each change is one script, so of two at once the second
//! sees the first; a device that left keeps its generation for [`DEVICES_TTL_MS`], so no older login comes back even if a
//! clock does; only exactly this login is ended.

use super::{
    answer::{damaged, list, number, pairs, text},
    keys::Keys,
    leases::Leases,
    link::{Link, bounded},
    scripts::{self, CONFIRM, REGISTER, UNREGISTER},
};
use crate::planted::planted;
use crate::ports::{Dial, Gateway, GatewayBoot, Login, Registered, Routes, StoreError};
use async_trait::async_trait;
use im_proto::{ConnectionId, DeviceId, Generation, UserId};
use redis::{Cmd, Script, Value};
use std::collections::HashSet;

/// Devices of a user for whom nobody signs in or sends heartbeats are forgotten after this. A heartbeat writes only once
/// less than half is left.
pub const DEVICES_TTL_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Devices remembered per user. Above it, the departed one with the oldest login is forgotten; without one, the oldest
/// login: its device gets no pushes and learns by heartbeats what moved.
const DEVICES_PER_USER_MAX: usize = 32;

/// Each that fails has seen another sign-in of the same device succeed: so many at once end well.
const REGISTER_ATTEMPTS_MAX: usize = 64;

const PLACE: &str = "a route";

pub struct RedisRoutes {
    link: Link,
    keys: Keys,
    leases: Leases,
}

/// What a user's hash holds for a device.
struct Device {
    generation: Generation,
    /// `None` after it left.
    place: Option<(GatewayBoot, ConnectionId)>,
}

impl Device {
    fn decode(value: &str) -> Option<Self> {
        let mut parts = value.split(' ');
        let mut half = || parts.next()?.parse::<u32>().ok().map(u64::from);
        let generation = Generation(half()? << 32 | half()?);
        let place = match parts.next() {
            Some(gateway) => Some((
                GatewayBoot(u64::from_str_radix(gateway, 16).ok()?),
                ConnectionId(u64::from_str_radix(parts.next()?, 16).ok()?),
            )),
            None => None,
        };
        Some(Self { generation, place })
    }

    fn login(self, user: &UserId, device: DeviceId) -> Option<Login> {
        let (gateway, connection) = self.place?;
        Some(Login { user: user.clone(), device, generation: self.generation, gateway, connection })
    }
}

/// A generation as Lua can count it.
fn halves(generation: Generation) -> [u64; 2] {
    [generation.0 >> 32, generation.0 & 0xffff_ffff]
}

fn place_text(gateway: GatewayBoot, connection: ConnectionId) -> String {
    format!("{:x} {:x}", gateway.0, connection.0)
}

impl RedisRoutes {
    pub(super) fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys, leases: Leases::new() }
    }

    /// A call of `confirm`; `register` takes another key and some arguments more, and the generation as the least that it may be.
    fn put(&self, script: &Script, keys: &[String], login: &Login) -> Cmd {
        let mut command = scripts::call(script, keys);
        command.arg(login.device.as_str()).arg(place_text(login.gateway, login.connection));
        command.arg(&halves(login.generation)).arg(DEVICES_PER_USER_MAX).arg(DEVICES_TTL_MS);
        command
    }

    /// Writes only over what it read, so that a call which hung on its way replaces nobody who signed in meanwhile.
    async fn register_login(&self, login: Login, dial: Option<Dial>) -> Result<Option<Registered>, StoreError> {
        let keys = [self.keys.devices(&login.user), self.keys.dials(&login.user)];
        let dial = dial.filter(|_| !planted("late_dial_replaces"));
        let dial = dial.map_or_else(Default::default, |of| [format!("{:x}", of.run), of.number.to_string()]);
        for _ in 0..REGISTER_ATTEMPTS_MAX {
            let mut read = redis::cmd("HGET");
            read.arg(&keys[0]).arg(login.device.as_str());
            let seen = text(self.link.run_one(read).await?.0, PLACE)?.unwrap_or_default();
            let mut register = self.put(&REGISTER, &keys, &login);
            register.arg(seen).arg(&dial);
            match self.link.run_one(register).await?.0 {
                Value::Nil => {}
                Value::Int(0) => return Ok(None),
                registered => return Self::registered(registered, login).map(Some),
            }
        }
        Err(StoreError::Unavailable("redis: a device signs in faster than it can be registered".to_owned()))
    }

    fn registered(answer: Value, login: Login) -> Result<Registered, StoreError> {
        let mut parts = list(answer, PLACE)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        let (high, low): (u64, u64) = (number(next(), PLACE)?, number(next(), PLACE)?);
        let replaced = match text(next(), PLACE)? {
            Some(stored) => Device::decode(&stored).ok_or_else(|| damaged(PLACE))?.login(&login.user, login.device),
            None => None,
        };
        Ok(Registered { generation: Generation(high << 32 | low), replaced })
    }

    async fn logins(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        let devices_of = |user| {
            let mut command = redis::cmd("HGETALL");
            command.arg(self.keys.devices(user));
            command
        };
        let answers = self.link.run(users.iter().map(devices_of).collect()).await?;
        let decode = |user, (device, value): (String, String)| {
            let device = DeviceId::parse(&device).map_err(|_| damaged(PLACE))?;
            Ok(Device::decode(&value).ok_or_else(|| damaged(PLACE))?.login(user, device))
        };
        let logins_of = |(user, answer)| {
            let logins = pairs(answer, PLACE)?.into_iter().map(|pair| decode(user, pair)).filter_map(Result::transpose);
            logins.collect()
        };
        users.iter().zip(answers).map(logins_of).collect()
    }

    async fn online(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        let mut logins = self.logins(users).await?;
        let asked: HashSet<_> = logins.iter().flatten().map(|login| login.gateway).collect();
        if !asked.is_empty() {
            let living = self.leases.living(&self.link, &self.keys, &asked).await?;
            let is_living = |login: &Login| living.contains(&login.gateway) || planted("stale_route_accepted");
            logins.iter_mut().for_each(|logins| logins.retain(is_living));
        }
        Ok(logins)
    }

    /// Reads first, for nearly always every login stands, and then nothing is written.
    async fn confirm_all(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
        let mut reads = Vec::with_capacity(logins.len() * 2);
        for login in logins {
            let key = self.keys.devices(&login.user);
            let (mut stored, mut ttl) = (redis::cmd("HGET"), redis::cmd("PTTL"));
            stored.arg(&key).arg(login.device.as_str());
            ttl.arg(&key);
            reads.extend([stored, ttl]);
        }
        let mut answers = self.link.run(reads).await?.into_iter();
        let (mut confirmed, mut puts) = (Vec::with_capacity(logins.len()), Vec::new());
        for (at, login) in logins.iter().enumerate() {
            let mut next = || answers.next().unwrap_or(Value::Nil);
            let (stored, ttl_ms) = (text(next(), PLACE)?, number::<i64>(next(), PLACE)?);
            let stored = stored.map(|stored| Device::decode(&stored).ok_or_else(|| damaged(PLACE))).transpose()?;
            let newer = stored.as_ref().is_some_and(|stored| stored.generation > login.generation);
            let stands = stored.is_some_and(|stored| stored.generation == login.generation);
            if !newer && (!stands || ttl_ms < DEVICES_TTL_MS as i64 / 2) {
                puts.push((at, self.put(&CONFIRM, &[self.keys.devices(&login.user)], login)));
            }
            confirmed.push(!newer);
        }
        let (places, puts): (Vec<_>, Vec<_>) = puts.into_iter().unzip();
        for (at, answer) in places.into_iter().zip(self.link.run(puts).await?) {
            confirmed[at] = number::<u8>(answer, PLACE)? == 1;
        }
        Ok(confirmed)
    }
}

#[async_trait]
impl Routes for RedisRoutes {
    async fn register(
        &self,
        user: &UserId,
        device: &DeviceId,
        gateway: GatewayBoot,
        connection: ConnectionId,
        dial: Option<Dial>,
        now_ms: i64,
    ) -> Result<Option<Registered>, StoreError> {
        // The server's clock, which all workers have in common, lifts it.
        let at_least = if planted("generations_by_own_clock") { (now_ms.max(0) as u64) << 16 } else { 0 };
        let (user, device) = (user.clone(), device.clone());
        let login = Login { user, device, generation: Generation(at_least), gateway, connection };
        bounded(self.register_login(login, dial)).await
    }

    async fn unregister(&self, login: &Login) -> Result<(), StoreError> {
        let [high, low] = halves(login.generation);
        let place = place_text(login.gateway, login.connection);
        let mut command = scripts::call(&UNREGISTER, &[self.keys.devices(&login.user)]);
        command.arg(login.device.as_str()).arg(format!("{high} {low} {place}")).arg(format!("{high} {low}"));
        bounded(self.link.run_one(command)).await.map(drop)
    }

    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError> {
        bounded(self.online(users)).await
    }

    async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError> {
        bounded(self.confirm_all(logins)).await
    }

    async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError> {
        bounded(self.leases.set(&self.link, &self.keys, gateway, lease_ms.max(1))).await
    }

    async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError> {
        let gateway = Gateway { boot: gateway, endpoint: String::new() };
        bounded(self.leases.set(&self.link, &self.keys, &gateway, 0)).await
    }

    async fn gateways(&self) -> Result<Vec<Gateway>, StoreError> {
        bounded(self.leases.gateways(&self.link, &self.keys)).await
    }
}
