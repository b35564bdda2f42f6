//! The one way into a core from other threads.
//!
//! In: deliveries and the logic's answers, from any thread. Out: the same, in order, on the core. Always: a sender never
//! waits; a lane that is full, by events, targets or bytes, gives back, counts, and has the core hint its connections; pushes,
//! which may be lost, leave room for answers and kicks; however much is sent before the core looks, it is woken once. What a
//! core must not miss (hint, drain, stop) are flags that cannot be dropped.

use crate::large::Record;
use crate::planted::{Bug, planted};
use crate::ports::LogicAnswer;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use im_proto::{TraceId, internal};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Events waiting for one core.
pub const LANE_EVENTS_MAX: usize = 8192;
/// Targets of the pushes among them.
pub const LANE_TARGETS_MAX: usize = 1 << 18;
/// Bytes of the events' frames and lists. Once as many wait, an answer finds no room, and one answer more than this is held;
/// a kick, which holds none, always does.
pub const LANE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Once as many wait, a push finds no room: an answer still does.
pub const LANE_PUSH_BYTES_MAX: usize = LANE_BYTES_MAX / 2;
/// What an id, a seq or an inbox version in a list counts.
const LIST_ITEM_BYTES: usize = 64;

#[derive(Debug)]
pub enum LaneEvent {
    Answer {
        answer: internal::Answer,
        trace: Option<TraceId>,
    },
    Push {
        frame: Bytes,
        targets: Vec<internal::Target>,
        trace: Option<TraceId>,
    },
    /// For all its readers on this core, which knows them.
    Large(Arc<Record>),
    Kick(internal::Kick),
    Logic(LogicAnswer),
}

/// The sender's and the core's end are the same: a handle to the lane of one core.
#[derive(Clone)]
pub struct CoreLane(Arc<Lane>);

struct Lane {
    events: ArrayQueue<LaneEvent>,
    /// What the events hold, as a [`Load`]'s word: both numbers cost a sender one step.
    load: AtomicU64,
    dropped: AtomicU64,
    /// True from the first event until the core has found the lane empty.
    awake: AtomicBool,
    waker: Mutex<Option<Waker>>,
    hint: AtomicBool,
    drain: AtomicBool,
    drain_spread_ms: AtomicU64,
    stop: AtomicBool,
}

/// What a core is told besides events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Hint all connections: deliveries were lost.
    Hint,
    /// Close all connections, spread over this time.
    Drain {
        spread_ms: u64,
    },
    Stop,
}

impl Default for CoreLane {
    fn default() -> Self {
        Self(Arc::new(Lane {
            events: ArrayQueue::new(LANE_EVENTS_MAX),
            load: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            awake: AtomicBool::new(true),
            waker: Mutex::new(None),
            hint: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            drain_spread_ms: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }))
    }
}

impl CoreLane {
    /// The logic's answer to a question of this core. Given back if the core will not see it: a login that stands then
    /// has nobody who would end it.
    pub fn answer(&self, answer: LogicAnswer) -> Option<LogicAnswer> {
        let refused = self.push(LaneEvent::Logic(answer));
        self.wake();
        match refused {
            Some(LaneEvent::Logic(answer)) => Some(answer),
            _ => None,
        }
    }

    /// Queues without waking; [`wake`](Self::wake) follows behind the last of a batch. Gives back what found no room.
    pub(crate) fn push(&self, event: LaneEvent) -> Option<LaneEvent> {
        let load = Load::of(&event);
        let waiting = Load::from_word(self.0.load.fetch_add(load.word(), Ordering::Relaxed));
        let refused = if waiting.has_room(&load, &event) { self.0.events.push(event).err() } else { Some(event) };
        if refused.is_some() {
            self.0.load.fetch_sub(load.word(), Ordering::Relaxed);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            self.0.hint.store(true, Ordering::Release);
        }
        refused
    }

    pub(crate) fn command(&self, command: Command) {
        match command {
            Command::Hint => self.0.hint.store(true, Ordering::Release),
            Command::Drain { spread_ms } => {
                self.0.drain_spread_ms.store(spread_ms, Ordering::Relaxed);
                self.0.drain.store(true, Ordering::Release);
            }
            Command::Stop => self.0.stop.store(true, Ordering::Release),
        }
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if !self.0.awake.swap(true, Ordering::SeqCst)
            && let Some(waker) = self.waker().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Deliveries that found the lane full, so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Events that wait for the core.
    pub(crate) fn depth(&self) -> u64 {
        self.0.events.len() as u64
    }

    /// What those hold.
    pub(crate) fn bytes(&self) -> u64 {
        Load::from_word(self.0.load.load(Ordering::Relaxed)).bytes as u64
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// On the core: the next event.
    pub(crate) fn pop(&self) -> Option<LaneEvent> {
        let event = self.0.events.pop()?;
        self.0.load.fetch_sub(Load::of(&event).word(), Ordering::Relaxed);
        Some(event)
    }

    /// On the core: a command that was given since the last look.
    pub(crate) fn take_command(&self) -> Option<Command> {
        if self.0.hint.swap(false, Ordering::AcqRel) {
            return Some(Command::Hint);
        }
        if self.0.drain.swap(false, Ordering::AcqRel) {
            return Some(Command::Drain { spread_ms: self.0.drain_spread_ms.load(Ordering::Relaxed) });
        }
        self.is_stopped().then_some(Command::Stop)
    }

    /// On the core: ready when there may be something to take.
    pub(crate) fn poll_ready(&self, context: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        drop(waker);
        self.0.awake.store(false, Ordering::SeqCst);
        // A sender that saw `awake` before this store has pushed before this look.
        let is_idle = self.0.events.is_empty()
            && !self.0.hint.load(Ordering::SeqCst)
            && !self.0.drain.load(Ordering::SeqCst)
            && !self.0.stop.load(Ordering::SeqCst);
        if is_idle {
            return Poll::Pending;
        }
        self.0.awake.store(true, Ordering::SeqCst);
        Poll::Ready(())
    }

    /// On the core, before its runtime ends: no waker of it is used or dropped elsewhere after this.
    pub(crate) fn forget_waker(&self) {
        *self.waker() = None;
        self.0.awake.store(true, Ordering::SeqCst);
    }

    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.0.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CoreLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreLane").field("events", &self.0.events.len()).finish_non_exhaustive()
    }
}

/// What events hold besides their places in the lane. In a word the targets lie above the bytes, of which there are never
/// as many as [`BYTES_BITS`](Self::BYTES_BITS) can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    targets: usize,
    bytes: usize,
}

impl Load {
    const BYTES_BITS: u32 = 40;

    fn of(event: &LaneEvent) -> Self {
        let (targets, bytes) = match event {
            LaneEvent::Answer { answer, .. } => (0, answer.frame.len()),
            LaneEvent::Push { frame, targets, .. } => (targets.len(), frame.len()),
            LaneEvent::Large(record) => {
                (0, record.frame.len() + (record.joined.len() + record.left.len()) * LIST_ITEM_BYTES)
            }
            LaneEvent::Kick(_) => (0, 0),
            LaneEvent::Logic(answer) => (0, answer_bytes(answer)),
        };
        Self { targets, bytes }
    }

    const fn word(self) -> u64 {
        (self.targets as u64) << Self::BYTES_BITS | self.bytes as u64
    }

    const fn from_word(word: u64) -> Self {
        let bytes = word & ((1 << Self::BYTES_BITS) - 1);
        Self { targets: (word >> Self::BYTES_BITS) as usize, bytes: bytes as usize }
    }

    /// Where so much waits, whether the event, which is `more`, finds room.
    fn has_room(&self, more: &Self, event: &LaneEvent) -> bool {
        let bytes_max = match event {
            LaneEvent::Push { .. } | LaneEvent::Large(_) => LANE_PUSH_BYTES_MAX,
            // The core asks again; many of them at once would leave no room for acks.
            LaneEvent::Logic(
                LogicAnswer::LargeMembers { .. } | LogicAnswer::LargeHeads { .. } | LogicAnswer::LargeOfUsers { .. },
            ) => LANE_PUSH_BYTES_MAX,
            LaneEvent::Answer { .. } | LaneEvent::Logic(_) => LANE_BYTES_MAX,
            LaneEvent::Kick(_) => usize::MAX,
        };
        // Those of a push that is refused at this moment are counted too: they are no matter of an event without any.
        let fits = more.targets == 0 || self.targets + more.targets <= LANE_TARGETS_MAX;
        fits && (self.bytes < bytes_max || planted(Bug::LaneBytesUnbounded))
    }
}

fn answer_bytes(answer: &LogicAnswer) -> usize {
    let (frame_bytes, items) = match answer {
        LogicAnswer::SignedIn { outcome: Ok(signed_in), .. } => (0, signed_in.large.len()),
        LogicAnswer::SignedIn { outcome: Err(_), .. } => (0, 0),
        LogicAnswer::Read { frame, large, .. } => (frame.len(), large.len()),
        LogicAnswer::Heartbeats { answers } => (0, answers.len()),
        LogicAnswer::LargeMembers { members, .. } => (0, members.as_ref().map_or(0, |known| known.members.len())),
        LogicAnswer::LargeHeads { heads } => (0, heads.len()),
        LogicAnswer::LargeOfUsers { users, .. } => (0, users.iter().map(|(_, large)| 1 + large.len()).sum()),
    };
    frame_bytes + items * LIST_ITEM_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_codec::limits::SERVER_FRAME_BYTES_MAX;
    use im_proto::ConnectionId;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn kick() -> LaneEvent {
        LaneEvent::Kick(internal::Kick::default())
    }

    #[test]
    fn a_batch_wakes_the_core_once() {
        let lane = CoreLane::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let context = Context::from_waker(&waker);
        assert_eq!(lane.poll_ready(&context), Poll::Pending);
        for _ in 0..10 {
            lane.push(kick());
            lane.wake();
        }
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(lane.poll_ready(&context), Poll::Ready(()));
        while lane.pop().is_some() {}
        assert_eq!(lane.poll_ready(&context), Poll::Pending);
        lane.push(kick());
        lane.wake();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_lane_gives_back_counts_and_asks_for_hints() {
        let lane = CoreLane::default();
        for _ in 0..LANE_EVENTS_MAX {
            lane.push(kick());
        }
        assert_eq!((lane.dropped(), lane.take_command()), (0, None));
        assert!(matches!(lane.push(kick()), Some(LaneEvent::Kick(_))));
        assert_eq!((lane.dropped(), lane.take_command()), (1, Some(Command::Hint)));
        let answer = LogicAnswer::LargeHeads { heads: Vec::new() };
        assert!(matches!(lane.answer(answer), Some(LogicAnswer::LargeHeads { .. })));
    }

    fn push(frame: &Bytes) -> LaneEvent {
        LaneEvent::Push { frame: frame.clone(), targets: vec![internal::Target::default()], trace: None }
    }

    fn ack(frame: &Bytes) -> LaneEvent {
        LaneEvent::Answer { answer: internal::Answer { frame: frame.clone(), ..Default::default() }, trace: None }
    }

    fn read(frame: &Bytes) -> LaneEvent {
        let (connection, frame, large) = (ConnectionId(1), frame.clone(), Vec::new());
        LaneEvent::Logic(LogicAnswer::Read { connection, request_id: 2, frame, inbox_version: None, large })
    }

    #[test]
    fn the_bytes_of_what_waits_are_bounded_and_pushes_leave_room_for_answers_and_kicks() {
        let frame = Bytes::from(vec![0; SERVER_FRAME_BYTES_MAX as usize]);
        let lane = CoreLane::default();
        let all_find_room = |event: fn(&Bytes) -> LaneEvent, bytes: usize| {
            (0..bytes / frame.len()).all(|_| lane.push(event(&frame)).is_none())
        };
        assert!(all_find_room(push, LANE_PUSH_BYTES_MAX));
        assert!(matches!(lane.push(push(&frame)), Some(LaneEvent::Push { .. })));
        assert_eq!((lane.dropped(), lane.take_command()), (1, Some(Command::Hint)));
        let heads = LogicAnswer::LargeHeads { heads: Vec::new() };
        assert!(lane.answer(heads).is_some(), "the core asks again");
        assert_eq!((lane.dropped(), lane.take_command()), (2, Some(Command::Hint)));
        assert!(all_find_room(ack, LANE_BYTES_MAX - LANE_PUSH_BYTES_MAX));
        assert!(lane.push(ack(&frame)).is_some() && lane.push(read(&frame)).is_some());
        assert_eq!((lane.dropped(), lane.take_command()), (4, Some(Command::Hint)));
        assert!(lane.push(kick()).is_none(), "it holds no bytes");
        assert_eq!(lane.bytes(), LANE_BYTES_MAX as u64);
        while lane.pop().is_some() {}
        assert_eq!(lane.0.load.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_event_of_any_size_finds_room_in_a_lane_that_is_not_full() {
        let lane = CoreLane::default();
        assert!(lane.push(ack(&Bytes::from(vec![0; LANE_BYTES_MAX - 1]))).is_none());
        assert!(lane.push(read(&Bytes::from(vec![0; LANE_BYTES_MAX]))).is_none());
        assert!(lane.push(ack(&Bytes::from_static(b"x"))).is_some());
    }

    #[test]
    fn a_load_is_its_word_and_back() {
        for load in [Load { targets: 0, bytes: (1 << 40) - 1 }, Load { targets: (1 << 24) - 1, bytes: 0 }] {
            assert_eq!(Load::from_word(load.word()), load);
        }
    }

    #[test]
    fn the_targets_of_pushes_are_bounded_too() {
        let lane = CoreLane::default();
        let targets = |count| vec![internal::Target::default(); count];
        let push = |count| LaneEvent::Push { frame: Bytes::new(), targets: targets(count), trace: None };
        lane.push(push(LANE_TARGETS_MAX));
        lane.push(push(1));
        assert_eq!(lane.dropped(), 1);
        // At the moment when another thread's push is counted and not refused yet.
        let refused = Load { targets: 1, bytes: 0 };
        lane.0.load.fetch_add(refused.word(), Ordering::Relaxed);
        assert!(lane.push(kick()).is_none(), "it has no targets");
        lane.0.load.fetch_sub(refused.word(), Ordering::Relaxed);
        assert!(lane.pop().is_some());
        lane.push(push(1));
        assert_eq!(lane.dropped(), 1);
    }
}
