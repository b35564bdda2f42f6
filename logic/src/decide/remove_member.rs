//! The creator removes somebody else.
//!
//! In: `RemoveMember`. Out: `MemberRemoved`. Always: whoever is removed reads up to this entry, it included; a resend finds
//! the entry though the member is gone.

use super::{Mutation, Place, Situation, Verdict, check_log, client_id, command_ack, group_after, user_id};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use im_proto::client::{self, entry::Content, server_frame::Body};
use im_proto::{ClientId, UserId};

pub(super) struct RemoveMember {
    client_id: ClientId,
    after: Option<ClientId>,
    user: UserId,
}

impl RemoveMember {
    pub fn read(remove: &client::RemoveMember, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let client_id = client_id(&remove.command_id)?;
        check_log(situation, &remove.conversation_id)?;
        let after = group_after(&remove.after, &client_id)?;
        Ok(Self { client_id, after, user: user_id(&remove.user_id)? })
    }
}

impl Mutation for RemoveMember {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn after(&self) -> Option<&ClientId> {
        self.after.as_ref()
    }

    fn content_hash(&self) -> ContentHash {
        ContentHash::of("remove_member", [self.user.as_str().as_bytes()])
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        let members = &situation.at.members;
        if members.creator.as_ref() != Some(situation.sender) || !situation.is_group_member() {
            return Err(Refusal::NOT_ALLOWED);
        }
        if self.user == *situation.sender {
            return Err(Refusal::invalid("leaving is a command of its own"));
        }
        if !members.contains(&self.user) {
            return Err(Refusal::invalid("the user is no member"));
        }
        Ok(Verdict::Write(Content::MemberRemoved(client::MemberRemoved { user_id: (&self.user).into() })))
    }

    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body {
        command_ack(situation, place)
    }
}
