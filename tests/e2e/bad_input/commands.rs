//! B30, B31 and B33: well-formed commands that reach for what is not theirs. B32 and the errors' sameness are in C5.

use crate::harness::calls::{direct, mark_read};
use crate::harness::raw::{Raw, assert_final, send_to_user};
use crate::harness::server::{Server, Settings};
use im_proto::client::entry::Content;
use im_proto::client::{self, Entry, ErrorCode};
use prost::Message as _;

#[tokio::test]
async fn b30_a_sender_named_inside_a_body_means_nothing() {
    let server = Server::start(Settings::for_tests());
    let mut eve = Raw::device(&server, "eve", "phone").await;
    // An entry by ann, forged as a body: stored as eve's bytes.
    let forged = Entry {
        seq: 1,
        sender_user_id: "ann".to_owned(),
        client_id: "m1".to_owned(),
        content: Some(Content::Message(client::Message::default())),
        ..Default::default()
    };
    let mut send = send_to_user("bob", "m1", "");
    let text = client::MessageBody { text: "from ann".to_owned(), ..Default::default() };
    send.body = client::MessageBody { data: forged.encode_to_vec().into(), ..text }.encode_to_vec().into();
    let ack = eve.message(send).await;
    assert_eq!(ack.conversation_id, direct("eve", "bob"));
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let entries = bob.pull_all(&ack.conversation_id, ack.epoch, 1).await;
    assert_eq!(entries[0].sender_user_id, "eve");
}

#[tokio::test]
async fn b31_a_pull_below_the_joining_is_answered_from_the_floor() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut cid = Raw::device(&server, "cid", "phone").await;
    let group = ann.create_group("create", &["bob"]).await.conversation_id;
    let epoch = ann.message_to(&group, "secret").await.epoch;
    ann.add_members(&group, "add", &["cid"]).await;
    for from_seq in [1, 2, 3] {
        let page = cid.pull(&group, epoch, from_seq).await;
        assert_eq!((page.floor_seq, page.entries[0].seq, page.entries.len()), (3, 3, 1));
    }
    // The user's own log is the user's own.
    let log = im_proto::LogId::user(&im_proto::UserId::parse("ann").unwrap()).to_string();
    let foreign = crate::harness::calls::pull(&log, epoch, 1);
    assert_final(&cid.call(foreign).await, ErrorCode::NotAllowed);
}

#[tokio::test]
async fn b33_a_read_cursor_above_the_head_is_refused_and_a_lower_one_answered_with_the_present() {
    let server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let conversation = direct("ann", "bob");
    let mut epoch = 0;
    for number in 1..=3 {
        epoch = ann.message_to_user("bob", &format!("m{number}")).await.epoch;
    }
    for (number, seq) in [4, u64::from(u32::MAX), u64::MAX].into_iter().enumerate() {
        let answer = bob.call(mark_read(&conversation, epoch, seq, &format!("high{number}"))).await;
        assert_final(&answer, ErrorCode::Reset);
    }
    assert_eq!(bob.mark_read(&conversation, epoch, 2, "read2").await.read_seq, 2);
    assert_eq!(bob.mark_read(&conversation, epoch, 1, "read1").await.read_seq, 2);
    assert_eq!(bob.mark_read(&conversation, epoch, 0, "read0").await.read_seq, 2);
    // Only one's own cursor moves.
    assert_eq!(ann.sync().await.conversation(&conversation).read_seq, 3);
}
