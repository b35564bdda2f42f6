//! Records that no attempt can work off: kept aside, their senders told for good, and nobody else held up.

use crate::harness::*;
use async_trait::async_trait;
use im_logic::{Limits, LogicConfig};
use im_proto::client::{ErrorClass, ErrorCode, server_frame::Body};
use im_proto::internal::Upstream;
use im_storage::embedded::EmbeddedQueue;
use im_storage::ports::*;
use prost::Message as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The queue, what was set aside in it, and how often that fails first.
pub struct Letters {
    inner: Arc<EmbeddedQueue>,
    kept: Mutex<Vec<DeadLetter>>,
    failures: AtomicU64,
}

impl Letters {
    pub fn over(inner: Arc<EmbeddedQueue>) -> Arc<Self> {
        Arc::new(Self { inner, kept: Mutex::default(), failures: AtomicU64::new(0) })
    }

    fn kept(&self) -> Vec<(DeadReason, Record)> {
        self.kept.lock().unwrap().iter().map(|letter| (letter.reason, letter.queued.record.clone())).collect()
    }
}

#[async_trait]
impl Queue for Letters {
    fn produce(&self, records: &mut Vec<Record>) {
        self.inner.produce(records);
    }

    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.inner.produce_and_wait(records).await
    }

    async fn set_aside(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("away, as a test wants it".to_owned()));
        }
        self.kept.lock().unwrap().extend(letters);
        Ok(())
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }
}

/// What a gateway would write, but for the client's frame.
fn poison(phone: &Phone, request_id: u64) -> Record {
    let whole = record(phone, request_id, to_user("b", "poison"));
    let upstream = Upstream::decode(whole.upstream).unwrap();
    let upstream = Upstream { frame: vec![0xff; 9].into(), ..upstream };
    Record { upstream: upstream.encode_to_vec().into(), ..whole }
}

fn refused_for_good(body: &Body) -> ErrorCode {
    let Body::Error(error) = body else { panic!("{body:?} is no refusal") };
    assert_eq!(error.class(), ErrorClass::Final);
    error.code()
}

#[tokio::test]
async fn an_undecodable_record_is_set_aside_and_its_sender_told_for_good() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let garbage = Record { upstream: vec![0xff; 9].into(), ..poison(&a, 900) };
    world.ports.queue.produce(&mut vec![poison(&a, 901), garbage.clone()]);
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 1, "who comes behind it is not held up");
    assert_eq!(refused_for_good(&world.answer(&a, 901).await.body), ErrorCode::InvalidArgument);
    let kept = world.letters.kept();
    let reasons: Vec<_> = kept.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, [DeadReason::Undecodable, DeadReason::Undecodable]);
    assert_eq!(kept[0].1.upstream, poison(&a, 901).upstream, "as it came");
    assert_eq!(kept[1].1.upstream, garbage.upstream);
    assert_eq!(world.metrics.set_aside().collect::<Vec<_>>(), [("undecodable", 2), ("too_large", 0)]);
}

#[tokio::test]
async fn while_a_dead_letter_cannot_be_kept_its_partition_waits() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    world.letters.failures.store(2, Ordering::SeqCst);
    world.ports.queue.produce(&mut vec![poison(&a, 901)]);
    assert_eq!(refused_for_good(&world.answer(&a, 901).await.body), ErrorCode::InvalidArgument);
    assert_eq!(world.letters.kept().len(), 1, "it was told before it was kept");
    assert_eq!(world.metrics.store_errors.load(Ordering::Relaxed), 2);
    assert_eq!(acked(&world.ask(&a, to_user("b", "m")).await), 1);
}

#[tokio::test]
async fn an_entry_that_no_store_takes_is_refused_for_good_and_set_aside() {
    let limits = Limits { body_bytes_max: 1 << 20, ..LogicConfig::default().limits };
    let world = World::with(LogicConfig { limits, ..generous() }).await;
    let a = world.phone("a", "1").await;
    let large = "x".repeat(ENTRY_BYTES_MAX);
    let answers =
        world.ask_all(vec![(&a, to_user("b", "1")), (&a, send_text("b", "2", &large)), (&a, to_user("b", "3"))]);
    let answers = answers.await;
    assert_eq!((acked(&answers[0]), acked(&answers[2])), (1, 2));
    assert_eq!(refused_for_good(&answers[1]), ErrorCode::TooLarge);
    // Its word goes out before it is set aside; the next batch comes behind both.
    assert_eq!(acked(&world.ask(&a, to_user("b", "4")).await), 3);
    let kept = world.letters.kept();
    assert_eq!((kept.len(), kept[0].0), (1, DeadReason::TooLarge));
}
