//! Two devices that behave while another does not.
//!
//! In: a server under some abuse. Out: nothing, or a panic when a message between the two is not acked and delivered.

use super::raw::Raw;
use super::server::Server;

pub struct Bystanders {
    sender: Raw,
    receiver: Raw,
    sent: u64,
}

impl Bystanders {
    pub async fn new(server: &Server) -> Self {
        let receiver = Raw::device(server, "bystander-b", "phone").await;
        Self { sender: Raw::device(server, "bystander-a", "phone").await, receiver, sent: 0 }
    }

    /// Both connections still stand, and a message goes through.
    pub async fn are_undisturbed(&mut self) {
        self.sent += 1;
        let id = format!("bystander{}", self.sent);
        let ack = self.sender.message_to_user("bystander-b", &id).await;
        assert_eq!(ack.seq, self.sent);
        self.receiver.learns(&ack.conversation_id, &id).await;
    }
}
