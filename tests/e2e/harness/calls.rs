//! The commands a test makes over a [`Raw`] connection, with their right answers unpacked.
//!
//! In: arguments. Out: the answer's message; any other answer is a panic that shows it. Always: one command, one answer.

use super::raw::{Got, HEARTBEAT_INTERVAL, Raw, send_to_conversation, send_to_user, within};
use super::server::is_cluster;
use im_proto::client::client_frame::Command;
use im_proto::client::entry::Content;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, CommandAck, ConversationState, Entry, Members, Pulled, ReadMarked, SendAck};
use im_proto::{LogId, UserId};
use std::time::Duration;

/// A push that takes longer may be lost, and heartbeats tell.
const PUSH_COMES_IN: Duration = Duration::from_secs(2);
/// Every seq of a test's conversations fits one answer.
const LIMIT: u32 = 0;

macro_rules! expect {
    ($body:expr, $variant:ident) => {
        match $body {
            Body::$variant(answer) => answer,
            other => panic!("not {}: {other:?}", stringify!($variant)),
        }
    };
}

/// What a device knows after syncing from nothing.
#[derive(Debug, Default)]
pub struct Known {
    pub token: bytes::Bytes,
    pub epoch: u64,
    pub inbox_version: u64,
    pub conversations: Vec<ConversationState>,
    pub user_entries: Vec<Entry>,
}

impl Known {
    pub fn conversation(&self, id: &str) -> &ConversationState {
        self.conversations.iter().find(|state| state.conversation_id == id).unwrap_or_else(|| panic!("no {id}"))
    }
}

pub fn unread(state: &ConversationState) -> u64 {
    state.head_ordinal - state.read_ordinal.max(state.floor_ordinal)
}

impl Raw {
    pub async fn message(&mut self, send: client::Send) -> SendAck {
        expect!(self.call_until_settled(Command::Send(send)).await, SendAck)
    }

    pub async fn message_to_user(&mut self, user: &str, id: &str) -> SendAck {
        self.message(send_to_user(user, id, id)).await
    }

    pub async fn message_to(&mut self, conversation: &str, id: &str) -> SendAck {
        self.message(send_to_conversation(conversation, id, id)).await
    }

    /// Returns when the device has the message as a client comes to have it: by a push, and on a cluster, where a service that is
    /// slow may cost the push, also by a pull behind the hint of a heartbeat (C4 allows both).
    pub async fn learns(&mut self, conversation: &str, id: &str) {
        let is_it = |entry: &Entry| entry.client_id == id;
        let is_pushed = |push: &Body| match push {
            Body::Entry(push) => push.conversation_id == conversation && push.entry.as_ref().is_some_and(is_it),
            _ => false,
        };
        let push = self.push(|push| is_pushed(push).then_some(()));
        if !is_cluster() {
            return push.await;
        }
        if tokio::time::timeout(PUSH_COMES_IN, push).await.is_ok() {
            return;
        }
        let learned = async {
            loop {
                let answer = self.heartbeat().await;
                if std::mem::take(&mut self.pushes).iter().any(is_pushed) {
                    return;
                }
                if matches!(answer, Got::Frame(_)) {
                    let epoch = self.sync().await.epoch;
                    if self.pull_all(conversation, epoch, 1).await.iter().any(is_it) {
                        return;
                    }
                }
                tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            }
        };
        within("the message is pushed, or hinted and pulled", learned).await;
    }

    pub async fn create_group(&mut self, command_id: &str, users: &[&str]) -> CommandAck {
        expect!(self.call_until_settled(create_group(command_id, "a group", users)).await, CommandAck)
    }

    pub async fn add_members(&mut self, conversation: &str, command_id: &str, users: &[&str]) -> CommandAck {
        expect!(self.call_until_settled(add_members(conversation, command_id, users)).await, CommandAck)
    }

    pub async fn remove_member(&mut self, conversation: &str, command_id: &str, user: &str) -> CommandAck {
        expect!(self.call_until_settled(remove_member(conversation, command_id, user)).await, CommandAck)
    }

    pub async fn leave_group(&mut self, conversation: &str, command_id: &str) -> CommandAck {
        expect!(self.call_until_settled(leave_group(conversation, command_id)).await, CommandAck)
    }

    pub async fn mark_read(&mut self, conversation: &str, epoch: u64, seq: u64, command_id: &str) -> ReadMarked {
        expect!(self.call_until_settled(mark_read(conversation, epoch, seq, command_id)).await, ReadMarked)
    }

    pub async fn members(&mut self, conversation: &str) -> Members {
        let command = client::ListMembers { conversation_id: conversation.to_owned(), ..Default::default() };
        expect!(self.call_until_settled(Command::ListMembers(command)).await, Members)
    }

    pub async fn pull(&mut self, conversation: &str, epoch: u64, from_seq: u64) -> Pulled {
        expect!(self.call_until_settled(pull(conversation, epoch, from_seq)).await, Pulled)
    }

    /// Pulls from `from_seq` to the head, page by page.
    pub async fn pull_all(&mut self, conversation: &str, epoch: u64, from_seq: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut from = from_seq;
        loop {
            let page = self.pull(conversation, epoch, from).await;
            let Some(last) = page.entries.last().map(|entry| entry.seq) else { return entries };
            entries.extend(page.entries);
            from = last + 1;
            if last >= page.head_seq {
                return entries;
            }
        }
    }

    /// Syncs from `token` until it is complete; a state of a later page replaces the earlier one.
    pub async fn sync_from(&mut self, token: bytes::Bytes) -> Known {
        let mut known = Known { token, ..Known::default() };
        loop {
            let command = Command::Sync(client::Sync { token: known.token.clone(), limit: LIMIT });
            let page = expect!(self.call_until_settled(command).await, Synced);
            known.token = page.token;
            known.epoch = page.epoch;
            known.inbox_version = page.inbox_version;
            for state in page.conversations {
                known.conversations.retain(|old| old.conversation_id != state.conversation_id);
                known.conversations.push(state);
            }
            known.user_entries.extend(page.user_entries);
            if page.complete {
                return known;
            }
        }
    }

    pub async fn sync(&mut self) -> Known {
        self.sync_from(bytes::Bytes::new()).await
    }
}

/// The id of the direct conversation of two users.
pub fn direct(a: &str, b: &str) -> String {
    let [a, b] = [a, b].map(|user| UserId::parse(user).unwrap());
    LogId::direct(&a, &b).to_string()
}

/// The client ids of the messages among `entries`.
pub fn message_ids(entries: &[Entry]) -> Vec<&str> {
    let messages = entries.iter().filter(|entry| matches!(entry.content, Some(Content::Message(_))));
    messages.map(|entry| entry.client_id.as_str()).collect()
}

fn owned(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

pub fn create_group(command_id: &str, name: &str, users: &[&str]) -> Command {
    let (command_id, name) = (command_id.to_owned(), name.to_owned());
    Command::CreateGroup(client::CreateGroup { command_id, name, user_ids: owned(users) })
}

pub fn add_members(conversation: &str, command_id: &str, users: &[&str]) -> Command {
    let (command_id, conversation_id) = (command_id.to_owned(), conversation.to_owned());
    Command::AddMembers(client::AddMembers {
        command_id,
        conversation_id,
        user_ids: owned(users),
        ..Default::default()
    })
}

pub fn remove_member(conversation: &str, command_id: &str, user: &str) -> Command {
    let (command_id, conversation_id) = (command_id.to_owned(), conversation.to_owned());
    Command::RemoveMember(client::RemoveMember {
        command_id,
        conversation_id,
        user_id: user.to_owned(),
        ..Default::default()
    })
}

pub fn leave_group(conversation: &str, command_id: &str) -> Command {
    let (command_id, conversation_id) = (command_id.to_owned(), conversation.to_owned());
    Command::LeaveGroup(client::LeaveGroup { command_id, conversation_id, ..Default::default() })
}

pub fn mark_read(conversation: &str, epoch: u64, seq: u64, command_id: &str) -> Command {
    let (command_id, conversation_id) = (command_id.to_owned(), conversation.to_owned());
    Command::MarkRead(client::MarkRead { conversation_id, epoch, seq, command_id })
}

pub fn pull(conversation: &str, epoch: u64, from_seq: u64) -> Command {
    Command::Pull(client::Pull { conversation_id: conversation.to_owned(), epoch, from_seq, limit: LIMIT })
}
