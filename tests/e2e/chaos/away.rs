//! F6, F11, F15, F16: a service gives no answers. Every request ends in time, by a code that says what to do, and what does
//! not need the service goes on.

use super::proxy::{Direction, Trouble};
use super::scene::{GATEWAYS, Link, Scene};
use crate::harness::calls::{direct, pull};
use crate::harness::raw::{Raw, send_to_user};
use crate::harness::server::Settings;
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{Error, ErrorClass};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Longer than any call to a service lasts: who waits for one is met while it waits.
const SILENCE: Duration = Duration::from_secs(12);
/// Ten times what an ack takes on a slow machine, and half of what such a call takes.
const ACK_DEADLINE: Duration = Duration::from_secs(5);
/// Ten times what a store that is back is not asked again for, and a heartbeat.
const SYNCED_DEADLINE: Duration = Duration::from_secs(40);
/// The pace of a hand.
const PACE: Duration = Duration::from_millis(50);

/// Ann and bob, each at a gateway of their own, have a conversation; eve is nobody in it.
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
        // Bob and eve wait in silence.
        let settings = Settings::for_tests().with("IM_GATEWAY__IDLE_TIMEOUT_MS", "300000");
        let mut scene = Scene::start(settings).await;
        let [of_ann, of_bob] = [0, 1].map(|gateway| scene.server.door_of(gateway));
        let mut ann = Raw::device_over(&scene.server, of_ann, "ann", "phone").await;
        let bob = Raw::device_over(&scene.server, of_bob, "bob", "phone").await;
        let eve = Raw::device(&scene.server, "eve", "phone").await;
        let epoch = ann.message_to_user("bob", "m1").await.epoch;
        Self { scene, ann, bob, eve, conversation: direct("ann", "bob"), epoch, sent: 1 }
    }

    /// Requests of everybody reach the service, its answers do not arrive.
    fn silence(&self, service: &str) {
        self.scene.links.to(service).for_each(is_silent);
    }

    /// What ann sends all the while is acked, one message behind the other, and nobody waits for the service in between.
    async fn is_acked_through(&mut self, silence: Duration) {
        let until = Instant::now() + silence;
        while Instant::now() < until {
            let sent = self.send().await;
            match tokio::time::timeout(ACK_DEADLINE, self.ann.answer(sent)).await {
                Ok(Body::SendAck(ack)) => assert_eq!(ack.seq, self.sent),
                Ok(other) => panic!("message {}: {other:?}", self.sent),
                Err(_) => {
                    panic!("message {} of a conversation that is known has no ack after {ACK_DEADLINE:?}", self.sent)
                }
            }
            tokio::time::sleep(PACE).await;
        }
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
    async fn is_whole_again(&mut self, service: &str) {
        self.scene.links.to(service).for_each(|link| link.make(Trouble::None));
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
                Body::Pulled(pulled) => break assert_eq!(pulled.head_seq, self.sent),
                Body::Error(error) => assert_eq!(error.class(), ErrorClass::Retry, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        // What the inbox missed is made up for beside the commands.
        let synced = async {
            while !self.bob.sync().await.conversations.iter().any(|of| of.head_seq == self.sent) {
                tokio::time::sleep(PACE).await;
            }
        };
        let synced = tokio::time::timeout(SYNCED_DEADLINE, synced).await;
        assert!(synced.is_ok(), "no sync tells of message {} after {SYNCED_DEADLINE:?}", self.sent);
    }
}

fn is_silent(link: &Link) {
    link.make(Trouble::Hold(Direction::Back));
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
    talk.is_acked_through(SILENCE).await;
    assert!(matches!(talk.pull().await, Body::Pulled(_)));
    talk.bob.is_alive().await;
    talk.is_whole_again("redis").await;

    // For the lease of ann's gateway only.
    is_silent(talk.scene.links.of(GATEWAYS[0], "redis"));
    talk.is_acked_through(SILENCE).await;
    talk.is_whole_again("redis").await;

    talk.silence("mysql");
    talk.is_acked_through(SILENCE).await;
    // Not known is not allowed.
    let class = error(talk.eve.call(pull(&talk.conversation, talk.epoch, 1)).await).class();
    assert!([ErrorClass::Unknown, ErrorClass::Retry, ErrorClass::Final].contains(&class), "{class:?}");
    talk.is_whole_again("mysql").await;

    // Who is told to end meanwhile ends in time.
    talk.silence("kafka");
    let worker = talk.scene.server.worker(1);
    worker.terminate();
    let status = block_in_place(|| worker.wait());
    assert!(status.success(), "{status}\n{}", worker.tail());
    talk.scene.links.to("kafka").for_each(|link| link.make(Trouble::None));
    block_in_place(|| talk.scene.server.worker(1).restart());
    talk.is_whole_again("kafka").await;
}
