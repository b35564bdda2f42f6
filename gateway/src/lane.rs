//! The one way into a core from other threads.
//!
//! In: deliveries and the logic's answers, from any thread. Out: the same, in order, on the core. Always: a sender never
//! waits; a full lane gives back, counts, and has the core hint its connections; however much is sent before the core looks,
//! it is woken once. What a core must not miss (hint, drain, stop) are flags that cannot be dropped.

use crate::large::Record;
use crate::ports::LogicAnswer;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use im_proto::{TraceId, internal};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Events waiting for one core.
pub const LANE_EVENTS_MAX: usize = 8192;
/// Targets of the pushes among them.
pub const LANE_TARGETS_MAX: usize = 1 << 18;

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
    targets: AtomicUsize,
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
            targets: AtomicUsize::new(0),
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
        let targets = target_count(&event);
        let has_room = self.0.targets.fetch_add(targets, Ordering::Relaxed) + targets <= LANE_TARGETS_MAX;
        let refused = if has_room { self.0.events.push(event).err() } else { Some(event) };
        if refused.is_some() {
            self.0.targets.fetch_sub(targets, Ordering::Relaxed);
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

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// On the core: the next event.
    pub(crate) fn pop(&self) -> Option<LaneEvent> {
        let event = self.0.events.pop()?;
        self.0.targets.fetch_sub(target_count(&event), Ordering::Relaxed);
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

fn target_count(event: &LaneEvent) -> usize {
    match event {
        LaneEvent::Push { targets, .. } => targets.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn the_targets_of_pushes_are_bounded_too() {
        let lane = CoreLane::default();
        let targets = |count| vec![internal::Target::default(); count];
        let push = |count| LaneEvent::Push { frame: Bytes::new(), targets: targets(count), trace: None };
        lane.push(push(LANE_TARGETS_MAX));
        lane.push(push(1));
        assert_eq!(lane.dropped(), 1);
        assert!(lane.pop().is_some());
        lane.push(push(1));
        assert_eq!(lane.dropped(), 1);
    }
}
