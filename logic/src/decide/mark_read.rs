//! A user's own read cursor moves in a conversation.
//!
//! In: `MarkRead`, and what was looked up of the conversation. Out: `ReadMoved` in the reader's own log. Always: a cursor
//! only rises; at or below the present one nothing is written and the present one is the answer.

use super::{Mutation, Place, Situation, Verdict, WRONG_LOG, client_id};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use im_proto::client::{self, entry::Content, server_frame::Body};
use im_proto::{ClientId, Epoch, LogId, Ordinal, Seq};
use im_storage::ports::ReadCursor;

/// What the conversation knew when the command was taken up.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadTarget {
    /// The reader is or was a member.
    pub allowed: bool,
    /// The last entry a former member may read.
    pub last: Option<Seq>,
    /// The ordinal at the asked seq; `None` if nothing is stored there yet.
    pub ordinal: Option<Ordinal>,
    pub current: ReadCursor,
}

pub(super) struct MarkRead {
    client_id: ClientId,
    conversation: LogId,
    epoch: Epoch,
    seq: Seq,
}

impl MarkRead {
    pub fn read(mark: &client::MarkRead, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let client_id = client_id(&mark.command_id)?;
        let conversation =
            LogId::parse(&mark.conversation_id).map_err(|_| Refusal::invalid("the conversation's id is no id"))?;
        if LogId::user(situation.sender) != *situation.log {
            return Err(WRONG_LOG);
        }
        Ok(Self { client_id, conversation, epoch: Epoch(mark.epoch), seq: Seq(mark.seq) })
    }

    fn answered(&self, situation: &Situation<'_>, cursor: ReadCursor) -> Body {
        Body::ReadMarked(client::ReadMarked {
            conversation_id: (&self.conversation).into(),
            epoch: situation.epoch.0,
            read_seq: cursor.seq.0,
            read_ordinal: cursor.ordinal.0,
        })
    }

    /// The asked place; `None` if nothing readable lies there.
    fn asked(&self, target: &ReadTarget) -> Option<ReadCursor> {
        let readable = target.last.is_none_or(|last| self.seq <= last);
        target.ordinal.filter(|_| readable).map(|ordinal| ReadCursor { seq: self.seq, ordinal })
    }
}

impl Mutation for MarkRead {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn content_hash(&self) -> ContentHash {
        let parts = [self.conversation.as_str().as_bytes(), &self.epoch.0.to_be_bytes(), &self.seq.0.to_be_bytes()];
        ContentHash::of("mark_read", parts)
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        let target = situation.read.filter(|target| target.allowed).ok_or(Refusal::NOT_ALLOWED)?;
        if self.epoch != situation.epoch {
            return Err(Refusal::OTHER_EPOCH);
        }
        if self.seq <= target.current.seq {
            return Ok(Verdict::Nothing(self.answered(situation, target.current)));
        }
        let cursor = self.asked(target).ok_or(Refusal::ABOVE_HEAD)?;
        Ok(Verdict::Write(Content::ReadMoved(client::ReadMoved {
            conversation_id: (&self.conversation).into(),
            seq: cursor.seq.0,
            ordinal: cursor.ordinal.0,
        })))
    }

    /// The cursor as it stands with this command, perhaps higher than asked.
    fn answer(&self, situation: &Situation<'_>, _place: Place) -> Body {
        let target = situation.read.cloned().unwrap_or_default();
        let asked = self.asked(&target).unwrap_or_default();
        let cursor = if asked.seq > target.current.seq { asked } else { target.current };
        self.answered(situation, cursor)
    }
}
