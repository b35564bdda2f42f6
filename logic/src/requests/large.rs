//! Large conversations, which no inbox shows: what gateways ask of them, and how sync finds what moved.
//!
//! In: users, conversations, the heads of a token. Out: memberships, members, heads, rows for a sync. Always: a
//! conversation is large for whom the directory counts in it with more members than the bound; a head is told only to whom
//! the directory shows every change of members up to it, so nobody is told of what it may not read.

use super::Requests;
use crate::entry;
use crate::planted::planted;
use crate::prefetch::LOADS_AT_ONCE_MAX;
use crate::refusal::Failure;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use im_proto::internal::TokenHead;
use im_proto::{InboxVersion, LogId, Ordinal, Seq, UserId};
use im_storage::ports::{InboxRow, Membership, StoreError};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// Large conversations of a user. Of one who is in more, the others are neither pushed nor hinted, and a sync does not list
/// them. A sync token holds the head of each, and gateways bound its bytes.
const LARGE_PER_USER_MAX: usize = 2_000;
/// Rows of the directory in one call.
const PAGE_ROWS_MAX: usize = 2_000;

/// A user's present time in a large conversation, as of the last change of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeMembership {
    pub log: LogId,
    pub joined_seq: Seq,
    pub members_seq: Seq,
}

impl LargeMembership {
    pub(super) fn of((log, membership): &(LogId, Membership)) -> Self {
        let (joined_seq, members_seq) = (membership.row.joined_seq, membership.header.applied_seq);
        Self { log: log.clone(), joined_seq, members_seq }
    }
}

/// Everybody in a conversation, each with the seq of the joining; every change up to `members_seq` is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeMembers {
    pub members_seq: Seq,
    pub members: Vec<(UserId, Seq)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeHead {
    pub log: LogId,
    pub seq: Seq,
    /// False: it is delivered to its members one by one.
    pub is_large: bool,
}

/// The end of a large conversation as one member may know it.
struct Shown {
    log: LogId,
    head: Seq,
    ordinal: Ordinal,
}

/// What a page of sync has of large conversations beside its rows.
pub(super) struct LargePage {
    /// For the next token.
    pub token: Vec<TokenHead>,
    /// Up to where the user knows each by then.
    pub told: Vec<(LogId, Seq)>,
    /// None is left for a later page.
    pub complete: bool,
}

impl Requests {
    /// Which large conversations each user is in, in the order asked.
    pub async fn large_of_users(&self, users: &[UserId]) -> Result<Vec<Vec<LargeMembership>>, StoreError> {
        let of_user = async |user: UserId| {
            Ok::<_, StoreError>(self.large_of(&user).await?.iter().map(LargeMembership::of).collect())
        };
        stream::iter(users.to_vec()).map(of_user).buffered(LOADS_AT_ONCE_MAX).try_collect().await
    }

    /// Who is in the conversation. Pages may be of different moments: what the oldest of them shows is what all do.
    pub async fn large_members(&self, log: &LogId) -> Result<LargeMembers, StoreError> {
        let mut known = LargeMembers { members_seq: Seq(u64::MAX), members: Vec::new() };
        loop {
            let after = known.members.last().map(|(user, _)| user);
            let Some(page) = self.shared.ports.directory.members(log, after, PAGE_ROWS_MAX).await? else {
                return Ok(LargeMembers { members_seq: Seq(0), members: Vec::new() });
            };
            known.members_seq = known.members_seq.min(page.header.applied_seq);
            let is_last = page.members.len() < PAGE_ROWS_MAX;
            known.members.extend(page.members.into_iter().map(|row| (row.user, row.joined_seq)));
            if is_last {
                return Ok(known);
            }
        }
    }

    /// How far conversations have come; those without an entry are left out.
    pub async fn large_heads(&self, logs: &[LogId]) -> Result<Vec<LargeHead>, StoreError> {
        let head = async |log: LogId| {
            let Some(row) = self.head(&log).await? else { return Ok::<_, StoreError>(None) };
            let is_large = entry::members(&log, &row)? > self.shared.config.large_members_min;
            Ok(Some(LargeHead { log, seq: row.seq, is_large }))
        };
        let heads: Vec<Option<LargeHead>> =
            stream::iter(logs.to_vec()).map(head).buffered(LOADS_AT_ONCE_MAX).try_collect().await?;
        Ok(heads.into_iter().flatten().collect())
    }

    pub(super) async fn large_of(&self, user: &UserId) -> Result<Vec<(LogId, Membership)>, StoreError> {
        let mut large: Vec<(LogId, Membership)> = Vec::new();
        loop {
            let after = large.last().map(|(log, _)| log);
            let limit = PAGE_ROWS_MAX.min(LARGE_PER_USER_MAX - large.len());
            let members_min = self.shared.config.large_members_min;
            let page = self.shared.ports.directory.large_conversations(user, members_min, after, limit).await?;
            let is_last = page.len() < limit;
            large.extend(page);
            if is_last || large.len() >= LARGE_PER_USER_MAX {
                return Ok(large);
            }
        }
    }

    /// Gives the rows of large conversations their heads, and adds rows for those that moved since the token, at most `room`
    /// of them.
    pub(super) async fn large_rows(
        &self,
        user: &UserId,
        token: &[TokenHead],
        rows: &mut Vec<InboxRow>,
        room: usize,
    ) -> Result<LargePage, Failure> {
        let shown = self.large_shown(user).await?;
        let known: HashMap<u64, Seq> = token.iter().map(|head| (head.log, Seq(head.seq))).collect();
        let in_page: HashMap<LogId, usize> = rows.iter().enumerate().map(|(at, row)| (row.log.clone(), at)).collect();
        let mut page = LargePage { token: Vec::new(), told: Vec::new(), complete: true };
        let mut moved = Vec::new();
        for shown in &shown {
            let before = known.get(&short(&shown.log)).copied();
            let now = match in_page.get(&shown.log) {
                Some(at) => {
                    (rows[*at].head, rows[*at].head_ordinal) = (shown.head, shown.ordinal);
                    Some(shown.head)
                }
                None if before.is_some_and(|before| before >= shown.head) => before,
                None if moved.len() < room => {
                    moved.push(shown);
                    Some(shown.head)
                }
                None => {
                    page.complete = false;
                    before
                }
            };
            if let Some(now) = now {
                page.token.push(TokenHead { log: short(&shown.log), seq: now.0 });
                page.told.push((shown.log.clone(), now));
            }
        }
        let readers: Vec<(LogId, UserId)> = moved.iter().map(|shown| (shown.log.clone(), user.clone())).collect();
        let reads = self.shared.ports.inbox.reads(&readers).await?;
        rows.extend(moved.iter().zip(reads).map(|(shown, read)| InboxRow {
            log: shown.log.clone(),
            version: InboxVersion(0),
            head: shown.head,
            head_ordinal: shown.ordinal,
            read,
        }));
        Ok(page)
    }

    /// The ends of the user's large conversations. Left out: those whose members may have changed since the directory was
    /// read, for the moment until it shows the change.
    async fn large_shown(&self, user: &UserId) -> Result<Vec<Shown>, Failure> {
        let large = if planted("large_heads_not_synced") { Vec::new() } else { self.large_of(user).await? };
        let shown = async |(log, membership): (LogId, Membership)| {
            let Some(row) = self.head(&log).await? else { return Ok::<_, Failure>(None) };
            let head = entry::read(&log, &row)?;
            let is_known = head.members_seq <= membership.header.applied_seq;
            Ok(is_known.then(|| Shown { head: row.seq, ordinal: Ordinal(head.entry.ordinal), log }))
        };
        let shown: Vec<Option<Shown>> =
            stream::iter(large).map(shown).buffered(LOADS_AT_ONCE_MAX).try_collect().await?;
        Ok(shown.into_iter().flatten().collect())
    }
}

/// Names a log in a token. Two logs of one user with the same name are not to be expected before the end of time.
fn short(log: &LogId) -> u64 {
    let hash = Sha256::digest(log.as_str().as_bytes());
    hash.iter().take(8).fold(0, |short, byte| short << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_codec::limits::{FRAME_BYTES_MIN, SYNC_TOKEN_BYTES_MAX};
    use im_proto::client::{ClientFrame, Sync, client_frame::Command};
    use im_proto::internal::SyncToken;
    use prost::Message as _;

    #[test]
    fn gateways_take_the_longest_token_that_a_sync_makes() {
        let head = TokenHead { log: u64::MAX, seq: u64::MAX };
        let (epoch, inbox_version, user_log_seq) = (u64::MAX, u64::MAX, u64::MAX);
        let token = SyncToken { epoch, inbox_version, user_log_seq, large: vec![head; LARGE_PER_USER_MAX] };
        let token = token.encode_to_vec();
        assert!(token.len() <= SYNC_TOKEN_BYTES_MAX, "{} bytes", token.len());
        let command = Some(Command::Sync(Sync { token: token.into(), limit: u32::MAX }));
        let frame = ClientFrame { request_id: u64::MAX, command, trace_id: vec![0; 16].into() };
        assert!(frame.encoded_len() <= FRAME_BYTES_MIN as usize, "whatever an operator sets");
    }
}
