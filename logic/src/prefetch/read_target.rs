//! What a read cursor points at.
//!
//! In: a `MarkRead`. Out: whether the reader may, the ordinal at the asked place, and the cursor as it stands. Always: looks
//! only; the command is judged by `decide`.

use crate::authorize::{Operation, authorize};
use crate::decide::ReadTarget;
use crate::entry;
use crate::refusal::Failure;
use crate::worker::Ports;
use im_proto::{LogId, Ordinal, Seq, UserId, client};
use im_storage::ports::StoreError;

pub(super) async fn look_up(ports: &Ports, user: &UserId, mark: &client::MarkRead) -> Result<ReadTarget, StoreError> {
    let Ok(log) = LogId::parse(&mark.conversation_id) else {
        return Ok(ReadTarget::default());
    };
    let access = match authorize(ports, user, &log, Operation::MarkRead).await {
        Ok(access) => access,
        Err(Failure::Refused(_)) => return Ok(ReadTarget::default()),
        Err(Failure::Store(error)) => return Err(error),
    };
    let current = ports.inbox.reads(&[(log.clone(), user.clone())]).await?.first().copied().unwrap_or_default();
    let asked = Seq(mark.seq);
    let mut ordinal = None;
    if asked > current.seq
        && let Some(row) = ports.log.range(&log, asked, 1, 0).await?.first()
    {
        ordinal = Some(Ordinal(entry::read(&log, row)?.entry.ordinal));
    }
    Ok(ReadTarget { allowed: true, last: access.last, ordinal, current })
}
