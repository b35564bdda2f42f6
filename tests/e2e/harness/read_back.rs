//! The store as fresh devices see it after a run.
//!
//! In: users. Out: for each, every conversation it has, entry by entry, with its cursors. Always: read through the same
//! wire as any app: sync from nothing, then pull from the floor to the head.

use super::calls::Known;
use super::raw::Raw;
use super::server::Server;
use im_proto::client::{ConversationState, Entry};

/// What one device reads of the whole store.
#[derive(Debug, Clone)]
pub struct ReadBack {
    pub user: String,
    pub device: String,
    pub epoch: u64,
    pub conversations: Vec<ReadConversation>,
}

#[derive(Debug, Clone)]
pub struct ReadConversation {
    pub state: ConversationState,
    /// From the floor to the head.
    pub entries: Vec<Entry>,
}

/// Signs in as a device that never was, and reads everything.
pub async fn read_back(server: &Server, user: &str, device: &str) -> ReadBack {
    let mut raw = Raw::device(server, user, device).await;
    let Known { epoch, mut conversations, .. } = raw.sync().await;
    conversations.sort_by(|a, b| a.conversation_id.cmp(&b.conversation_id));
    let mut read = Vec::new();
    for state in conversations {
        let entries = raw.pull_all(&state.conversation_id, epoch, 1).await;
        read.push(ReadConversation { state, entries });
    }
    ReadBack { user: user.to_owned(), device: device.to_owned(), epoch, conversations: read }
}
