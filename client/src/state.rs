//! What a client keeps over a restart.
//!
//! In: the state of a core, or what the app stored of an earlier one. Out: a plain struct that any format can hold. Always:
//! taken between two inputs it is complete: what was handed to the app lies behind the cursors, and no send without a final
//! answer is missing. Storing it is the app's matter.

use crate::event::Recipient;
use im_proto::{ClientId, InvalidId, LogId, UserId};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientState {
    /// 0: never signed in.
    pub epoch: u64,
    /// Opaque; empty: never synced.
    pub sync_token: Vec<u8>,
    /// The user's own log among them, once a cursor in it is known.
    pub conversations: Vec<ConversationCursor>,
    /// Per conversation in the order of sending.
    pub outbox: Vec<OutboxSend>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationCursor {
    pub conversation_id: String,
    /// The last entry handed to the app.
    pub seq: u64,
    pub ordinal: u64,
    /// The last entry known to exist; above `seq` it is pulled.
    pub head_seq: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxSend {
    /// Empty when the send was addressed to the conversation.
    pub user_id: String,
    pub conversation_id: String,
    pub client_message_id: String,
    pub body: Vec<u8>,
}

impl fmt::Debug for OutboxSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboxSend({} to {}, {} bytes)", self.client_message_id, self.conversation_id, self.body.len())
    }
}

/// The stored state holds an id that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored client state is damaged: {0}")]
pub struct InvalidState(#[from] pub InvalidId);

impl OutboxSend {
    pub(crate) fn ids(&self) -> Result<(LogId, Recipient, ClientId), InvalidState> {
        let conversation = LogId::parse(&self.conversation_id)?;
        let to = match self.user_id.as_str() {
            "" => Recipient::Conversation(conversation.clone()),
            user => Recipient::User(UserId::parse(user)?),
        };
        Ok((conversation, to, ClientId::parse(&self.client_message_id)?))
    }
}
