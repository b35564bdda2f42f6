//! `AddMembers` → the log of the group.

use super::Route;
use crate::error::Refused;
use im_proto::client;

pub fn route(add: &client::AddMembers) -> Result<Route, Refused> {
    let id = super::client_id(&add.command_id)?;
    super::after(&add.after, &id)?;
    if add.user_ids.is_empty() {
        return Err(Refused::invalid("user_ids is empty"));
    }
    super::users(&add.user_ids)?;
    super::group(&add.conversation_id).map(Route::Write)
}
