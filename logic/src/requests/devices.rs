//! A user's devices, for operators and backends.
//!
//! In: a user, perhaps one device. Out: every device that ever signed in, and where it is connected now; the end of a login.
//! Always: ends exactly the login that was found; the device may sign in again with a token that is valid.

use super::Requests;
use im_proto::client::kicked::Reason;
use im_proto::{DeviceId, UserId};
use im_storage::ports::{Device, GatewayBoot, StoreError};

#[derive(Debug, Clone)]
pub struct DeviceState {
    pub device: Device,
    /// `None`: offline.
    pub gateway: Option<GatewayBoot>,
}

impl Requests {
    /// By rising device id.
    pub async fn devices(&self, user: &UserId) -> Result<Vec<DeviceState>, StoreError> {
        let ports = &self.shared.ports;
        let devices = ports.directory.devices(user).await?;
        let logins = ports.routes.look_up(std::slice::from_ref(user)).await?;
        let logins = logins.into_iter().next().unwrap_or_default();
        let gateway_of =
            |device: &DeviceId| logins.iter().find(|login| login.device == *device).map(|login| login.gateway);
        Ok(devices.into_iter().map(|device| DeviceState { gateway: gateway_of(&device.id), device }).collect())
    }

    /// Answers whether there was a login to end.
    pub async fn sign_out_device(&self, user: &UserId, device: &DeviceId) -> Result<bool, StoreError> {
        let ports = &self.shared.ports;
        let logins = ports.routes.look_up(std::slice::from_ref(user)).await?;
        let Some(login) = logins.into_iter().flatten().find(|login| login.device == *device) else { return Ok(false) };
        ports.routes.unregister(&login).await?;
        self.kick(&login, Reason::SignedOut);
        Ok(true)
    }
}
