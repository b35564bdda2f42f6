//! Sync while the inbox is away: where every conversation of the user stands, from the logs themselves.
//!
//! In: a token. Out: `Synced` with all conversations, or those up to a bound. Always: the token stays where it was, so that
//! the first sync with an inbox lists everything that moved meanwhile; costs a read for each conversation, so it is for bad
//! days alone.

use super::{ReadAnswer, Requests};
use crate::entry;
use crate::frame;
use crate::prefetch::LOADS_AT_ONCE_MAX;
use crate::refusal::Failure;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use im_proto::client::{self, server_frame::Body};
use im_proto::{InboxVersion, LogId, Ordinal, UserId, internal};
use im_storage::ports::{InboxRow, MEMBERSHIPS_MAX, Membership};
use prost::Message as _;

impl Requests {
    /// Of a user with more conversations than [`MEMBERSHIPS_MAX`] so many are told.
    pub(super) async fn sync_without_inbox(
        &self,
        user: &UserId,
        request_id: u64,
        token: internal::SyncToken,
        why: &str,
    ) -> Result<ReadAnswer, Failure> {
        tracing::debug!(%user, why, "a sync without the inbox");
        let directory = &self.shared.ports.directory;
        let logs = directory.conversations_of(user, None, MEMBERSHIPS_MAX).await?;
        let memberships = directory.memberships(user, &logs).await?;
        // Where a conversation that the user left ends for it, the inbox knows.
        let is_member = |membership: Option<Membership>| membership.is_some_and(|of| of.row.left_seq.is_none());
        let present: Vec<LogId> =
            logs.into_iter().zip(memberships).filter_map(|(log, of)| is_member(of).then_some(log)).collect();
        let readers: Vec<(LogId, UserId)> = present.iter().map(|log| (log.clone(), user.clone())).collect();
        let reads = directory.reads(&readers).await?;
        let heads = stream::iter(present.into_iter().zip(reads)).map(async |(log, read)| {
            let Some(row) = self.shared.ports.log.head(&log).await? else { return Ok::<_, Failure>(None) };
            let head_ordinal = Ordinal(entry::read(&log, &row)?.entry.ordinal);
            Ok(Some(InboxRow { version: InboxVersion(0), head: row.seq, head_ordinal, read, log }))
        });
        let rows: Vec<Option<InboxRow>> = heads.buffered(LOADS_AT_ONCE_MAX).try_collect().await?;
        let rows: Vec<InboxRow> = rows.into_iter().flatten().collect();
        let conversations = self.states(user, &rows).await?;
        let body = Body::Synced(client::Synced {
            complete: true,
            epoch: token.epoch,
            inbox_version: token.inbox_version,
            conversations,
            user_entries: Vec::new(),
            user_log_seq: token.user_log_seq,
            token: token.encode_to_vec().into(),
        });
        Ok(ReadAnswer::of(frame::of(request_id, body)))
    }
}
