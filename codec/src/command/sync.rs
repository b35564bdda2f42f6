//! `Sync` → the logic, which alone can read the token.

use super::Route;
use crate::error::Refused;
use crate::limits::SYNC_TOKEN_BYTES_MAX;
use im_proto::client;

pub fn route(sync: &client::Sync) -> Result<Route, Refused> {
    if sync.token.len() > SYNC_TOKEN_BYTES_MAX {
        return Err(Refused::too_large("the token is longer than any this server made"));
    }
    Ok(Route::Read)
}
