//! `CreateGroup` → the log of the group it makes, derived from (creator, command id).

use super::Route;
use crate::error::Refused;
use crate::limits::GROUP_NAME_BYTES_MAX;
use im_proto::{LogId, UserId, client};

pub fn route(creator: &UserId, create: &client::CreateGroup) -> Result<Route, Refused> {
    let id = super::client_id(&create.command_id)?;
    if create.name.len() > GROUP_NAME_BYTES_MAX {
        return Err(Refused::too_large("a group's name has at most 128 bytes"));
    }
    super::users(&create.user_ids)?;
    Ok(Route::Write(LogId::group(creator, &id)))
}
