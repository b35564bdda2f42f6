//! A range of a log, oldest first.
//!
//! In: `Pull`. Out: `Pulled` with the entries' bytes as they lie in the store. Always: every seq of the answered range is
//! there, from the reader's floor to the last entry the reader may read.

use super::{ReadAnswer, Requests, conversation_id, page};
use crate::authorize::{Access, Operation, authorize};
use crate::entry;
use crate::frame::{self, Pulled};
use crate::planted::planted;
use crate::refusal::{Failure, Refusal};
use im_proto::{Epoch, LogId, Seq, UserId, client};
use im_storage::ports::{EntryRow, StoreError};
use std::sync::Arc;

/// Entries and bytes of one answer. A server frame has at most 256 KiB.
const ENTRIES_MAX: usize = 200;
const BYTES_MAX: usize = 192 * 1024;

impl Requests {
    pub(super) async fn pull(
        &self,
        user: &UserId,
        request_id: u64,
        pull: &client::Pull,
    ) -> Result<ReadAnswer, Failure> {
        let log = conversation_id(&pull.conversation_id)?;
        let from = Seq(pull.from_seq);
        if from == Seq(0) {
            return Err(Refusal::invalid("seqs begin at 1").into());
        }
        let access = authorize(&self.shared.ports, user, &log, Operation::Read).await?;
        if Epoch(pull.epoch) != self.epoch {
            return Err(Refusal::OTHER_EPOCH.into());
        }
        let stored_head = self.visible_head(&log, &access).await?;
        let head = access.last.unwrap_or(stored_head).min(stored_head);
        if from > head.next() {
            return Err(Refusal::ABOVE_HEAD.into());
        }
        let start = from.max(access.floor);
        let (mut entries, mut floor) = (Vec::new(), access.floor);
        if start <= head {
            let rows = self.range(&log, start, page(pull.limit, ENTRIES_MAX)).await?;
            // What is no longer kept is below everybody's floor.
            floor = rows.first().map_or(floor, |first| if first.seq > start { first.seq } else { floor });
            for row in rows.iter().take_while(|row| row.seq <= head) {
                entries.push(entry::bytes(&log, row.clone())?);
            }
        }
        let pulled = Pulled { log: &log, epoch: self.epoch, head, floor, entries: &entries };
        Ok(ReadAnswer::of(frame::pulled(request_id, &pulled)))
    }

    async fn range(&self, log: &LogId, from: Seq, entries_max: usize) -> Result<Arc<[EntryRow]>, StoreError> {
        let read = async || Ok(self.shared.ports.log.range(log, from, entries_max, BYTES_MAX).await?.into());
        self.ranges.ask((log.clone(), from, entries_max), read).await
    }

    /// The head of the log, if the directory is known to show every change of members up to it. In the moment between an
    /// entry's storing and its projection a removed member would read on; then it is asked to come again.
    async fn visible_head(&self, log: &LogId, access: &Access) -> Result<Seq, Failure> {
        let Some(head) = self.head(log).await? else { return Ok(Seq(0)) };
        let is_stale = entry::members_seq(log, &head)? > access.applied && !planted("stale_member_reads");
        if access.last.is_none() && is_stale {
            return Err(Refusal::UNAVAILABLE.into());
        }
        Ok(head.seq)
    }
}
