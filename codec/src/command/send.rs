//! `Send` → the log of the conversation it is addressed to.

use super::Route;
use crate::error::Refused;
use crate::limits::SessionLimits;
use im_proto::client::{self, send::To};
use im_proto::{LogId, UserId};

pub fn route(sender: &UserId, send: &client::Send, limits: &SessionLimits) -> Result<Route, Refused> {
    let log = match &send.to {
        Some(To::UserId(id)) => LogId::direct(sender, &super::user(id)?),
        Some(To::ConversationId(id)) => super::conversation(id)?,
        None => return Err(Refused::invalid("a send names a user or a conversation")),
    };
    let id = super::client_id(&send.client_message_id)?;
    super::after(&send.after, &id)?;
    if send.body.is_empty() {
        return Err(Refused::invalid("a body has at least one byte"));
    }
    if send.body.len() > limits.body_bytes_max {
        return Err(Refused::too_large("the body is over its limit"));
    }
    Ok(Route::Write(log))
}
