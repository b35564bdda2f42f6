//! C1: an ack leaves only after the entry is durable; no crash after that loses it.
//!
//! A power cut is harsher than a crash; the storage crate's own tests drop unsynced writes at every sync.

use crate::harness::calls::{direct, message_ids};
use crate::harness::raw::{Raw, send_to_user};
use crate::harness::server::{Server, Settings, is_cluster};
use im_proto::client::ErrorClass;
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;

#[tokio::test]
async fn acked_messages_survive_kill_9_at_the_last_ack() {
    let mut server = Server::start(Settings::for_tests());
    let conversation = direct("ann", "bob");
    let mut acks = Vec::new();
    for round in 0..5 {
        let mut ann = Raw::device(&server, "ann", "phone").await;
        let mut requests = Vec::new();
        for number in 0..20 {
            let id = format!("m{round}-{number}");
            let send = send_to_user("bob", &id, &id);
            requests.push((ann.send(Command::Send(send.clone())).await, send));
        }
        for (request, send) in requests {
            acks.push(match ann.answer(request).await {
                Body::SendAck(ack) => ack,
                // Behind a restart of everything at once. The resend is acked as the message was, if it was stored.
                Body::Error(error) if is_cluster() && error.class() != ErrorClass::Final => ann.message(send).await,
                other => panic!("{other:?}"),
            });
        }
        server.kill9();
        server.restart();
    }
    if is_cluster() {
        acks.sort_by_key(|ack| ack.seq); // what was sent again may stand behind what was sent later
    }
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let epoch = bob.sync().await.epoch;
    let entries = bob.pull_all(&conversation, epoch, 1).await;
    assert_eq!(entries.len(), acks.len());
    for (entry, ack) in entries.iter().zip(&acks) {
        let stored = (conversation.as_str(), epoch, entry.seq, entry.ordinal, entry.server_time_ms);
        let acked = (ack.conversation_id.as_str(), ack.epoch, ack.seq, ack.ordinal, ack.server_time_ms);
        assert_eq!(stored, acked);
    }
    assert_eq!(message_ids(&entries)[..2], ["m0-0", "m0-1"]);
}

#[tokio::test]
async fn every_kind_of_acked_command_survives_kill_9() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    server.kill9();
    server.restart();

    let mut ann = Raw::device(&server, "ann", "phone").await;
    assert_eq!(ann.add_members(&group, "add", &["cid"]).await.seq, 2);
    server.kill9();
    server.restart();

    let mut cid = Raw::device(&server, "cid", "phone").await;
    let sent = cid.message_to(&group, "hello").await;
    assert_eq!(sent.seq, 3);
    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.mark_read(&group, sent.epoch, 3, "read").await.read_seq, 3);
    server.kill9();
    server.restart();

    let mut ann = Raw::device(&server, "ann", "phone").await;
    assert_eq!(ann.remove_member(&group, "remove", "cid").await.seq, 4);
    server.kill9();
    server.restart();

    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.sync().await.conversation(&group).read_seq, 3, "the read cursor is kept");
    assert_eq!(bob.leave_group(&group, "leave").await.seq, 5);
    server.kill9();
    server.restart();

    let mut ann = Raw::device(&server, "ann", "phone").await;
    let entries = ann.pull_all(&group, sent.epoch, 1).await;
    let ids: Vec<&str> = entries.iter().map(|entry| entry.client_id.as_str()).collect();
    assert_eq!(ids, ["create", "add", "hello", "remove", "leave"]);
    let members = ann.members(&group).await;
    assert_eq!(members.members.iter().map(|member| member.user_id.as_str()).collect::<Vec<_>>(), ["ann"]);
}
