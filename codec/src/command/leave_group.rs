//! `LeaveGroup` → the log of the group.

use super::Route;
use crate::error::Refused;
use im_proto::client;

pub fn route(leave: &client::LeaveGroup) -> Result<Route, Refused> {
    let id = super::client_id(&leave.command_id)?;
    super::after(&leave.after, &id)?;
    super::group(&leave.conversation_id).map(Route::Write)
}
