use crate::scene::{self, Over};
use im_client::tokio_transport::{CallError, Client};
use im_client::{Recipient, Refusal};
use im_proto::client::ErrorCode;

#[tokio::test]
async fn a_send_outlives_its_link_on_tokio_over_tcp() {
    a_send_outlives_its_link("", Over::Tcp).await;
}

#[tokio::test]
async fn a_send_outlives_its_link_on_tokio_over_websocket() {
    a_send_outlives_its_link("ws://", Over::Websocket).await;
}

async fn a_send_outlives_its_link(scheme: &str, over: Over) {
    let (address, server) = scene::start(over);
    let (client, mut events) = Client::connect(format!("{scheme}{address}"), scene::config());
    let acked = client.send(Recipient::User(scene::user("bob")), "hello").await.unwrap();
    assert_eq!(acked.seq.0, 1);
    let mut told = Vec::new();
    while !told.last().is_some_and(scene::is_last) {
        told.push(events.next().await.expect("the client lives"));
    }
    scene::check(&told);
    drop(client);
    assert_eq!(events.next().await, None, "the task ends with the last handle");
    server.join().unwrap();
}

#[tokio::test]
async fn a_call_tells_a_refusal_as_an_error() {
    let (address, _) = scene::start(Over::Tcp);
    let (client, mut events) = Client::connect(address.to_string(), scene::config());
    while !matches!(events.next().await, Some(im_client::Event::Synced)) {}
    let refused = client.send(Recipient::User(scene::user("bob")), &"x".repeat(20_000)).await;
    let Err(CallError::Refused(Refusal { code, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!(code, ErrorCode::TooLarge);
}
