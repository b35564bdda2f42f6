//! What moved for a user since its token.
//!
//! In: `Sync`. Out: `Synced`: states of conversations and entries of the user's own log, a page of each, and the next token.
//! Always: the server remembers nothing between pages; pages go by rising inbox version, so what moves meanwhile comes in a
//! later page and nothing is skipped; the inbox is read before the user's log, which is written first.

use super::{ReadAnswer, Requests, page};
use crate::authorize::{Access, Operation, authorize};
use crate::entry;
use crate::frame;
use crate::refusal::{Failure, Refusal};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use im_proto::client::{self, server_frame::Body};
use im_proto::{InboxVersion, LogId, LogKind, Seq, UserId, internal};
use im_storage::ports::{InboxRow, StoreError};
use lru::LruCache;
use prost::Message as _;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Conversations of one page.
const ROWS_MAX: usize = 100;
/// Entries of the user's own log in one page, and their bytes.
const USER_ENTRIES_MAX: usize = 200;
const USER_BYTES_MAX: usize = 96 * 1024;
/// Rows of one page that are looked up at once.
const ROWS_AT_ONCE_MAX: usize = 16;
/// Conversations whose names and pairs are remembered.
const HEADERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

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
        let after = InboxVersion(token.inbox_version);
        let inbox = ports.inbox.since(user, after, page(sync.limit, ROWS_MAX)).await?;
        if inbox.version < after {
            return Err(Refusal::FOREIGN_TOKEN.into());
        }
        let rows = ports.log.range(&own_log, Seq(token.user_log_seq).next(), USER_ENTRIES_MAX, USER_BYTES_MAX).await?;
        let user_entries: Vec<client::Entry> =
            rows.iter().map(|row| entry::read(&own_log, row).map(|read| read.entry)).collect::<Result<_, _>>()?;
        let user_log_seq = user_entries.last().map_or(token.user_log_seq, |entry| entry.seq);
        // `own_head` was read before the inbox: entries behind it are announced by a later version.
        let complete = inbox.complete && user_log_seq >= own_head.0;
        let version = match inbox.rows.last() {
            _ if inbox.complete => inbox.version,
            Some(last) => last.version,
            None => after,
        };
        let states = inbox.rows.iter().filter(|row| row.log != own_log).map(|row| self.state(user, row));
        let states: Vec<Option<client::ConversationState>> =
            stream::iter(states.collect::<Vec<_>>()).buffered(ROWS_AT_ONCE_MAX).try_collect().await?;
        let next = internal::SyncToken { epoch: self.epoch.0, inbox_version: version.0, user_log_seq };
        let body = Body::Synced(client::Synced {
            token: next.encode_to_vec().into(),
            complete,
            epoch: self.epoch.0,
            inbox_version: version.0,
            conversations: states.into_iter().flatten().collect(),
            user_entries,
            user_log_seq,
        });
        let inbox_version = complete.then_some(version);
        Ok(ReadAnswer { frame: frame::of(request_id, body), inbox_version })
    }

    /// Where to go on. The first time: all conversations, whose states hold the read cursors, so the user's log need not be
    /// read from its beginning.
    fn token(&self, sync: &client::Sync, own_head: Seq) -> Result<internal::SyncToken, Refusal> {
        if sync.token.is_empty() {
            return Ok(internal::SyncToken { epoch: self.epoch.0, inbox_version: 0, user_log_seq: own_head.0 });
        }
        let token = internal::SyncToken::decode(sync.token.clone()).map_err(|_| Refusal::FOREIGN_TOKEN)?;
        if token.epoch != self.epoch.0 || token.user_log_seq > own_head.0 {
            return Err(Refusal::FOREIGN_TOKEN);
        }
        Ok(token)
    }

    /// A conversation as this user sees it; `None` if the directory does not know the user in it.
    async fn state(&self, user: &UserId, row: &InboxRow) -> Result<Option<client::ConversationState>, Failure> {
        let access = match authorize(&self.shared.ports, user, &row.log, Operation::Read).await {
            Ok(access) => access,
            Err(Failure::Refused(_)) => {
                tracing::warn!(log = %row.log, %user, "an inbox row of a conversation that the user is not in");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(header) = self.headers.of(&self.shared.ports.directory, &row.log).await? else {
            return Ok(None);
        };
        let mut state = state(row, &access);
        match &header.pair {
            Some(pair) => {
                let peer = pair.iter().find(|member| *member != user).unwrap_or(user);
                let reads = self.shared.ports.inbox.reads(&row.log, std::slice::from_ref(peer)).await?;
                state.peer_user_id = peer.into();
                state.peer_read_seq = reads.first().map_or(0, |read| read.seq.0);
            }
            None => state.group_name = header.name,
        }
        Ok(Some(state))
    }
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

/// What of a conversation never changes: the name of a group, the pair of a direct conversation. The directory reads all
/// members to tell it, so it is remembered.
pub(super) struct Headers {
    known: Mutex<LruCache<LogId, Header>>,
}

#[derive(Clone)]
pub(super) struct Header {
    name: String,
    pair: Option<Vec<UserId>>,
}

impl Headers {
    pub fn new() -> Self {
        Self { known: Mutex::new(LruCache::new(HEADERS_MAX)) }
    }

    async fn of(
        &self,
        directory: &std::sync::Arc<dyn im_storage::ports::Directory>,
        log: &LogId,
    ) -> Result<Option<Header>, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(log).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let Some(conversation) = directory.conversation(log).await? else {
            return Ok(None);
        };
        let is_direct = log.kind() == Some(LogKind::Direct);
        let pair = is_direct.then(|| conversation.members.into_iter().map(|row| row.user).collect());
        let header = Header { name: conversation.name, pair };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(log.clone(), header.clone());
        Ok(Some(header))
    }
}
