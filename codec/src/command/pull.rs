//! `Pull` → the logic. Another user's own log is as good as absent.

use super::Route;
use crate::error::Refused;
use im_proto::client::{self, ErrorCode};
use im_proto::{LogId, LogKind, UserId};

pub fn route(user: &UserId, pull: &client::Pull) -> Result<Route, Refused> {
    let log = LogId::parse(&pull.conversation_id).map_err(|_| Refused::invalid("conversation_id is not an id"))?;
    match log.kind() {
        None => return Err(Refused::invalid("conversation_id is not the id of a log")),
        Some(LogKind::User) if log != LogId::user(user) => {
            return Err(Refused { code: ErrorCode::NotAllowed, detail: "absent, or not for this user" });
        }
        Some(_) => {}
    }
    if pull.from_seq == 0 {
        return Err(Refused::invalid("from_seq is at least 1"));
    }
    Ok(Route::Read)
}
