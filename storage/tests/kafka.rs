//! The queue on a real Kafka keeps the promises of its ports. `IM_TEST_KAFKA` names the brokers.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use im_proto::{LogId, TraceId};
use im_storage::conformance;
use im_storage::kafka::{
    KafkaConsumer, KafkaError, KafkaOptions, KafkaQueue, KafkaRelations, check, check_relations, create_topics,
};
use im_storage::ports::{
    Batch, Consumed, Consumer as _, DeadLetter, DeadReason, Followed, Offset, Partition, Queue as _, Record,
    Relations as _, Shard,
};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings::{rd_kafka_resp_err_t, rd_kafka_test_fatal_error};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafka;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PARTITIONS: u16 = 4;

/// A topic and a group of their own, on a cluster of one broker.
async fn options() -> KafkaOptions {
    let name = format!("im-test-{:016x}", rand::random::<u64>());
    let brokers = std::env::var("IM_TEST_KAFKA").expect("IM_TEST_KAFKA names the brokers; see scripts/services env");
    let allow = ["kafka.replicas", "kafka.in_sync_replicas"].map(str::to_owned).into();
    let options = KafkaOptions {
        brokers,
        topic: name.clone(),
        dead_letter_topic: format!("{name}-dead"),
        relations_topic: format!("{name}-relations"),
        group: name,
        settings: Vec::new(),
        in_flight_max: 10_000,
        wall_clock_ms: now_ms,
        allow,
    };
    create_topics(&options, PARTITIONS, 1).await.unwrap();
    options
}

async fn open() -> (Arc<KafkaQueue>, Vec<KafkaConsumer>) {
    let options = options().await;
    let consumer = KafkaConsumer::open(&options).unwrap();
    (KafkaQueue::open(&options).await.unwrap(), vec![consumer])
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn record(of: &str, number: usize) -> Record {
    Record { log: LogId::parse(of).unwrap(), upstream: number.to_string().into(), trace: None }
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
    batch.records.iter().map(|queued| String::from_utf8(queued.record.upstream.to_vec()).unwrap()).collect()
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
    let offset = taken.records[0].offset;
    // Of the first batch only the first record is handed on.
    first.commit(taken.partition, offset).await.unwrap();
    drop(first);
    let mut second = KafkaConsumer::open(&options).unwrap();
    let again = batch(&mut second).await;
    assert_eq!((again.partition, numbers(&again)), (partition("a"), vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(again.records[0].offset, Offset(offset.0 + 1));
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
            consumer.commit(batch.partition, batch.records[0].offset).await.unwrap();
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
        (u32::from(PARTITIONS), &["kafka.replicas", "kafka.in_sync_replicas", "kafka.dead_letter_replicas"][..])
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
    assert!(queue.counts().in_flight.load(std::sync::atomic::Ordering::Relaxed) <= 100);
    while !records.is_empty() {
        tokio::task::yield_now().await;
        queue.produce(&mut records);
    }
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        let batch = batch(&mut consumer).await;
        seen.extend(numbers(&batch));
        let last = batch.records.last().unwrap().offset;
        consumer.commit(batch.partition, last).await.unwrap();
    }
    assert!(seen.iter().enumerate().all(|(at, number)| *number == at.to_string()), "lost, doubled or overtaken");
    assert_eq!(queue.counts().lost.load(std::sync::atomic::Ordering::Relaxed), 0);
    queue.flush(Duration::from_secs(30)).unwrap();
    assert_eq!(queue.counts().in_flight.load(std::sync::atomic::Ordering::Relaxed), 0, "all of them were heard of");
}

/// As librdkafka does by itself when it cannot go on.
fn fail_for_good(client: *mut RDKafka) {
    let code = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    // SAFETY: the client is the caller's, who still has it; the text ends with a zero and is copied.
    let raised = unsafe { rd_kafka_test_fatal_error(client, code, c"by a test".as_ptr()) };
    assert!(raised == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_for_good_is_replaced_and_what_is_produced_then_arrives() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait(vec![record("a", 0)]).await.unwrap();
    fail_for_good(queue.native_ptr());
    let mut records = vec![record("a", 1)];
    let taken = async {
        while !records.is_empty() {
            queue.produce(&mut records);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("there is no room any more");
    // Behind it in the same partition.
    queue.produce_and_wait(vec![record("a", 2)]).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < 3 {
            let batch = batch(&mut consumer).await;
            seen.extend(numbers(&batch));
            consumer.commit(batch.partition, batch.records.last().unwrap().offset).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("a record did not arrive");
    assert_eq!(seen, ["0", "1", "2"]);
    assert_eq!(queue.counts().replaced.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_failed_for_good_ends_and_can_be_dropped() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait(vec![record("a", 0), record("a", 1)]).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let taken = batch(&mut consumer).await;
    consumer.commit(taken.partition, taken.records[0].offset).await.unwrap();
    fail_for_good(consumer.native_ptr());
    let ended = async { while consumer.next(1_000).await.unwrap().is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the worker waits for ever");
    let dropped = tokio::task::spawn_blocking(move || drop(consumer));
    tokio::time::timeout(PATIENCE, dropped).await.expect("the worker's end waits for ever").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stands_still_is_replaced_and_its_partitions_come_back() {
    const PATIENCE: Duration = Duration::from_secs(90);
    const TIMES: usize = 3;
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut owned = std::collections::BTreeSet::new();
    let (mut lost, mut replaced, mut seen) = (0, 0, Vec::new());
    queue.produce_and_wait(vec![record("a", 0)]).await.unwrap();
    let all = async {
        while seen.len() <= TIMES {
            match consumer.next(1_000).await.unwrap().unwrap() {
                Consumed::Gained(partition) => assert!(owned.insert(partition), "gained twice"),
                Consumed::Lost(partition) => {
                    assert!(owned.remove(&partition), "lost twice");
                    lost += 1;
                }
                Consumed::Records(batch) => {
                    assert!(owned.contains(&batch.partition));
                    for number in numbers(&batch) {
                        if !seen.contains(&number) {
                            seen.push(number);
                        }
                    }
                    consumer.commit(batch.partition, batch.records.last().unwrap().offset).await.unwrap();
                    if replaced < seen.len().min(TIMES) {
                        replaced = seen.len();
                        consumer.replace();
                        queue.produce_and_wait(vec![record("a", replaced)]).await.unwrap();
                    }
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("a record did not arrive");
    assert_eq!(seen, (0..=TIMES).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(lost >= TIMES, "what was owned is lost first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_damaged_on_its_way_cannot_be_read() {
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait(vec![record("a", 1)]).await.unwrap();
    // Kafka's own checksum is right: a client that is not told to does not look at it.
    let config = rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).clone();
    let foreign: FutureProducer = config.create().unwrap();
    let sum = crc32c::crc32c(b"2").to_be_bytes();
    let summed = || OwnedHeaders::new().insert(Header { key: "im-crc32c", value: Some(&sum[..]) });
    for (value, headers) in [("2", summed()), ("3", summed()), ("4", OwnedHeaders::new())] {
        let of_a = FutureRecord::to(&options.topic).partition(partition("a").0 as i32).key("a");
        foreign.send(of_a.payload(value).headers(headers), Duration::from_secs(10)).await.unwrap();
    }
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let found = batch(&mut consumer).await.records.into_iter();
        seen.extend(found.map(|queued| (queued.record.upstream.to_vec(), queued.odd_key)));
    }
    // The last one is an earlier program's.
    let wanted = [("1", false), ("2", false), ("3", true), ("4", false)];
    assert_eq!(seen, wanted.map(|(value, is_odd)| (value.as_bytes().to_vec(), is_odd.then(|| "a".into()))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_lies_in_its_topic_with_where_it_came_from_and_why() {
    let options = options().await;
    // As somebody else may write it: the key is no id.
    let mut config = rdkafka::ClientConfig::new();
    let foreign: FutureProducer = config.set("bootstrap.servers", &options.brokers).create().unwrap();
    let trace = TraceId::from_halves(3, 4).unwrap();
    let header = Header { key: "traceparent", value: Some(&trace.traceparent()) };
    let garbage = FutureRecord::to(&options.topic)
        .partition(2)
        .key(&b"no \xff id"[..])
        .payload(&b"garbage"[..])
        .headers(OwnedHeaders::new().insert(header));
    foreign.send(garbage, Duration::from_secs(10)).await.unwrap();

    let queue = KafkaQueue::open(&options).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let found = batch(&mut consumer).await;
    assert_eq!((found.partition, found.records.len()), (Partition(2), 1));
    let queued = found.records[0].clone();
    assert_eq!(queued.record.trace, Some(trace));
    let letter = DeadLetter { partition: found.partition, queued, reason: DeadReason::Undecodable };
    queue.set_aside(vec![letter]).await.unwrap();

    config.set("group.id", "nobody").set("auto.offset.reset", "earliest");
    let reader: StreamConsumer = config.create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(&options.dead_letter_topic, 0, rdkafka::Offset::Beginning).unwrap();
    reader.assign(&place).unwrap();
    let kept = tokio::time::timeout(Duration::from_secs(20), reader.recv()).await.unwrap().unwrap();
    assert_eq!((kept.key(), kept.payload()), (Some(&b"no \xff id"[..]), Some(&b"garbage"[..])));
    let headers = kept.headers().unwrap();
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value.unwrap().to_vec())).collect();
    let wanted = [
        ("im-reason", "undecodable".to_owned()),
        ("im-topic", options.topic.clone()),
        ("im-partition", "2".to_owned()),
        ("im-offset", "0".to_owned()),
        ("traceparent", trace.traceparent()),
    ];
    assert_eq!(headers, wanted.map(|(key, value)| (key, value.into_bytes())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relations_keep_their_promises() {
    conformance::relations(&*KafkaRelations::open(&options().await).await.unwrap()).await;
    let options = options().await;
    let relations = KafkaRelations::open(&options).await.unwrap();
    let restart = async |_| KafkaRelations::open(&options).await.unwrap();
    conformance::relations_after_a_restart(relations, restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_relations_that_forgets_them_is_refused_by_name() {
    let mut options = options().await;
    let names =
        |findings: Vec<im_storage::finding::Finding>| findings.into_iter().map(|of| of.name).collect::<Vec<_>>();
    assert_eq!(names(check_relations(&options).await.unwrap()), ["kafka.replicas", "kafka.in_sync_replicas"]);
    // The dead letters' topic deletes what is old; that of the commands has many partitions too.
    let relations_topic = std::mem::replace(&mut options.relations_topic, options.dead_letter_topic.clone());
    assert!(names(check_relations(&options).await.unwrap()).contains(&"kafka.relations_cleanup"));
    assert!(
        matches!(KafkaRelations::open(&options).await, Err(KafkaError::Weak(of)) if of.name == "kafka.relations_cleanup")
    );
    options.relations_topic = options.topic.clone();
    assert!(matches!(KafkaRelations::open(&options).await, Err(KafkaError::TooManyPartitions { most: 1, .. })));
    let name = format!("{relations_topic}-short");
    let short = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    let short = short.set("cleanup.policy", "compact").set("delete.retention.ms", "1000");
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap();
    admin.create_topics([&short], &AdminOptions::new()).await.unwrap();
    options.relations_topic = name.clone();
    assert!(names(check_relations(&options).await.unwrap()).contains(&"kafka.relations_removed"));
    admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap();
    options.relations_topic = relations_topic + "-missing";
    assert!(matches!(KafkaRelations::open(&options).await, Err(KafkaError::NoTopic(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_relation_stops_nobody_who_follows() {
    let options = options().await;
    let foreign: FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap();
    for key in [&b"block.ann.bob"[..], b"no \xff id"] {
        let record = FutureRecord::to(&options.relations_topic).key(key).payload(&b"garbage"[..]);
        foreign.send(record, Duration::from_secs(10)).await.unwrap();
    }
    let relations = KafkaRelations::open(&options).await.unwrap();
    let mut feed = relations.follow().await.unwrap();
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), feed.next()).await.unwrap(), Followed::CaughtUp);
}

/// Found by chaos: a frozen worker with a long backlog lost its partitions, got them back, and read them no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_lost_while_it_was_full_is_read_on_when_it_is_back() {
    const RECORDS: usize = 6_000;
    const PATIENCE: Duration = Duration::from_secs(30);
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    for log in logs() {
        queue.produce_and_wait((0..RECORDS).map(|number| record(&log, number)).collect()).await.unwrap();
    }
    let mut old = KafkaConsumer::open(&options).unwrap();
    let full = async |consumer: &KafkaConsumer, partitions: usize| {
        while consumer.full().len() != partitions {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, full(&old, PARTITIONS.into())).await.expect("more is taken than may wait");
    let new = KafkaConsumer::open(&options).unwrap();
    tokio::time::timeout(PATIENCE, full(&old, usize::from(PARTITIONS) / 2)).await.expect("nothing has moved");
    drop(new);
    let mut read = std::collections::BTreeMap::<Partition, usize>::new();
    let all = async {
        while read.values().filter(|read| **read == RECORDS).count() < PARTITIONS.into() {
            match old.next(10_000).await.unwrap() {
                Some(Consumed::Records(batch)) => {
                    *read.entry(batch.partition).or_default() += batch.records.len();
                    old.commit(batch.partition, batch.records.last().unwrap().offset).await.unwrap();
                }
                Some(Consumed::Lost(partition)) => drop(read.remove(&partition)),
                _ => {}
            }
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    assert!(all.is_ok(), "of {RECORDS} records each: {read:?}");
}

/// F27: a worker whose clock is ten minutes ahead of the brokers'.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_worker_keeps_up_is_fresh_whatever_the_clocks_say() {
    fn ahead_ms() -> i64 {
        now_ms() + 600_000
    }
    let options = KafkaOptions { wall_clock_ms: ahead_ms, ..options().await };
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait(vec![record("a", 0)]).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let mut ages = Vec::new();
    for number in 1..=3 {
        let batch = batch(&mut consumer).await;
        ages.push(batch.records[0].since.elapsed());
        consumer.commit(batch.partition, batch.records[0].offset).await.unwrap();
        // The end was reached; what comes next was not there before.
        queue.produce_and_wait(vec![record("a", number)]).await.unwrap();
    }
    assert!(ages[0] > Duration::from_secs(500), "of a backlog only the clocks tell the age: {ages:?}");
    assert!(ages[1..].iter().all(|age| *age < Duration::from_secs(60)), "{ages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_what_was_not_committed() {
    let options = options().await;
    let queue = KafkaQueue::open(&options).await.unwrap();
    queue.produce_and_wait((0..10).map(|n| record("a", n)).collect()).await.unwrap();
    let mut consumer = KafkaConsumer::open(&options).unwrap();
    let lag = consumer.lag();
    let taken = batch(&mut consumer).await;
    consumer.commit(taken.partition, taken.records[3].offset).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lag.by_partition().contains(&(partition("a"), 6)) {
        assert!(Instant::now() < deadline, "{:?}", lag.by_partition());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let counts = queue.counts();
    assert_eq!(counts.taken.load(std::sync::atomic::Ordering::Relaxed), 10);
}
