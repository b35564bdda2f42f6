//! A message to a user or a conversation.
//!
//! In: `Send`. Out: a `Message` entry with the body as received. Always: a direct conversation begins with its first
//! message, addressed by user; any other must exist and have the sender as a member.

use super::{Mutation, Place, Situation, Verdict, WRONG_LOG, after, check_log, client_id, user_id};
use crate::entry::ContentHash;
use crate::refusal::Refusal;
use bytes::Bytes;
use im_proto::client::{self, entry::Content, send::To, server_frame::Body};
use im_proto::{ClientId, LogId, LogKind, UserId};
use prost::Message as _;

pub(super) struct Send {
    client_id: ClientId,
    after: Option<ClientId>,
    /// `None`: addressed by conversation.
    to_user: Option<UserId>,
    body: Bytes,
}

impl Send {
    pub fn read(send: &client::Send, situation: &Situation<'_>) -> Result<Self, Refusal> {
        let to_user = match &send.to {
            Some(To::UserId(user)) => Some(user_id(user)?),
            Some(To::ConversationId(conversation)) => {
                check_log(situation, conversation)?;
                None
            }
            None => return Err(Refusal::invalid("a send names a user or a conversation")),
        };
        let client_id = client_id(&send.client_message_id)?;
        let after = after(&send.after, &client_id)?;
        if send.body.len() > situation.limits.body_bytes_max {
            return Err(Refusal::too_large("the body"));
        }
        client::MessageBody::decode(send.body.clone()).map_err(|_| Refusal::invalid("the body is no MessageBody"))?;
        Ok(Self { client_id, after, to_user, body: send.body.clone() })
    }

    /// Whom the entry names as its receiver; empty in groups.
    fn receiver(&self, situation: &Situation<'_>) -> Result<String, Refusal> {
        let members = &situation.at.members;
        match (&self.to_user, situation.log.kind()) {
            (Some(to), _) => {
                // In a log that has entries the pair is known; deriving the id again would cost a hash a message.
                let is_the_pair = members.contains(situation.sender) && members.peer_of(situation.sender) == to;
                let known = situation.log.kind() == Some(LogKind::Direct) && is_the_pair;
                if known || LogId::direct(situation.sender, to) == *situation.log {
                    Ok(to.into())
                } else {
                    Err(WRONG_LOG)
                }
            }
            (None, Some(LogKind::Direct)) if members.contains(situation.sender) => {
                Ok(members.peer_of(situation.sender).into())
            }
            (None, Some(LogKind::Group)) if members.contains(situation.sender) => Ok(String::new()),
            (None, _) => Err(Refusal::NOT_ALLOWED),
        }
    }
}

impl Mutation for Send {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn after(&self) -> Option<&ClientId> {
        self.after.as_ref()
    }

    fn content_hash(&self) -> ContentHash {
        ContentHash::of("send", [self.body.as_ref()])
    }

    fn judge(&self, situation: &Situation<'_>) -> Result<Verdict, Refusal> {
        let to_user_id = self.receiver(situation)?;
        Ok(Verdict::Write(Content::Message(client::Message { body: self.body.clone(), to_user_id })))
    }

    fn answer(&self, situation: &Situation<'_>, place: Place) -> Body {
        Body::SendAck(client::SendAck {
            conversation_id: situation.log.into(),
            epoch: situation.epoch.0,
            seq: place.seq.0,
            server_time_ms: place.server_time_ms,
            ordinal: place.ordinal.0,
        })
    }
}
