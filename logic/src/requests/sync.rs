//! What moved for a user since its token.
//!
//! In: `Sync`. Out: `Synced`: states of conversations and entries of the user's own log, a page of each, and the next token.
//! Always: the server remembers nothing between pages; pages go by rising inbox version, so what moves meanwhile comes in a
//! later page and nothing is skipped; the inbox is read before the user's log, which is written first; the heads of large
//! conversations, which no inbox has, come behind its last page.

use super::{ReadAnswer, Requests, page};
use crate::authorize::Access;
use crate::entry;
use crate::frame;
use crate::refusal::{Failure, Refusal};
use bytes::Bytes;
use im_proto::client;
use im_proto::{InboxVersion, LogId, Seq, UserId, internal};
use im_storage::ports::{InboxRow, MEMBERSHIPS_MAX, Membership, StoreError};
use prost::Message as _;

/// Conversations of one page.
const ROWS_MAX: usize = 100;
/// Entries of the user's own log in one page, and their bytes.
const USER_ENTRIES_MAX: usize = 200;
const USER_BYTES_MAX: usize = 96 * 1024;
const _: () = assert!(ROWS_MAX <= MEMBERSHIPS_MAX);

impl Requests {
    pub(super) async fn sync(
        &self,
        user: &UserId,
        request_id: u64,
        sync: &client::Sync,
    ) -> Result<ReadAnswer, Failure> {
        let own_log = LogId::user(user);
        let ports = &self.shared.ports;
        let own_head = ports.log.head(&own_log).await?.map_or(Seq(0), |row| row.seq);
        let token = self.token(sync, own_head)?;
        let rows_max = page(sync.limit, ROWS_MAX);
        let mut after = InboxVersion(token.inbox_version);
        let mut inbox = match ports.inbox.since(user, after, rows_max).await {
            Ok(inbox) => inbox,
            Err(StoreError::Unavailable(why)) => return self.sync_without_inbox(user, request_id, token, &why).await,
            Err(error) => return Err(error.into()),
        };
        if inbox.version < after {
            // The inbox lost rows and is being repaired: what it has is listed anew, and what it will have moves again.
            after = InboxVersion(0);
            inbox = ports.inbox.since(user, after, rows_max).await?;
        }
        let rows = ports.log.range(&own_log, Seq(token.user_log_seq).next(), USER_ENTRIES_MAX, USER_BYTES_MAX).await?;
        let user_log_seq = rows.last().map_or(token.user_log_seq, |row| row.seq.0);
        let user_entries: Vec<Bytes> =
            rows.into_iter().map(|row| entry::bytes(&own_log, row)).collect::<Result<_, _>>()?;
        let version = match inbox.rows.last() {
            _ if inbox.complete => inbox.version,
            Some(last) => last.version,
            None => after,
        };
        let mut rows: Vec<InboxRow> = inbox.rows.into_iter().filter(|row| row.log != own_log).collect();
        // They have no part in the order of the inbox: behind its last page.
        let room = if inbox.complete { rows_max - rows.len() } else { 0 };
        let large = self.large_rows(user, &token.large, &mut rows, room).await?;
        // `own_head` was read before the inbox: entries behind it are announced by a later version.
        let complete = inbox.complete && large.complete && user_log_seq >= own_head.0;
        let conversations = self.states(user, &rows).await?;
        let (epoch, inbox_version) = (self.epoch.0, version.0);
        let next = internal::SyncToken { epoch, inbox_version, user_log_seq, large: large.token };
        let synced = client::Synced {
            token: next.encode_to_vec().into(),
            complete,
            epoch: self.epoch.0,
            inbox_version: version.0,
            conversations,
            user_log_seq,
            ..Default::default()
        };
        let frame = frame::synced(request_id, synced, &user_entries);
        Ok(if complete {
            ReadAnswer { frame, inbox_version: Some(version), large: large.told }
        } else {
            ReadAnswer::of(frame)
        })
    }

    /// Where to go on. The first time: all conversations, whose states hold the read cursors, so the user's log need not be
    /// read from its beginning.
    fn token(&self, sync: &client::Sync, own_head: Seq) -> Result<internal::SyncToken, Refusal> {
        if sync.token.is_empty() {
            return Ok(internal::SyncToken { epoch: self.epoch.0, user_log_seq: own_head.0, ..Default::default() });
        }
        let token = internal::SyncToken::decode(sync.token.clone()).map_err(|_| Refusal::FOREIGN_TOKEN)?;
        if token.epoch != self.epoch.0 || token.user_log_seq > own_head.0 {
            return Err(Refusal::FOREIGN_TOKEN);
        }
        Ok(token)
    }

    /// The conversations of a page as this user sees them; without those that the directory does not know the user in.
    pub(super) async fn states(
        &self,
        user: &UserId,
        rows: &[InboxRow],
    ) -> Result<Vec<client::ConversationState>, Failure> {
        let logs: Vec<LogId> = rows.iter().map(|row| row.log.clone()).collect();
        let memberships = self.shared.ports.directory.memberships(user, &logs).await?;
        let known: Vec<(&InboxRow, Membership)> = rows
            .iter()
            .zip(memberships)
            .filter_map(|(row, membership)| {
                if membership.is_none() {
                    tracing::warn!(log = %row.log, %user, "an inbox row of a conversation that the user is not in");
                }
                Some((row, membership?))
            })
            .collect();
        let peers: Vec<(LogId, UserId)> =
            known.iter().filter_map(|(row, of)| Some((row.log.clone(), peer(user, of)?.clone()))).collect();
        let ports = &self.shared.ports;
        let peers_read = match ports.inbox.reads(&peers).await {
            // It lags a little behind, and falls back behind no cursor: a client keeps the highest it knew.
            Err(StoreError::Unavailable(_)) => ports.directory.reads(&peers).await?,
            read => read?,
        };
        let mut peers_read = peers_read.into_iter();
        let state = |(row, of): &(&InboxRow, Membership)| {
            let mut state = state(row, &Access::of_member(of));
            match peer(user, of) {
                Some(peer) => {
                    state.peer_user_id = peer.into();
                    state.peer_read_seq = peers_read.next().unwrap_or_default().seq.0;
                }
                None => state.group_name.clone_from(&of.header.created.name),
            }
            state
        };
        Ok(known.iter().map(state).collect())
    }
}

/// Whom `user` talks to in a direct conversation.
fn peer<'a>(user: &UserId, of: &'a Membership) -> Option<&'a UserId> {
    let created = &of.header.created;
    created.peer.as_ref().map(|peer| if peer == user { &created.creator } else { peer })
}

fn state(row: &InboxRow, access: &Access) -> client::ConversationState {
    client::ConversationState {
        conversation_id: (&row.log).into(),
        head_seq: row.head.0,
        head_ordinal: row.head_ordinal.0,
        floor_seq: access.floor.0,
        floor_ordinal: access.floor_ordinal.0,
        read_seq: row.read.seq.0,
        read_ordinal: row.read.ordinal.0,
        member: access.last.is_none(),
        ..Default::default()
    }
}
