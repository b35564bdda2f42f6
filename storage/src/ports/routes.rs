//! Where a device is connected.
//!
//! In: logins and their ends. Out: the connections of a user. Always: at most one login per device, the newest; an old
//! login never replaces a newer one (contract C7). A route is a hint: a wrong one costs a lost push, never a message. All
//! may be lost; devices register again.

use super::{GatewayBoot, StoreError};
use async_trait::async_trait;
use im_proto::{ConnectionId, DeviceId, Generation, UserId};

#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Makes this connection the login of the device, with generation max(stored + 1, now << 16), and answers the login it
    /// replaced. Now is the table's own clock if it has one, since those of several workers may be apart; else `now_ms`.
    /// Compare-and-set: of two at once, the second replaces the first. Repeated for a connection that is the login already, it
    /// answers the same generation and replaces nobody. `None`: a later dial of the same run was registered before, and nothing
    /// changes. Without a `dial` the call that comes last is the newest.
    async fn register(
        &self,
        user: &UserId,
        device: &DeviceId,
        gateway: GatewayBoot,
        connection: ConnectionId,
        dial: Option<Dial>,
        now_ms: i64,
    ) -> Result<Option<Registered>, StoreError>;

    /// Forgets exactly this login; another one of the device stays.
    async fn unregister(&self, login: &Login) -> Result<(), StoreError>;

    /// The logins of each user, in the order asked. Those of a gateway without a lease are left out.
    async fn look_up(&self, users: &[UserId]) -> Result<Vec<Vec<Login>>, StoreError>;

    /// Whether each of these is still its device's login, in the order asked. One that the table has lost is put back, one
    /// that was unregistered is not; where a newer one stands, the answer is `false` and the asker's connection ends as
    /// REPLACED. Asked with each heartbeat, so
    /// a lost table and a lost kick are both repaired within one.
    async fn confirm(&self, logins: &[Login]) -> Result<Vec<bool>, StoreError>;

    /// The gateway is alive for `lease_ms` from now; its logins count as online for as long, and workers reach it at its
    /// endpoint.
    async fn renew_lease(&self, gateway: &Gateway, lease_ms: u32) -> Result<(), StoreError>;

    /// The gateway is going: its logins are offline at once.
    async fn end_lease(&self, gateway: GatewayBoot) -> Result<(), StoreError>;

    /// The gateways with a lease.
    async fn gateways(&self) -> Result<Vec<Gateway>, StoreError>;
}

/// A running gateway, and where workers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    pub boot: GatewayBoot,
    /// `http://host:port` or `https://…`; empty in standalone, where a delivery is a call.
    pub endpoint: String,
}

/// One device, signed in on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: UserId,
    pub device: DeviceId,
    pub generation: Generation,
    pub gateway: GatewayBoot,
    pub connection: ConnectionId,
}

/// Which connection of a client this is: of one run, the one with the greater number was opened later. The client is believed: who
/// holds the device's token can sign it out anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    pub run: u64,
    pub number: u64,
}

impl Dial {
    /// Whether `other` belongs to the same run and was opened earlier.
    pub fn is_behind(self, other: Self) -> bool {
        self.run == other.run && self.number > other.number
    }
}

#[derive(Debug, Clone)]
pub struct Registered {
    pub generation: Generation,
    pub replaced: Option<Login>,
}
