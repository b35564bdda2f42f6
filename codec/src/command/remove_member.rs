//! `RemoveMember` → the log of the group.

use super::Route;
use crate::error::Refused;
use im_proto::client;

pub fn route(remove: &client::RemoveMember) -> Result<Route, Refused> {
    let id = super::client_id(&remove.command_id)?;
    super::after(&remove.after, &id)?;
    super::user(&remove.user_id)?;
    super::group(&remove.conversation_id).map(Route::Write)
}
