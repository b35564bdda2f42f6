//! The members of a conversation, a page at a time.
//!
//! In: `ListMembers`. Out: `Members` by rising user id, each with its read cursor. Always: for present members only; a page
//! comes from one read of the directory, so members and `members_seq` belong together.

use super::{ReadAnswer, Requests, conversation_id, page};
use crate::authorize::{Operation, authorize};
use crate::frame;
use crate::refusal::{Failure, Refusal};
use im_proto::client::{self, server_frame::Body};
use im_proto::{LogId, Ordinal, UserId};
use im_storage::ports::{Conversation, MemberRow, ReadCursor};

const MEMBERS_MAX: usize = 200;

impl Requests {
    pub(super) async fn list_members(
        &self,
        user: &UserId,
        request_id: u64,
        list: &client::ListMembers,
    ) -> Result<ReadAnswer, Failure> {
        let log = conversation_id(&list.conversation_id)?;
        let after = match list.after_user_id.as_str() {
            "" => None,
            after => Some(UserId::parse(after).map_err(|_| Refusal::invalid("after_user_id is no id"))?),
        };
        authorize(&self.shared.ports, user, &log, Operation::ListMembers).await?;
        let limit = page(list.limit, MEMBERS_MAX);
        let listed = self.shared.ports.directory.members(&log, after.as_ref(), limit + 1).await?;
        let Conversation { header, members: mut rows } = listed.ok_or(Refusal::NOT_ALLOWED)?;
        let complete = rows.len() <= limit;
        rows.truncate(limit);
        let readers: Vec<(LogId, UserId)> = rows.iter().map(|row| (log.clone(), row.user.clone())).collect();
        let reads = self.shared.ports.inbox.reads(&readers).await?;
        let members = rows.iter().zip(reads).map(|(row, read)| client::Member {
            user_id: (&row.user).into(),
            joined_seq: row.joined_seq.0,
            read_seq: shown(row, read).seq.0,
        });
        let body = Body::Members(client::Members {
            conversation_id: (&log).into(),
            members: members.collect(),
            complete,
            members_seq: header.applied_seq.0,
            creator_user_id: (&header.created.creator).into(),
        });
        Ok(ReadAnswer::of(frame::of(request_id, body)))
    }
}

/// A cursor from an earlier time in the conversation says nothing about this one.
fn shown(row: &MemberRow, read: ReadCursor) -> ReadCursor {
    if read.seq < row.joined_seq { ReadCursor { seq: im_proto::Seq(0), ordinal: Ordinal(0) } } else { read }
}
