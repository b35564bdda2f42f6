//! The queue on a real Kafka keeps the promises of its ports. `IM_TEST_KAFKA` names the brokers.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use im_proto::LogId;
use im_storage::conformance;
use im_storage::kafka::{KafkaConsumer, KafkaError, KafkaOptions, KafkaQueue, check, create_topic};
use im_storage::ports::{Batch, Consumed, Consumer as _, Offset, Partition, Queue as _, Record, Shard};
use std::sync::Arc;

const PARTITIONS: u16 = 4;

/// A topic and a group of their own, on a cluster of one broker.
async fn options() -> KafkaOptions {
    let name = format!("im-test-{:016x}", rand::random::<u64>());
    let brokers = std::env::var("IM_TEST_KAFKA").expect("IM_TEST_KAFKA names the brokers; see scripts/services env");
    let allow = ["kafka.replicas", "kafka.in_sync_replicas"].map(str::to_owned).into();
    let options =
        KafkaOptions { brokers, topic: name.clone(), group: name, settings: Vec::new(), in_flight_max: 10_000, allow };
    create_topic(&options, PARTITIONS, 1).await.unwrap();
    options
}

async fn open() -> (Arc<KafkaQueue>, Vec<KafkaConsumer>) {
    let options = options().await;
    let consumer = KafkaConsumer::open(&options).unwrap();
    (KafkaQueue::open(&options).await.unwrap(), vec![consumer])
}

fn record(of: &str, number: usize) -> Record {
    Record { log: LogId::parse(of).unwrap(), upstream: number.to_string().into() }
}

fn partition(of: &str) -> Partition {
    Partition::of(Shard::of(&LogId::parse(of).unwrap()), PARTITIONS.into())
}

/// A log of each partition.
fn logs() -> Vec<String> {
    let found = |number: u32| (0..).map(|n| format!("log-{n}")).find(|name| partition(name) == Partition(number));
    (0..u32::from(PARTITIONS)).filter_map(found).collect()
}

async fn batch(consumer: &mut KafkaConsumer) -> Batch {
    loop {
        if let Some(Consumed::Records(batch)) = consumer.next(1_000).await.unwrap() {
            return batch;
        }
    }
}

fn numbers(batch: &Batch) -> Vec<String> {
    batch.records.iter().map(|(_, record)| String::from_utf8(record.upstream.to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_keeps_its_promises() {
    conformance::queue(open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_comes_again_to_the_next_owner() {
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait((0..3).map(|n| record("a", n)).collect()).await.unwrap();
    let mut first = KafkaConsumer::open(&options).unwrap();
    let taken = batch(&mut first).await;
    let (offset, _) = taken.records[0];
    // Of the first batch only the first record is handed on.
    first.commit(taken.partition, offset).await.unwrap();
    drop(first);
    let mut second = KafkaConsumer::open(&options).unwrap();
    let again = batch(&mut second).await;
    assert_eq!((again.partition, numbers(&again)), (partition("a"), vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(again.records[0].0, Offset(offset.0 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_to_a_worker_that_joins_and_back_when_it_leaves() {
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    let mut old = KafkaConsumer::open(&options).unwrap();
    let mut owned = std::collections::BTreeSet::new();
    while owned.len() < usize::from(PARTITIONS) {
        let Some(Consumed::Gained(partition)) = old.next(1).await.unwrap() else { panic!("nothing was produced") };
        owned.insert(partition);
    }
    let mut new = KafkaConsumer::open(&options).unwrap();
    let mut moved = std::collections::BTreeSet::new();
    while moved.len() < usize::from(PARTITIONS) / 2 {
        tokio::select! {
            lost = old.next(1) => match lost.unwrap() {
                Some(Consumed::Lost(partition)) => assert!(owned.remove(&partition)),
                other => panic!("{other:?}"),
            },
            gained = new.next(1) => match gained.unwrap() {
                Some(Consumed::Gained(partition)) => assert!(moved.insert(partition)),
                other => panic!("{other:?}"),
            },
        }
    }
    assert!(owned.is_disjoint(&moved), "{owned:?} {moved:?}");
    // Each sees its own partitions, and a commit of a lost one does nothing.
    let logs = logs();
    queue.produce_and_wait(logs.iter().map(|log| record(log, 7)).collect()).await.unwrap();
    for (consumer, own) in [(&mut old, &owned), (&mut new, &moved)] {
        for _ in own {
            let batch = batch(consumer).await;
            assert!(own.contains(&batch.partition), "{:?} is not its own", batch.partition);
            consumer.commit(batch.partition, batch.records[0].0).await.unwrap();
        }
    }
    old.commit(*moved.first().unwrap(), Offset(99)).await.unwrap();
    drop(new);
    while owned.len() < usize::from(PARTITIONS) {
        match old.next(1).await.unwrap() {
            Some(Consumed::Gained(partition)) => assert!(owned.insert(partition)),
            other => panic!("what was committed came again: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_topic_is_refused_by_name_and_a_missing_one_too() {
    let mut options = options().await;
    let (partitions, findings) = check(&options).await.unwrap();
    let names: Vec<_> = findings.iter().map(|finding| finding.name).collect();
    assert_eq!(
        (partitions, names.as_slice()),
        (u32::from(PARTITIONS), &["kafka.replicas", "kafka.in_sync_replicas"][..])
    );
    options.allow.clear();
    assert!(
        matches!(KafkaQueue::open(&options).await, Err(KafkaError::Weak(finding)) if finding.name == "kafka.replicas")
    );
    options.topic += "-missing";
    assert!(matches!(KafkaQueue::open(&options).await, Err(KafkaError::NoTopic(_))));
    options.settings = vec![("acks".to_owned(), "0".to_owned())];
    assert!(matches!(KafkaQueue::open(&options).await, Err(KafkaError::FixedSetting { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_leaves_records_with_their_caller_and_none_overtakes() {
    const COUNT: usize = 20_000;
    let options = KafkaOptions { in_flight_max: 100, ..options().await };
    let queue = KafkaQueue::open(&options).await.unwrap();
    let mut records: Vec<Record> = (0..COUNT).map(|n| record("a", n)).collect();
    queue.produce(&mut records);
    assert!(!records.is_empty(), "{COUNT} records fitted into a buffer of 100");
    while !records.is_empty() {
        tokio::task::yield_now().await;
        queue.produce(&mut records);
    }
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        let batch = batch(&mut consumer).await;
        seen.extend(numbers(&batch));
        let (last, _) = batch.records.last().unwrap();
        consumer.commit(batch.partition, *last).await.unwrap();
    }
    assert!(seen.iter().enumerate().all(|(at, number)| *number == at.to_string()), "lost, doubled or overtaken");
    assert_eq!(queue.counts().lost.load(std::sync::atomic::Ordering::Relaxed), 0);
}
