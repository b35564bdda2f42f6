//! The queue between gateways and workers of one process.
//!
//! In: records by log. Out: batches, one consumer per partition. Always: a partition keeps its order and its bound;
//! nothing waits to produce; not durable, as its port allows: nobody was told that a queued record is stored.

use crate::{
    planted::planted,
    ports::{Batch, Consumed, Consumer, DeadLetter, Offset, Partition, Queue, Queued, Record, Shard, StoreError},
};
use async_trait::async_trait;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long a worker waits to hand on a follow-up record before its batch counts as failed.
const FOLLOW_UP_WAIT_MAX: Duration = Duration::from_secs(10);

pub struct EmbeddedQueue {
    /// One per partition.
    lanes: Vec<Arc<Lane>>,
    /// Records that clients may have waiting in one partition. Follow-ups have as many places of their own above it: a
    /// worker that waits for a place which only workers make would wait for itself.
    records_max: usize,
}

struct Lane {
    state: Mutex<State>,
    /// Something came, or the queue closed.
    filled: Notify,
    /// Something was taken.
    drained: Notify,
}

#[derive(Default)]
struct State {
    /// Each with when it came.
    records: VecDeque<(Instant, Record)>,
    /// Nothing more comes from clients.
    closed: bool,
    /// The consumer has seen the end; nobody would read what came now.
    ended: bool,
    /// The offset of the front.
    offset: u64,
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room; `None` when nobody would read it. A closed lane takes follow-ups until it is drained.
    fn take_follow_up(&self, record: &Record, max: usize) -> Option<bool> {
        let mut state = self.state();
        if state.ended {
            return None;
        }
        let room = state.records.len() < max;
        if room {
            state.records.push_back((Instant::now(), record.clone()));
            self.filled.notify_one();
        }
        Some(room)
    }
}

impl EmbeddedQueue {
    /// A queue of `partitions` (1 to [`Shard::COUNT`]), each with its consumer.
    pub fn new(partitions: u32, records_max: usize) -> (Arc<Self>, Vec<EmbeddedConsumer>) {
        let lane = |_| Arc::new(Lane { state: Mutex::default(), filled: Notify::new(), drained: Notify::new() });
        let lanes: Vec<_> = (0..partitions.clamp(1, Shard::COUNT.into())).map(lane).collect();
        let consumer = |(number, lane): (usize, &Arc<Lane>)| EmbeddedConsumer {
            partition: Partition(number as u32),
            lane: lane.clone(),
            gained: false,
            uncommitted: None,
        };
        let consumers = lanes.iter().enumerate().map(consumer).collect();
        (Arc::new(Self { lanes, records_max }), consumers)
    }

    /// Takes no more from clients. Consumers get what is left, then `None`.
    pub fn close(&self) {
        for lane in &self.lanes {
            lane.state().closed = true;
            lane.filled.notify_one();
        }
    }

    /// Records that no consumer has taken yet.
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.state().records.len()).sum()
    }

    /// The same by partition.
    pub fn lag(&self) -> Vec<(Partition, u64)> {
        let waiting = self.lanes.iter().map(|lane| lane.state().records.len() as u64);
        (0..).map(Partition).zip(waiting).collect()
    }

    fn lane(&self, record: &Record) -> usize {
        Partition::of(Shard::of(&record.log), self.lanes.len() as u32).0 as usize
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    fn produce(&self, records: &mut Vec<Record>) {
        let now = Instant::now();
        let mut filled = [false; Shard::COUNT as usize];
        let mut full = [false; Shard::COUNT as usize];
        records.retain(|record| {
            let number = self.lane(record);
            if full[number] {
                return true;
            }
            let mut state = self.lanes[number].state();
            if state.records.len() < self.records_max && !state.closed {
                state.records.push_back((now, record.clone()));
                filled[number] = true;
                return false;
            }
            full[number] = !planted("queue_drops_when_full");
            full[number]
        });
        for (lane, _) in self.lanes.iter().zip(filled).filter(|(_, filled)| *filled) {
            lane.filled.notify_one();
        }
    }

    async fn produce_and_wait(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let unavailable = |why: &str| StoreError::Unavailable(format!("the queue {why}"));
        let hand_on = async {
            for record in &records {
                let lane = &self.lanes[self.lane(record)];
                loop {
                    let drained = lane.drained.notified();
                    if lane.take_follow_up(record, self.records_max * 2).ok_or_else(|| unavailable("is closed"))? {
                        break;
                    }
                    drained.await;
                }
            }
            Ok(())
        };
        tokio::time::timeout(FOLLOW_UP_WAIT_MAX, hand_on).await.unwrap_or_else(|_| Err(unavailable("stayed full")))
    }

    /// There is no place for them: a queue that forgets everything at its end keeps nothing aside either. Who wrote them is
    /// this very process, so what its worker logs of them is what there is to be found.
    async fn set_aside(&self, _letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        Ok(())
    }

    fn partitions(&self) -> u32 {
        self.lanes.len() as u32
    }
}

/// The consumer of one partition, from its first call to the end of the queue.
pub struct EmbeddedConsumer {
    partition: Partition,
    lane: Arc<Lane>,
    /// The worker was told that the partition is its own.
    gained: bool,
    /// The last offset of the batch that is under way; nothing comes before it is committed.
    uncommitted: Option<u64>,
}

impl EmbeddedConsumer {
    pub fn partition(&self) -> Partition {
        self.partition
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self, records_max: usize) -> Result<Option<Consumed>, StoreError> {
        if !std::mem::replace(&mut self.gained, true) {
            return Ok(Some(Consumed::Gained(self.partition)));
        }
        loop {
            let filled = self.lane.filled.notified();
            // Taken and returned without an await in between: a dropped call has taken nothing.
            {
                let mut state = self.lane.state();
                let count = state.records.len().min(records_max.max(1));
                if count > 0 && self.uncommitted.is_none() {
                    let first = state.offset;
                    state.offset += count as u64;
                    self.uncommitted = Some(state.offset - 1);
                    let taken = (first..).map(Offset).zip(state.records.drain(..count));
                    let records = taken
                        .map(|(offset, (since, record))| Queued {
                            offset,
                            record,
                            since,
                            // What a crash took from the queue does not come again.
                            may_repeat: false,
                            odd_key: None,
                        })
                        .collect();
                    drop(state);
                    self.lane.drained.notify_waiters();
                    return Ok(Some(Consumed::Records(Batch { partition: self.partition, records })));
                }
                if state.closed && count == 0 {
                    state.ended = true;
                    self.lane.drained.notify_waiters();
                    return Ok(None);
                }
            }
            filled.await;
        }
    }

    async fn commit(&mut self, partition: Partition, offset: Offset) -> Result<(), StoreError> {
        // Nothing else is kept: the queue dies with its consumers, so nothing of it comes again.
        self.uncommitted = self.uncommitted.filter(|last| partition != self.partition || *last > offset.0);
        Ok(())
    }
}
