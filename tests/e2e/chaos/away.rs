//! F6, F11, F15, F16: a service gives no answers. Every request ends in time, by a code that says what to do, and what does
//! not need the service goes on.

use super::proxy::{Direction, Trouble};
use super::scene::Scene;
use crate::harness::calls::{direct, pull};
use crate::harness::raw::{Raw, send_to_user};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{Error, ErrorClass};

/// Ann and bob have a conversation, eve is nobody in it.
struct Talk {
    scene: Scene,
    ann: Raw,
    bob: Raw,
    eve: Raw,
    conversation: String,
    epoch: u64,
    sent: u64,
}

impl Talk {
    async fn start() -> Self {
        let scene = Scene::start().await;
        let mut ann = Raw::device(&scene.server, "ann", "phone").await;
        let bob = Raw::device(&scene.server, "bob", "phone").await;
        let eve = Raw::device(&scene.server, "eve", "phone").await;
        let epoch = ann.message_to_user("bob", "m1").await.epoch;
        Self { scene, ann, bob, eve, conversation: direct("ann", "bob"), epoch, sent: 1 }
    }

    /// Requests reach the service, its answers do not arrive.
    fn silence(&self, link: &str) {
        self.scene.link(link).make(Trouble::Hold(Direction::Back));
    }

    /// A message of ann's, without its answer.
    async fn send(&mut self) -> u64 {
        self.sent += 1;
        let command = Command::Send(send_to_user("bob", &format!("m{}", self.sent), "text"));
        self.ann.send(command).await
    }

    /// How bob's pull of the conversation ends.
    async fn pull(&mut self) -> Body {
        self.bob.call(pull(&self.conversation, self.epoch, 1)).await
    }

    /// The service is back: the last message, sent again, is stored once and behind those before it, and everybody can read it.
    async fn is_whole_again(&mut self, link: &str) {
        self.scene.link(link).make(Trouble::None);
        let id = format!("m{}", self.sent);
        loop {
            match self.ann.call(Command::Send(send_to_user("bob", &id, "text"))).await {
                Body::SendAck(ack) => break assert_eq!(ack.seq, self.sent),
                Body::Error(error) => assert_ne!(error.class(), ErrorClass::Final, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        loop {
            match self.pull().await {
                Body::Pulled(pulled) => break assert_eq!(pulled.entries.len() as u64, self.sent),
                Body::Error(error) => assert_eq!(error.class(), ErrorClass::Retry, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(self.bob.sync().await.conversations.iter().any(|of| of.head_seq == self.sent));
    }
}

#[track_caller]
fn error(body: Body) -> Error {
    if let Body::Error(error) = body { error } else { panic!("not an error: {body:?}") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_service_gives_no_answers_every_request_ends_and_what_does_not_need_it_goes_on() {
    let mut talk = Talk::start().await;

    talk.silence("kafka");
    let sent = talk.send().await;
    assert!(matches!(talk.pull().await, Body::Pulled(_)));
    assert!(!talk.bob.sync().await.conversations.is_empty());
    talk.bob.is_alive().await;
    let class = error(talk.ann.answer(sent).await).class();
    assert!([ErrorClass::Unknown, ErrorClass::Busy].contains(&class), "{class:?}");
    talk.is_whole_again("kafka").await;

    talk.silence("mongodb");
    let sent = talk.send().await;
    let class = error(talk.pull().await).class();
    assert!([ErrorClass::Unknown, ErrorClass::Retry].contains(&class), "{class:?}");
    talk.bob.is_alive().await;
    assert_eq!(error(talk.ann.answer(sent).await).class(), ErrorClass::Unknown);
    talk.is_whole_again("mongodb").await;

    talk.silence("redis");
    let sent = talk.send().await;
    assert!(matches!(talk.ann.answer(sent).await, Body::SendAck(ack) if ack.seq == talk.sent));
    assert!(matches!(talk.pull().await, Body::Pulled(_)));
    talk.bob.is_alive().await;
    talk.is_whole_again("redis").await;

    talk.silence("mysql");
    let sent = talk.send().await;
    assert!(matches!(talk.ann.answer(sent).await, Body::SendAck(ack) if ack.seq == talk.sent));
    // Not known is not allowed.
    let class = error(talk.eve.call(pull(&talk.conversation, talk.epoch, 1)).await).class();
    assert!([ErrorClass::Unknown, ErrorClass::Retry, ErrorClass::Final].contains(&class), "{class:?}");
    talk.is_whole_again("mysql").await;
}
