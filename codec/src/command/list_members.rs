//! `ListMembers` → the logic.

use super::Route;
use crate::error::Refused;
use im_proto::client;

pub fn route(list: &client::ListMembers) -> Result<Route, Refused> {
    super::conversation(&list.conversation_id)?;
    if !list.after_user_id.is_empty() {
        super::user(&list.after_user_id)?;
    }
    Ok(Route::Read)
}
