//! What lies between the thread that polls Kafka and the worker that decides.
//!
//! In: messages and assignments, from the one side; batches asked for and commits, from the other. Out: what happens next.
//! Always: pure; a partition that was lost leaves nothing behind; a partition has at most one
//! batch under way; what waits of a partition is bounded, and a full one is told to pause.

use crate::planted::planted;
use crate::ports::{Batch, Consumed, Offset, Partition, Queued, Record};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Records of one partition that wait for the worker, and their bytes. At either bound the partition is paused, at half of
/// both resumed.
pub const WAITING_MAX: usize = 4_096;
/// Frames may have 192 KiB, and a store that is away keeps them all waiting.
pub const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub struct Inbound {
    /// Gained and lost, in the order in which it happened. What was gained and lost again before the worker heard of it is in
    /// here no more: a worker that is busy with another partition would claim it long after its next owner did.
    assignments: VecDeque<Consumed>,
    partitions: BTreeMap<Partition, Waiting>,
    /// Where the next look for records begins, so that a busy partition starves no other.
    next: u32,
    pub is_closed: bool,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<Queued>,
    /// Of their commands.
    bytes: usize,
    /// The last offset of the batch under way.
    under_way: Option<Offset>,
    /// Behind everything that was handed on, if Kafka has not been told yet.
    commit: Option<Offset>,
    is_paused: bool,
    /// The end was reached, and nothing came since: what comes next is fresh.
    is_at_end: bool,
    /// When we last knew that everything in the partition was here.
    caught_up_at: Option<Instant>,
    /// Behind what waited when it was gained, if Kafka could tell.
    end_when_gained: Option<Offset>,
}

/// A message as it came.
pub struct Arrival {
    pub offset: Offset,
    pub record: Record,
    pub odd_key: Option<Bytes>,
    /// Between its timestamp and our wall clock; two clocks, which may differ.
    pub age_by_clocks: Option<Duration>,
    /// Nothing lay behind it in its partition when it was fetched. Need not be told of one that is fresh by the clocks.
    pub is_last: bool,
}

impl Inbound {
    /// `end` lies behind everything that any other consumer may have met before.
    pub fn gained(&mut self, partition: Partition, end: Option<Offset>) {
        self.partitions.insert(partition, Waiting { end_when_gained: end, ..Waiting::default() });
        self.assignments.push_back(Consumed::Gained(partition));
    }

    pub fn lose_all(&mut self) {
        let owned: Vec<Partition> = self.partitions.keys().copied().collect();
        owned.into_iter().for_each(|partition| self.lost(partition));
    }

    pub fn lost(&mut self, partition: Partition) {
        if self.partitions.remove(&partition).is_none() {
            return;
        }
        let is_gain = |told: &Consumed| matches!(told, Consumed::Gained(gained) if *gained == partition);
        match self.assignments.iter().rposition(is_gain) {
            Some(untold) => drop(self.assignments.remove(untold)),
            None => self.assignments.push_back(Consumed::Lost(partition)),
        }
    }

    /// True: it is full and must be paused.
    pub fn arrived(&mut self, partition: Partition, arrival: Arrival, now: Instant) -> bool {
        // Of a partition that was just lost nothing is wanted.
        let Some(waiting) = self.partitions.get_mut(&partition) else { return false };
        let Arrival { offset, record, odd_key, age_by_clocks, is_last } = arrival;
        let since = waiting.since(now, age_by_clocks);
        let may_repeat = waiting.caught_up_at.is_none() && waiting.end_when_gained.is_none_or(|end| offset < end);
        if is_last && !planted("steady_flow_has_no_end") {
            waiting.caught_up_at = Some(now);
        }
        waiting.bytes += record.upstream.len();
        waiting.records.push_back(Queued { offset, record, since, may_repeat, odd_key });
        let is_full = waiting.is_above(WAITING_MAX - 1, WAITING_BYTES_MAX - 1) && !waiting.is_paused;
        waiting.is_paused |= is_full;
        is_full
    }

    pub fn owns(&self, partition: Partition) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Those that are paused.
    pub fn full(&self) -> Vec<Partition> {
        let full = self.partitions.iter().filter(|(_, waiting)| waiting.is_paused);
        full.map(|(partition, _)| *partition).collect()
    }

    /// Kafka has nothing more of it for now.
    pub fn at_end(&mut self, partition: Partition) {
        if let Some(waiting) = self.partitions.get_mut(&partition) {
            waiting.is_at_end = true;
        }
    }

    /// Paused partitions that have room again.
    pub fn take_resumed(&mut self) -> Vec<Partition> {
        let has_room = |of: &Waiting| of.is_paused && !of.is_above(WAITING_MAX / 2, WAITING_BYTES_MAX / 2);
        let resumed = self.partitions.iter_mut().filter(|(_, waiting)| has_room(waiting));
        resumed
            .map(|(partition, waiting)| {
                waiting.is_paused = false;
                *partition
            })
            .collect()
    }

    /// What the worker is given next, if there is anything.
    pub fn next(&mut self, records_max: usize) -> Option<Consumed> {
        if let Some(assignment) = self.assignments.pop_front() {
            return Some(assignment);
        }
        let is_ready = |waiting: &Waiting| waiting.under_way.is_none() && !waiting.records.is_empty();
        let behind = self.partitions.range(Partition(self.next)..).chain(self.partitions.range(..Partition(self.next)));
        let partition = behind.filter(|(_, waiting)| is_ready(waiting)).map(|(partition, _)| *partition).next()?;
        self.next = partition.0 + 1;
        let waiting = self.partitions.get_mut(&partition)?;
        let count = waiting.records.len().min(records_max.max(1));
        let records: Vec<_> = waiting.records.drain(..count).collect();
        waiting.bytes -= records.iter().map(|queued| queued.record.upstream.len()).sum::<usize>();
        waiting.under_way = records.last().map(|last: &Queued| last.offset);
        Some(Consumed::Records(Batch { partition, records }))
    }

    /// Everything up to `offset` is handed on. Nothing for a partition that is not ours any more.
    pub fn commit(&mut self, partition: Partition, offset: Offset) {
        if let Some(waiting) = self.partitions.get_mut(&partition) {
            waiting.under_way = waiting.under_way.filter(|last| *last > offset);
            waiting.commit = waiting.commit.max(Some(offset));
        }
    }

    /// What Kafka has yet to be told, of one partition or of all: the last offset that is done.
    pub fn take_commits(&mut self, of: Option<Partition>) -> Vec<(Partition, Offset)> {
        let wanted = self.partitions.iter_mut().filter(|(partition, _)| of.is_none_or(|of| of == **partition));
        wanted.filter_map(|(partition, waiting)| Some((*partition, waiting.commit.take()?))).collect()
    }
}

impl Waiting {
    fn is_above(&self, records: usize, bytes: usize) -> bool {
        self.records.len() > records || self.bytes > bytes
    }

    /// When Kafka took the record. It is never earlier than the moment when we had everything, so while the worker keeps up, no
    /// clock but our own matters; only in a backlog do timestamps count, and what they can do wrong ends with it.
    fn since(&mut self, now: Instant, age_by_clocks: Option<Duration>) -> Instant {
        if std::mem::take(&mut self.is_at_end) {
            self.caught_up_at = Some(now);
        }
        let by_clocks = age_by_clocks.and_then(|age| now.checked_sub(age));
        by_clocks.max(self.caught_up_at).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::LogId;

    fn record(number: u64) -> Record {
        Record { log: LogId::parse("x").unwrap(), upstream: number.to_string().into(), trace: None }
    }

    fn arrival(number: u64) -> Arrival {
        Arrival { offset: Offset(number), record: record(number), odd_key: None, age_by_clocks: None, is_last: false }
    }

    fn arrived(inbound: &mut Inbound, partition: u32, number: u64) -> bool {
        inbound.arrived(Partition(partition), arrival(number), Instant::now())
    }

    fn offsets(consumed: Option<Consumed>) -> (u32, Vec<u64>) {
        let Some(Consumed::Records(batch)) = consumed else { panic!("{consumed:?} is no batch") };
        (batch.partition.0, batch.records.iter().map(|queued| queued.offset.0).collect())
    }

    fn with_partitions(numbers: &[u32]) -> Inbound {
        let mut inbound = Inbound::default();
        for number in numbers {
            inbound.gained(Partition(*number), None);
            assert!(matches!(inbound.next(1), Some(Consumed::Gained(Partition(known))) if known == *number));
        }
        inbound
    }

    #[test]
    fn a_partition_has_one_batch_under_way_and_others_go_on() {
        let mut inbound = with_partitions(&[0, 1]);
        for (partition, offset) in [(0, 5), (0, 6), (1, 9)] {
            arrived(&mut inbound, partition, offset);
        }
        assert_eq!(offsets(inbound.next(1)), (0, vec![5]));
        assert_eq!(offsets(inbound.next(1)), (1, vec![9]));
        assert!(inbound.next(1).is_none(), "both wait for their commits");
        inbound.commit(Partition(0), Offset(5));
        assert_eq!(offsets(inbound.next(1)), (0, vec![6]));
        inbound.commit(Partition(0), Offset(6));
        inbound.commit(Partition(1), Offset(9));
        assert_eq!(inbound.take_commits(None), [(Partition(0), Offset(6)), (Partition(1), Offset(9))]);
        assert_eq!(inbound.take_commits(None), []);
    }

    /// A busy partition may never be at its end; what was put in after the gain is new all the same.
    #[test]
    fn only_what_waited_when_a_partition_was_gained_may_have_come_before() {
        let may_repeat = |inbound: &mut Inbound, number| {
            arrived(inbound, 0, number);
            let Some(Consumed::Records(batch)) = inbound.next(9) else { panic!("nothing arrived") };
            inbound.commit(Partition(0), Offset(number));
            batch.records[0].may_repeat
        };
        let mut inbound = Inbound::default();
        inbound.gained(Partition(0), Some(Offset(7)));
        inbound.next(1);
        assert_eq!([5, 6, 7, 8].map(|number| may_repeat(&mut inbound, number)), [true, true, false, false]);
        // Kafka did not say: only its end tells.
        inbound.gained(Partition(0), None);
        inbound.next(1);
        assert!(may_repeat(&mut inbound, 9));
        inbound.at_end(Partition(0));
        assert!(!may_repeat(&mut inbound, 10));
        // A topic that was made anew counts from 0 again.
        assert!(!may_repeat(&mut inbound, 0));
    }

    #[test]
    fn a_lost_partition_leaves_nothing_behind() {
        let mut inbound = with_partitions(&[0]);
        arrived(&mut inbound, 0, 1);
        inbound.lost(Partition(0));
        inbound.lost(Partition(0));
        inbound.commit(Partition(0), Offset(1));
        assert!(!arrived(&mut inbound, 0, 2));
        assert!(matches!(inbound.next(9), Some(Consumed::Lost(Partition(0)))));
        assert!(inbound.next(9).is_none());
        assert_eq!(inbound.take_commits(None), []);
        // Gained again, it begins anew.
        inbound.gained(Partition(0), None);
        arrived(&mut inbound, 0, 1);
        assert!(matches!(inbound.next(9), Some(Consumed::Gained(_))));
        assert_eq!(offsets(inbound.next(9)), (0, vec![1]));
    }

    #[test]
    fn what_is_lost_before_the_worker_heard_of_it_is_never_claimed() {
        let mut inbound = with_partitions(&[0]);
        inbound.lost(Partition(0));
        for partition in [0, 1, 0, 2] {
            inbound.gained(Partition(partition), None);
            arrived(&mut inbound, partition, 1);
            inbound.lost(Partition(partition));
        }
        inbound.gained(Partition(3), None);
        assert!(matches!(inbound.next(9), Some(Consumed::Lost(Partition(0)))), "this one it had");
        assert!(matches!(inbound.next(9), Some(Consumed::Gained(Partition(3)))));
        assert!(inbound.next(9).is_none());
    }

    #[test]
    fn a_full_partition_pauses_once_and_resumes_at_half() {
        let mut inbound = with_partitions(&[0]);
        let pauses = (0..WAITING_MAX as u64 + 5).filter(|n| arrived(&mut inbound, 0, *n));
        assert_eq!(pauses.count(), 1);
        assert_eq!(inbound.take_resumed(), []);
        let (_, taken) = offsets(inbound.next(WAITING_MAX / 2 + 5));
        assert_eq!(taken.len(), WAITING_MAX / 2 + 5);
        assert_eq!(inbound.take_resumed(), [Partition(0)]);
        assert_eq!(inbound.take_resumed(), []);
    }

    #[test]
    fn a_partition_is_full_by_its_bytes_too() {
        const RECORDS: u64 = 8;
        let mut inbound = with_partitions(&[0, 1]);
        let arrived = |inbound: &mut Inbound, number| {
            let upstream = vec![0; WAITING_BYTES_MAX / RECORDS as usize].into();
            let record = Record { upstream, ..record(number) };
            inbound.arrived(Partition(0), Arrival { record, ..arrival(number) }, Instant::now())
        };
        assert!((1..RECORDS).all(|number| !arrived(&mut inbound, number)));
        assert!(arrived(&mut inbound, RECORDS));
        assert!(!arrived(&mut inbound, RECORDS + 1), "it is paused already");
        let taken = |inbound: &mut Inbound, count| {
            let (_, taken) = offsets(inbound.next(count));
            inbound.commit(Partition(0), Offset(*taken.last().unwrap()));
        };
        taken(&mut inbound, 4);
        assert_eq!(inbound.take_resumed(), [], "more than half is here");
        taken(&mut inbound, 1);
        assert_eq!(inbound.take_resumed(), [Partition(0)]);
        assert!(!inbound.arrived(Partition(1), arrival(1), Instant::now()), "the others have room of their own");
    }

    /// F27: the clocks of broker and worker are ten minutes apart.
    #[test]
    fn a_record_is_never_older_than_the_moment_when_we_had_everything() {
        const SKEW: Duration = Duration::from_secs(600);
        let mut inbound = with_partitions(&[0]);
        let start = Instant::now() + SKEW * 2;
        let since = |inbound: &mut Inbound, at: Instant, age_by_clocks| {
            inbound.arrived(Partition(0), Arrival { age_by_clocks, ..arrival(1) }, at);
            let Some(Consumed::Records(batch)) = inbound.next(9) else { panic!("nothing arrived") };
            inbound.commit(Partition(0), Offset(1));
            batch.records[0].since
        };
        // A backlog that was there before us: the clocks are all we have.
        assert_eq!(since(&mut inbound, start, Some(SKEW)), start - SKEW);
        assert_eq!(since(&mut inbound, start, None), start);
        // We stood at the end, so what comes now is fresh, and what comes behind it is no older.
        inbound.at_end(Partition(0));
        let (later, last) = (start + SKEW / 2, start + SKEW / 2 + Duration::from_secs(3));
        assert_eq!(since(&mut inbound, later, Some(SKEW)), later);
        assert_eq!(since(&mut inbound, last, Some(SKEW)), later);
        // The clocks say less: they may be right.
        assert_eq!(since(&mut inbound, last, Some(Duration::from_secs(1))), last - Duration::from_secs(1));
        // Records come without a pause, so that Kafka never says that there are no more.
        let second = Duration::from_secs(1);
        for at in (0..60).map(|n| last + second * n) {
            inbound.arrived(Partition(0), Arrival { is_last: true, ..arrival(1) }, at);
            inbound.next(9);
            inbound.commit(Partition(0), Offset(1));
            assert_eq!(
                since(&mut inbound, at + second / 2, Some(SKEW)),
                at,
                "no older than the one behind which there was none"
            );
        }
        // Gained again: others may have left a backlog.
        inbound.lost(Partition(0));
        inbound.gained(Partition(0), None);
        inbound.next(1);
        inbound.next(1);
        assert_eq!(since(&mut inbound, last, Some(SKEW)), last - SKEW);
    }
}
