//! `MarkRead` → the reader's own log.

use super::Route;
use crate::error::Refused;
use im_proto::{LogId, UserId, client};

pub fn route(reader: &UserId, mark_read: &client::MarkRead) -> Result<Route, Refused> {
    super::conversation(&mark_read.conversation_id)?;
    super::client_id(&mark_read.command_id)?;
    Ok(Route::Write(LogId::user(reader)))
}
