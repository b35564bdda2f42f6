//! Who may do what with a log: the one place.
//!
//! In: a user, a log, an operation. Out: the range the user may read, or NOT_ALLOWED. Always: what does not exist and what
//! is not the user's give the same refusal, so nothing can be probed.

use crate::planted::planted;
use crate::refusal::{Failure, Refusal};
use crate::worker::Ports;
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::Membership;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    MarkRead,
    ListMembers,
}

/// What a user may read of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub floor: Seq,
    /// Countable messages below the floor.
    pub floor_ordinal: Ordinal,
    /// The last entry of a former member; `None`: up to the head.
    pub last: Option<Seq>,
    /// An entry with a higher `members_seq` may have ended the user's time: it is not shown on this word.
    pub applied: Seq,
}

pub(crate) async fn authorize(
    ports: &Ports,
    user: &UserId,
    log: &LogId,
    operation: Operation,
) -> Result<Access, Failure> {
    match log.kind() {
        Some(LogKind::User) => {
            if operation != Operation::Read || LogId::user(user) != *log {
                return Err(Refusal::NOT_ALLOWED.into());
            }
            Ok(Access { floor: Seq(1), floor_ordinal: Ordinal(0), last: None, applied: Seq(u64::MAX) })
        }
        Some(LogKind::Direct | LogKind::Group) => {
            let memberships = ports.directory.memberships(user, std::slice::from_ref(log)).await?;
            let membership = memberships.into_iter().next().flatten().ok_or(Refusal::NOT_ALLOWED)?;
            let access = Access::of_member(&membership);
            if operation == Operation::ListMembers && access.last.is_some() {
                return Err(Refusal::NOT_ALLOWED.into());
            }
            Ok(access)
        }
        None => Err(Refusal::NOT_ALLOWED.into()),
    }
}

impl Access {
    /// What a present or former member may read.
    pub fn of_member(membership: &Membership) -> Self {
        let Membership { header, row } = membership;
        let last = if planted("removed_member_reads") { None } else { row.left_seq };
        Self { floor: row.joined_seq, floor_ordinal: row.joined_ordinal, last, applied: header.applied_seq }
    }
}
