//! Step 2: a token becomes a login.
//!
//! In: `SignIn` on a connection. Out: who it is, with its route registered, or a close code. Always: nothing is registered
//! before the token holds; the inbox version is read behind the registration, so what moves later is pushed or hinted; the
//! login that is replaced is kicked by its exact generation; a banned user is refused, whether the ban came before the
//! registration or crossed it.

use super::{LargeMembership, Requests};
use crate::accounts::Standing;
use crate::metrics::add;
use crate::planted::planted;
use crate::token::{LEEWAY_S, TokenError};
use crate::worker::Shared;
use im_proto::client::{self, CloseCode, kicked::Reason};
use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, PROTOCOL_VERSION, UserId, internal};
use im_storage::ports::{Device, Dial, GatewayBoot, Login, StoreError};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Devices remembered as recorded; a forgotten one is recorded again, which changes nothing.
const DEVICES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
const PLATFORM_BYTES_MAX: usize = 64;
/// After a fault of a store.
const RECONNECT_AFTER_MS: u32 = 1_000;

/// A login that stands.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub user: UserId,
    pub device: DeviceId,
    pub generation: Generation,
    pub inbox_version: InboxVersion,
    pub epoch: Epoch,
    /// The connection is closed then.
    pub token_expires_at_ms: Option<i64>,
    /// The user's large conversations.
    pub large: Vec<LargeMembership>,
}

#[derive(Debug, Clone)]
pub struct SignInRefused {
    pub code: CloseCode,
    pub reconnect_after_ms: u32,
    pub detail: String,
}

impl Requests {
    pub async fn sign_in(
        &self,
        gateway: GatewayBoot,
        connection: ConnectionId,
        sign_in: client::SignIn,
    ) -> Result<SignedIn, SignInRefused> {
        let outcome = self.try_sign_in(gateway, connection, &sign_in).await;
        let metrics = &self.shared.metrics;
        add(if outcome.is_ok() { &metrics.sign_ins } else { &metrics.sign_ins_refused }, 1);
        outcome
    }

    async fn try_sign_in(
        &self,
        gateway: GatewayBoot,
        connection: ConnectionId,
        sign_in: &client::SignIn,
    ) -> Result<SignedIn, SignInRefused> {
        if sign_in.protocol_version != PROTOCOL_VERSION {
            return Err(refused(CloseCode::UnsupportedVersion, "this server speaks protocol version 1"));
        }
        let now_ms = (self.shared.config.wall_clock_ms)();
        let identity = self.keys.verify(&sign_in.token, now_ms).map_err(|error| match error {
            TokenError::Expired => refused(CloseCode::TokenExpired, &error.to_string()),
            TokenError::Bad(_) => refused(CloseCode::BadToken, &error.to_string()),
        })?;
        let device = DeviceId::parse(&sign_in.device_id)
            .map_err(|_| refused(CloseCode::ProtocolError, "the device id is no id"))?;
        if identity.device.as_ref().is_some_and(|bound| *bound != device) {
            return Err(refused(CloseCode::BadToken, "the token is bound to another device"));
        }
        if sign_in.platform.len() > PLATFORM_BYTES_MAX {
            return Err(refused(CloseCode::ProtocolError, "the platform's name is too long"));
        }
        let user = identity.user;
        self.check_account(&user)?;
        let registered = self.register(gateway, connection, &user, &device, sign_in, now_ms).await;
        let registered = registered.map_err(|error| {
            add(&self.shared.metrics.store_errors, 1);
            tracing::warn!(%user, %device, %error, "a sign-in got no answer from a store");
            SignInRefused {
                code: CloseCode::Internal,
                reconnect_after_ms: RECONNECT_AFTER_MS,
                detail: "a store is away".to_owned(),
            }
        })?;
        let Some(Registration { generation, inbox_version, large }) = registered else {
            return Err(refused(CloseCode::ReplacedByNewer, "this client has signed in on a later connection"));
        };
        if !planted("ban_crosses_sign_in")
            && let Err(refused) = self.check_account(&user)
        {
            // Whoever looked for the user's logins when the ban came may have looked too early for this one. If this fails, the
            // next look or a heartbeat ends it.
            let _ = self.signed_out(gateway, connection, user, device, generation).await;
            return Err(refused);
        }
        // One that was let in by the leeway stays for what is left of it.
        let leeway_ms = |at_ms: i64| if at_ms <= now_ms { LEEWAY_S * 1_000 } else { 0 };
        let token_expires_at_ms = identity.expires_at_ms.map(|at_ms| at_ms.saturating_add(leeway_ms(at_ms)));
        Ok(SignedIn { user, device, generation, inbox_version, epoch: self.epoch, token_expires_at_ms, large })
    }

    /// Nobody is let in because nothing is known.
    fn check_account(&self, user: &UserId) -> Result<(), SignInRefused> {
        match self.shared.accounts.standing(user) {
            Standing::Good => Ok(()),
            Standing::Banned => Err(refused(CloseCode::UserBanned, "banned")),
            Standing::Unknown => Err(SignInRefused {
                code: CloseCode::Internal,
                reconnect_after_ms: RECONNECT_AFTER_MS,
                detail: "who is banned is not known yet".to_owned(),
            }),
        }
    }

    /// `None`: the client has signed in on a later connection.
    async fn register(
        &self,
        gateway: GatewayBoot,
        connection: ConnectionId,
        user: &UserId,
        device: &DeviceId,
        sign_in: &client::SignIn,
        now_ms: i64,
    ) -> Result<Option<Registration>, StoreError> {
        let (ports, platform) = (&self.shared.ports, sign_in.platform.as_str());
        if self.devices.is_news(user, device, platform) {
            ports.directory.record_device(user, Device { id: device.clone(), platform: platform.to_owned() }).await?;
            self.devices.remember(user, device, platform);
        }
        let dial = (sign_in.client_run != 0).then_some(Dial { run: sign_in.client_run, number: sign_in.dial });
        let registered = ports.routes.register(user, device, gateway, connection, dial, now_ms).await?;
        let Some(registered) = registered else { return Ok(None) };
        if let Some(replaced) = &registered.replaced {
            self.kick(replaced, Reason::Replaced);
        }
        // If this fails the route stays: another worker may have been asked too, and have let the same login in.
        let (inbox_version, large) = self.position(user).await?;
        Ok(Some(Registration { generation: registered.generation, inbox_version, large }))
    }

    /// Where the user's conversations are. Who joins a large one behind the second read had its inbox moved behind the first,
    /// and hears of it.
    async fn position(&self, user: &UserId) -> Result<(InboxVersion, Vec<LargeMembership>), StoreError> {
        let versions = self.shared.ports.inbox.versions(std::slice::from_ref(user)).await?;
        let large = self.large_of(user).await?.iter().map(LargeMembership::of).collect();
        Ok((versions.first().copied().unwrap_or_default(), large))
    }

    pub(super) fn kick(&self, login: &Login, reason: Reason) {
        self.shared.kick(login, reason);
    }
}

impl Shared {
    /// Ends exactly this login. If the kick is lost, the gateway learns by a heartbeat that the login stands no more.
    pub fn kick(&self, login: &Login, reason: Reason) {
        let kick =
            internal::Kick { connection_id: login.connection.0, generation: login.generation.0, reason: reason as u32 };
        let delivery = internal::Delivery { kind: Some(internal::delivery::Kind::Kick(kick)), trace: None };
        self.ports.delivery.deliver(login.gateway, vec![delivery]);
    }
}

/// A route that stands, and what was read behind it.
struct Registration {
    generation: Generation,
    inbox_version: InboxVersion,
    large: Vec<LargeMembership>,
}

fn refused(code: CloseCode, detail: &str) -> SignInRefused {
    SignInRefused { code, reconnect_after_ms: 0, detail: detail.to_owned() }
}

/// Devices that the directory has, so that a reconnect writes nothing.
pub(super) struct KnownDevices {
    platforms: Mutex<LruCache<(UserId, DeviceId), String>>,
}

impl KnownDevices {
    pub fn new() -> Self {
        Self { platforms: Mutex::new(LruCache::new(DEVICES_MAX)) }
    }

    fn is_news(&self, user: &UserId, device: &DeviceId, platform: &str) -> bool {
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        platforms.get(&(user.clone(), device.clone())).is_none_or(|known| known != platform)
    }

    fn remember(&self, user: &UserId, device: &DeviceId, platform: &str) {
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        platforms.put((user.clone(), device.clone()), platform.to_owned());
    }
}
