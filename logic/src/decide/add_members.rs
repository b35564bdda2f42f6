//! The creator adds members.
//!
//! In: `AddMembers`. Out: `MembersAdded` with those who were no members before. Always: an entry is written even if nobody
//! is new, so that a resend finds it and is answered the same.

use super::{Mutation, Place, Situation, Verdict, check_log, client_id, command_ack, group_after, user_id};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use im_proto::client::{self, entry::Content, server_frame::Body};
use im_proto::{ClientId, UserId};

pub(super) struct AddMembers {
    client_id: ClientId,
    after: Option<ClientId>,
    /// As the client listed them.
    users: Vec<UserId>,
}

impl AddMembers {
    pub fn read(add: &client::AddMembers, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let client_id = client_id(&add.command_id)?;
        check_log(situation, &add.conversation_id)?;
        if add.user_ids.is_empty() {
            return Err(Refusal::invalid("nobody is named"));
        }
        if add.user_ids.len() > situation.limits.group_members_max {
            return Err(Refusal::too_large("the list of members"));
        }
        let users = add.user_ids.iter().map(|user| user_id(user)).collect::<Result<_, _>>()?;
        let after = group_after(&add.after, &client_id)?;
        Ok(Self { client_id, after, users })
    }
}

impl Mutation for AddMembers {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn after(&self) -> Option<&ClientId> {
        self.after.as_ref()
    }

    fn content_hash(&self) -> ContentHash {
        ContentHash::of("add_members", self.users.iter().map(|user| user.as_str().as_bytes()))
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        let members = &situation.at.members;
        if members.creator.as_ref() != Some(situation.sender) || !situation.is_group_member() {
            return Err(Refusal::NOT_ALLOWED);
        }
        let mut new: Vec<&UserId> = self.users.iter().filter(|user| !members.contains(user)).collect();
        new.sort_unstable();
        new.dedup();
        if members.present.len() + new.len() > situation.limits.group_members_max {
            return Err(Refusal::too_large("the group"));
        }
        let user_ids = new.into_iter().map(String::from).collect();
        Ok(Verdict::Write(Content::MembersAdded(client::MembersAdded { user_ids })))
    }

    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body {
        command_ack(situation, place)
    }
}
