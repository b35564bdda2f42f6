//! An inbox that can lose everything, as a flushed Redis does, and that can be away.
//!
//! In: the calls of the port. Out: those of an embedded inbox, or none. Always: after a flush it is an empty one; claims from
//! before a flush, or from before covers were forgotten, are answered [`Covered::Lost`].

use im_proto::{InboxVersion, LogId, UserId};
use im_storage::embedded::{EmbeddedStore, OpenOptions};
use im_storage::ports::*;
use std::sync::{Arc, Mutex};

/// The flush in which a claim was made stands above the fence of the inner claim.
const FLUSH_SHIFT: u32 = 32;

pub struct FlushedInbox {
    present: Mutex<Present>,
}

struct Present {
    inbox: Arc<dyn Inbox>,
    flushes: u64,
    is_away: bool,
    /// Its rows are whole, and nobody knows of what.
    forgets_covers: bool,
    /// Where the present rows lie, after a flush.
    _store: Option<(tempfile::TempDir, EmbeddedStore)>,
}

impl FlushedInbox {
    pub fn over(inbox: Arc<dyn Inbox>) -> Arc<Self> {
        Arc::new(Self {
            present: Mutex::new(Present { inbox, flushes: 0, is_away: false, forgets_covers: false, _store: None }),
        })
    }

    /// Everything is gone.
    pub fn flush(&self) {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { folder: folder.path().to_owned(), cache_bytes: 1 << 20, now_ms: 1_000 };
        let store = EmbeddedStore::open(&options).unwrap();
        let mut present = self.present.lock().unwrap();
        let flushes = present.flushes + 1;
        *present = Present {
            inbox: store.inbox(),
            flushes,
            is_away: false,
            forgets_covers: false,
            _store: Some((folder, store)),
        };
    }

    /// Every row is there, and no claim says any more how far they go.
    pub fn forget_covers(&self) {
        let mut present = self.present.lock().unwrap();
        present.flushes += 1;
        present.forgets_covers = true;
    }

    /// Until told otherwise no call gets an answer.
    pub fn set_away(&self, is_away: bool) {
        self.present.lock().unwrap().is_away = is_away;
    }

    fn inbox(&self) -> Result<(Arc<dyn Inbox>, u64), StoreError> {
        let present = self.present.lock().unwrap();
        if present.is_away {
            return Err(StoreError::Unavailable("the inbox is away".into()));
        }
        Ok((present.inbox.clone(), present.flushes))
    }
}

#[async_trait::async_trait]
impl Projection for FlushedInbox {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        let (inbox, flushes) = self.inbox()?;
        let mut claim = inbox.claim(shards).await?;
        if self.present.lock().unwrap().forgets_covers {
            claim.covered.iter_mut().for_each(|(_, covered)| *covered = None);
        }
        Ok(Claim { fence: flushes << FLUSH_SHIFT | claim.fence, covered: claim.covered })
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        let (inbox, flushes) = self.inbox()?;
        if claim.fence >> FLUSH_SHIFT != flushes {
            return Ok(Covered::Lost);
        }
        let fence = claim.fence & ((1 << FLUSH_SHIFT) - 1);
        inbox.cover(&Claim { fence, covered: claim.covered.clone() }, cursor).await
    }
}

#[async_trait::async_trait]
impl Inbox for FlushedInbox {
    async fn bump(&self, moves: Vec<Move>) -> Result<Vec<Moved>, StoreError> {
        self.inbox()?.0.bump(moves).await
    }

    async fn since(&self, user: &UserId, after: InboxVersion, limit: usize) -> Result<InboxPage, StoreError> {
        self.inbox()?.0.since(user, after, limit).await
    }

    async fn versions(&self, users: &[UserId]) -> Result<Vec<InboxVersion>, StoreError> {
        self.inbox()?.0.versions(users).await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        self.inbox()?.0.reads(of).await
    }
}
