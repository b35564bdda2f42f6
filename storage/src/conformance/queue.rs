//! The promises of the queue.

use super::{log, ok};
use crate::ports::{
    Batch, Consumed, Consumer, DeadLetter, DeadReason, Offset, Partition, Queue, Queued, Record, Shard,
};
use im_proto::TraceId;
use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

fn record(of: &str, number: usize) -> Record {
    Record { log: log(of), upstream: number.to_string().into(), trace: TraceId::from_halves(7, number as u64) }
}

fn partition(queue: &dyn Queue, of: &str) -> Partition {
    Partition::of(Shard::of(&log(of)), queue.partitions())
}

/// (log, number) of a batch; its offsets rise by one.
fn contents(batch: &Batch) -> Vec<(String, usize)> {
    for pair in batch.records.windows(2) {
        assert_eq!(pair[1].offset, Offset(pair[0].offset.0 + 1));
    }
    let content = |Queued { record, .. }: &Queued| {
        let text = String::from_utf8_lossy(&record.upstream);
        (record.log.as_str().to_owned(), text.parse().unwrap_or(usize::MAX))
    };
    batch.records.iter().map(content).collect()
}

async fn next<C: Consumer>(consumer: &mut C, records_max: usize) -> Batch {
    loop {
        match ok(consumer.next(records_max).await) {
            Some(Consumed::Records(batch)) if !batch.records.is_empty() => return batch,
            Some(Consumed::Gained(_)) => {}
            other => panic!("no records, but {other:?}"),
        }
    }
}

async fn commit<C: Consumer>(consumer: &mut C, batch: &Batch) {
    if let Some(last) = batch.records.last() {
        ok(consumer.commit(batch.partition, last.offset).await);
    }
}

/// Polls once; a future that is not ready is dropped.
async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    let mut future = Box::pin(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// `make` gives an empty queue and its consumers, which together own all its partitions.
pub async fn queue<Q: Queue, C: Consumer>(make: impl AsyncFn() -> (Arc<Q>, Vec<C>)) {
    a_log_keeps_its_order(make().await).await;
    a_partition_waits_for_its_commit(make().await).await;
    a_record_tells_its_trace_and_when_it_came(make().await).await;
    what_is_set_aside_holds_up_nobody(make().await).await;
}

/// What a queue in memory promises besides: a partition holds at most `records_max` records, and `close` lets the consumers
/// run dry.
pub async fn queue_in_memory<Q: Queue, C: Consumer>(
    make: impl Fn() -> (Arc<Q>, Vec<C>),
    records_max: usize,
    close: impl Fn(&Q),
) {
    a_full_partition_leaves_its_records_and_takes_the_others(make(), records_max).await;
    follow_ups_have_room_when_clients_have_none(make(), records_max).await;
    let (queue, consumers) = make();
    a_closed_queue_is_drained(&*queue, consumers, || close(&queue)).await;
}

/// The consumer of the log's partition, past the word that it has it.
async fn owner<C: Consumer>(queue: &dyn Queue, consumers: Vec<C>, of: &str) -> C {
    let is_alone = consumers.len() == 1;
    for mut consumer in consumers {
        loop {
            match ok(consumer.next(10).await) {
                Some(Consumed::Gained(gained)) if gained == partition(queue, of) => return consumer,
                // A lone consumer gains them all, one after the other.
                Some(Consumed::Gained(_)) if is_alone => {}
                Some(Consumed::Gained(_)) => break,
                other => panic!("not told that the partition is its own, but {other:?}"),
            }
        }
    }
    panic!("no consumer owns the partition of {of}");
}

async fn a_log_keeps_its_order<Q: Queue, C: Consumer>((queue, consumers): (Arc<Q>, Vec<C>)) {
    let mut consumer = owner(&*queue, consumers, "a").await;
    queue.produce(&mut (0..5).map(|n| record("a", n)).collect());
    ok(queue.produce_and_wait(vec![record("a", 5)]).await);
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let batch = next(&mut consumer, 2).await;
        assert!(batch.records.len() <= 2);
        seen.extend(contents(&batch));
        commit(&mut consumer, &batch).await;
    }
    assert_eq!(seen, (0..6).map(|n| ("a".to_owned(), n)).collect::<Vec<_>>());
}

async fn a_full_partition_leaves_its_records_and_takes_the_others<Q: Queue, C: Consumer>(
    (queue, consumers): (Arc<Q>, Vec<C>),
    records_max: usize,
) {
    let mut names = (0..).map(|n| format!("other-{n}"));
    let other = names.find(|name| partition(&*queue, name) != partition(&*queue, "a")).unwrap_or_default();
    let mut records: Vec<_> = (0..records_max + 3).map(|n| record("a", n)).collect();
    records.push(record(&other, 0));
    queue.produce(&mut records);
    let left: Vec<_> = records.iter().map(|record| record.upstream.clone()).collect();
    assert_eq!(left, (records_max..records_max + 3).map(|n| n.to_string()).collect::<Vec<_>>());
    let mut consumer = owner(&*queue, consumers, "a").await;
    let batch = next(&mut consumer, 2).await;
    assert_eq!(batch.records.len(), 2);
    queue.produce(&mut records);
    assert_eq!(records.len(), 1, "what was drained is room again");
    commit(&mut consumer, &batch).await;
    let batch = next(&mut consumer, usize::MAX).await;
    let seen: Vec<_> = contents(&batch).into_iter().map(|(_, number)| number).collect();
    assert_eq!(seen, (2..records_max + 2).collect::<Vec<_>>(), "nothing was lost and nothing overtook");
}

async fn a_partition_waits_for_its_commit<Q: Queue, C: Consumer>((queue, consumers): (Arc<Q>, Vec<C>)) {
    let mut consumer = owner(&*queue, consumers, "a").await;
    ok(queue.produce_and_wait(vec![record("a", 0), record("a", 1)]).await);
    let batch = next(&mut consumer, 1).await;
    assert!(is_pending(consumer.next(10)).await, "the batch before is not committed");
    commit(&mut consumer, &batch).await;
    // A dropped call took nothing.
    assert_eq!(contents(&next(&mut consumer, 10).await), [("a".to_owned(), 1)]);
}

async fn a_record_tells_its_trace_and_when_it_came<Q: Queue, C: Consumer>((queue, consumers): (Arc<Q>, Vec<C>)) {
    let mut consumer = owner(&*queue, consumers, "a").await;
    let before = Instant::now();
    ok(queue.produce_and_wait(vec![record("a", 3)]).await);
    let batch = next(&mut consumer, 10).await;
    assert_eq!(batch.records[0].record.trace, TraceId::from_halves(7, 3));
    // Brokers tell whole milliseconds, by a clock of their own.
    let (since, leeway) = (batch.records[0].since, Duration::from_secs(1));
    assert!(since + leeway >= before && since <= Instant::now(), "{since:?} is not behind {before:?}");
}

async fn what_is_set_aside_holds_up_nobody<Q: Queue, C: Consumer>((queue, consumers): (Arc<Q>, Vec<C>)) {
    let mut consumer = owner(&*queue, consumers, "a").await;
    ok(queue.produce_and_wait(vec![record("a", 0), record("a", 1)]).await);
    let batch = next(&mut consumer, 1).await;
    let letter = |queued: &Queued| DeadLetter {
        partition: batch.partition,
        queued: queued.clone(),
        reason: DeadReason::Undecodable,
    };
    // Twice, as after an answer that was lost.
    for _ in 0..2 {
        ok(queue.set_aside(batch.records.iter().map(letter).collect()).await);
    }
    commit(&mut consumer, &batch).await;
    assert_eq!(contents(&next(&mut consumer, 10).await), [("a".to_owned(), 1)], "it does not come again");
}

async fn follow_ups_have_room_when_clients_have_none<Q: Queue, C: Consumer>(
    (queue, consumers): (Arc<Q>, Vec<C>),
    records_max: usize,
) {
    let mut consumer = owner(&*queue, consumers, "a").await;
    let mut records = (0..records_max + 1).map(|n| record("a", n)).collect();
    queue.produce(&mut records);
    assert_eq!(records.len(), 1);
    ok(queue.produce_and_wait(vec![record("a", records_max)]).await);
    let batch = next(&mut consumer, usize::MAX).await;
    assert_eq!(contents(&batch).last(), Some(&("a".to_owned(), records_max)));
}

async fn a_closed_queue_is_drained<Q: Queue, C: Consumer>(queue: &Q, consumers: Vec<C>, close: impl Fn()) {
    let mut consumer = owner(queue, consumers, "a").await;
    queue.produce(&mut vec![record("a", 0)]);
    close();
    let mut late = vec![record("a", 9)];
    queue.produce(&mut late);
    assert_eq!(late.len(), 1, "a closed queue takes nothing from clients");
    let batch = next(&mut consumer, 10).await;
    assert_eq!(contents(&batch), [("a".to_owned(), 0)]);
    ok(queue.produce_and_wait(vec![record("a", 1)]).await);
    commit(&mut consumer, &batch).await;
    let batch = next(&mut consumer, 10).await;
    assert_eq!(contents(&batch), [("a".to_owned(), 1)], "a follow-up of the drain is drained too");
    commit(&mut consumer, &batch).await;
    assert!(ok(consumer.next(10).await).is_none());
    assert!(queue.produce_and_wait(vec![record("a", 2)]).await.is_err(), "nobody would read it");
}
