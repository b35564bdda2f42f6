//! A new group.
//!
//! In: `CreateGroup`. Out: `GroupCreated`, the first entry of the group's log. Always: the group's id derives from the
//! creator and the command's id, so creating it again meets the same log and gets the same answer.

use super::{Mutation, Place, Situation, Verdict, WRONG_LOG, client_id, command_ack, user_id};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use im_proto::client::{self, entry::Content, server_frame::Body};
use im_proto::{ClientId, LogId, UserId};

pub(super) struct CreateGroup {
    client_id: ClientId,
    name: String,
    /// As the client listed them, for the hash.
    listed: Vec<String>,
    /// Rising, the creator included.
    members: Vec<UserId>,
}

impl CreateGroup {
    pub fn read(create: &client::CreateGroup, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let client_id = client_id(&create.command_id)?;
        if create.name.len() > situation.limits.group_name_bytes_max {
            return Err(Refusal::too_large("the group's name"));
        }
        // Before the ids are parsed: work is bounded by the limit, not by the frame.
        if create.user_ids.len() > situation.limits.group_members_max {
            return Err(Refusal::too_large("the list of members"));
        }
        let mut members = create.user_ids.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>()?;
        members.push(situation.sender.clone());
        members.sort_unstable();
        members.dedup();
        if members.len() > situation.limits.group_members_max {
            return Err(Refusal::too_large("the list of members"));
        }
        Ok(Self { client_id, name: create.name.clone(), listed: create.user_ids.clone(), members })
    }
}

impl Mutation for CreateGroup {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn content_hash(&self) -> ContentHash {
        let parts = std::iter::once(self.name.as_bytes()).chain(self.listed.iter().map(|user| user.as_bytes()));
        ContentHash::of("create_group", parts)
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        if LogId::group(situation.sender, &self.client_id) != *situation.log {
            return Err(WRONG_LOG);
        }
        if !situation.at.is_empty() {
            // Its first entry has this very id: the store tells whether it also has this content.
            return Err(Refusal::CONFLICT);
        }
        let user_ids = self.members.iter().map(String::from).collect();
        Ok(Verdict::Write(Content::GroupCreated(client::GroupCreated { name: self.name.clone(), user_ids })))
    }

    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body {
        command_ack(situation, place)
    }
}
