//! A member leaves.
//!
//! In: `LeaveGroup`. Out: `MemberLeft`. Always: the creator leaves last, so a group with members has one who may add and
//! remove.

use super::{Mutation, Place, Situation, Verdict, check_log, client_id, command_ack, group_after};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use im_proto::ClientId;
use im_proto::client::{self, entry::Content, server_frame::Body};

pub(super) struct LeaveGroup {
    client_id: ClientId,
    after: Option<ClientId>,
}

impl LeaveGroup {
    pub fn read(leave: &client::LeaveGroup, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let client_id = client_id(&leave.command_id)?;
        check_log(situation, &leave.conversation_id)?;
        let after = group_after(&leave.after, &client_id)?;
        Ok(Self { client_id, after })
    }
}

impl Mutation for LeaveGroup {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn after(&self) -> Option<&ClientId> {
        self.after.as_ref()
    }

    fn content_hash(&self) -> ContentHash {
        ContentHash::of("leave_group", [])
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        let members = &situation.at.members;
        let leaves_others_behind = members.creator.as_ref() == Some(situation.sender) && members.present.len() > 1;
        if !situation.is_group_member() || leaves_others_behind {
            return Err(Refusal::NOT_ALLOWED);
        }
        Ok(Verdict::Write(Content::MemberLeft(client::MemberLeft {})))
    }

    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body {
        command_ack(situation, place)
    }
}
