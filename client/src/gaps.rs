//! Entries in the order of their seq, each once, without a hole.
//!
//! In: pushed and pulled entries, this device's own acks, heads that sync or an answer told of. Out: `Entry` events, and
//! pulls for what is missing. Always: only the entry behind the cursor is handed over; a lower one is dropped; a higher one
//! waits, at most [`BUFFERED_ENTRIES_MAX`] per conversation (one more is dropped: the pull brings it), while everything
//! from the cursor on is pulled. At most [`PULLS_MAX`] pulls are unanswered.

use crate::backoff::REPEAT;
use crate::event::{Event, Refusal};
use crate::state::ConversationCursor;
use crate::wire::{Asked, Wire};
use im_proto::client::{self, client_frame, entry};
use im_proto::{LogId, Ordinal, Seq, UserId};
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

const BUFFERED_ENTRIES_MAX: usize = 64;
const PULLS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Gaps {
    user: UserId,
    places: HashMap<LogId, Place>,
    /// Conversations to be pulled, each once.
    behind: VecDeque<LogId>,
    /// Conversations whose pull is repeated later, by time.
    later: BTreeSet<(u64, LogId)>,
    pulls_pending: usize,
}

/// Where this device stands in one log.
#[derive(Debug, Default)]
struct Place {
    /// The last entry handed over.
    seq: u64,
    ordinal: u64,
    /// The last entry known to exist.
    head: u64,
    buffered: BTreeMap<u64, client::Entry>,
    /// The other user of a direct conversation, once something named it; until then, and in groups, empty.
    peer: String,
    pull: Pull,
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Pull {
    #[default]
    No,
    /// In `behind`, in `later`, or unanswered.
    Underway,
}

impl Gaps {
    /// The device is `user`'s.
    pub fn new(user: UserId) -> Self {
        Self { user, places: HashMap::new(), behind: VecDeque::new(), later: BTreeSet::new(), pulls_pending: 0 }
    }

    pub fn load(&mut self, log: LogId, cursor: &ConversationCursor) {
        let head = cursor.head_seq.max(cursor.seq);
        self.places.insert(log, Place { seq: cursor.seq, ordinal: cursor.ordinal, head, ..Place::default() });
    }

    pub fn cursors(&self) -> impl Iterator<Item = ConversationCursor> {
        self.places.iter().map(|(log, place)| ConversationCursor {
            conversation_id: log.into(),
            seq: place.seq,
            ordinal: place.ordinal,
            head_seq: place.head,
        })
    }

    /// The store's history was replaced.
    pub fn forget(&mut self) {
        self.places.clear();
        self.behind.clear();
        self.later.clear();
    }

    /// A new connection: unanswered pulls are asked again.
    pub fn restart(&mut self) {
        self.behind.clear();
        self.later.clear();
        self.pulls_pending = 0;
        for (log, place) in &mut self.places {
            place.pull = Pull::No;
            place.failures = 0;
            place.pull_if_behind(log, &mut self.behind);
        }
    }

    /// Everything of the log up to `seq` was told in another form.
    pub fn cover(&mut self, log: LogId, seq: Seq, events: &mut VecDeque<Event>) {
        let place = self.places.entry(log.clone()).or_default();
        place.skip_to(seq.0);
        place.head = place.head.max(seq.0);
        place.drain(&log, events);
    }

    pub fn knows(&self, log: &LogId) -> bool {
        self.places.contains_key(log)
    }

    /// Begins a log behind `seq` instead of at its first entry.
    pub fn begin(&mut self, log: LogId, seq: Seq, ordinal: Ordinal) {
        let place = Place { seq: seq.0, ordinal: ordinal.0, head: seq.0, ..Place::default() };
        self.places.entry(log).or_insert(place);
    }

    pub fn apply(&mut self, log: LogId, entry: client::Entry, events: &mut VecDeque<Event>) {
        let place = match self.places.get_mut(&log) {
            Some(place) => place,
            None => self.places.entry(log.clone()).or_default(),
        };
        place.head = place.head.max(entry.seq);
        place.meet(&self.user, &entry);
        if entry.seq == place.seq + 1 {
            place.hand_over(&log, entry, events);
            place.drain(&log, events);
        } else if entry.seq > place.seq {
            place.buffer(entry);
        }
        place.pull_if_behind(&log, &mut self.behind);
    }

    /// An entry with this seq exists.
    pub fn saw_head(&mut self, log: LogId, head: Seq) {
        let place = self.places.entry(log.clone()).or_default();
        place.head = place.head.max(head.0);
        place.pull_if_behind(&log, &mut self.behind);
    }

    /// The state of a conversation names the other user; of a group, nobody.
    pub fn saw_peer(&mut self, log: &LogId, peer: &str) {
        if let Some(place) = self.places.get_mut(log)
            && place.peer.is_empty()
        {
            peer.clone_into(&mut place.peer);
        }
    }

    /// The other user of a direct conversation, if this device knows.
    pub fn peer_of(&self, log: &LogId) -> Option<String> {
        self.places.get(log).map(|place| place.peer.clone()).filter(|peer| !peer.is_empty())
    }

    pub fn write(&mut self, epoch: u64, wire: &mut Wire, now_ms: u64) {
        while self.pulls_pending < PULLS_MAX {
            let Some(log) = self.behind.pop_front() else { return };
            let Some(place) = self.places.get_mut(&log) else { continue };
            if place.head <= place.seq {
                place.pull = Pull::No;
                continue;
            }
            let pull = client::Pull { conversation_id: (&log).into(), epoch, from_seq: place.seq + 1, limit: 0 };
            if wire.ask(Asked::Pull(log), client_frame::Command::Pull(pull), now_ms).is_ok() {
                self.pulls_pending += 1;
            }
        }
    }

    pub fn pulled(
        &mut self,
        log: LogId,
        pulled: client::Pulled,
        events: &mut VecDeque<Event>,
        now_ms: u64,
        rng: &mut SmallRng,
    ) {
        self.pulls_pending = self.pulls_pending.saturating_sub(1);
        let Some(place) = self.places.get_mut(&log) else { return };
        let before = place.seq;
        // Below the floor nothing is kept for this reader.
        place.skip_to(pulled.floor_seq.saturating_sub(1));
        for entry in pulled.entries {
            place.meet(&self.user, &entry);
            if entry.seq == place.seq + 1 {
                place.hand_over(&log, entry, events);
            }
        }
        place.head = place.head.max(pulled.head_seq).max(place.seq);
        place.drain(&log, events);
        if place.seq == before && place.head > place.seq {
            // The answer does not reach what is known to exist: asking again at once would spin.
            return self.repeat_later(log, 0, now_ms, rng);
        }
        place.pull = Pull::No;
        place.failures = 0;
        place.pull_if_behind(&log, &mut self.behind);
    }

    /// No final answer.
    pub fn pull_failed(&mut self, log: LogId, retry_after_ms: u32, now_ms: u64, rng: &mut SmallRng) {
        self.pulls_pending = self.pulls_pending.saturating_sub(1);
        self.repeat_later(log, retry_after_ms, now_ms, rng);
    }

    /// A final refusal: what lies ahead is given up until something newer shows.
    pub fn pull_refused(&mut self, log: LogId, refusal: Refusal, events: &mut VecDeque<Event>) {
        self.pulls_pending = self.pulls_pending.saturating_sub(1);
        if let Some(place) = self.places.get_mut(&log) {
            place.pull = Pull::No;
            place.head = place.seq;
            place.buffered.clear();
            events.push_back(Event::Unreadable { conversation: log, refusal });
        }
    }

    pub fn release(&mut self, now_ms: u64) {
        while self.later.first().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            let Some((_, log)) = self.later.pop_first() else { return };
            self.behind.push_back(log);
        }
    }

    /// Nothing known to exist is missing.
    pub fn is_caught_up(&self) -> bool {
        self.pulls_pending == 0 && self.behind.is_empty() && self.later.is_empty()
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.later.first().map(|(until_ms, _)| *until_ms)
    }

    fn repeat_later(&mut self, log: LogId, retry_after_ms: u32, now_ms: u64, rng: &mut SmallRng) {
        let Some(place) = self.places.get_mut(&log) else { return };
        let delay_ms = REPEAT.delay_ms(place.failures, retry_after_ms, rng);
        place.failures += 1;
        self.later.insert((now_ms + delay_ms, log));
    }
}

impl Place {
    fn pull_if_behind(&mut self, log: &LogId, behind: &mut VecDeque<LogId>) {
        if self.head > self.seq && self.pull == Pull::No {
            self.pull = Pull::Underway;
            behind.push_back(log.clone());
        }
    }

    /// A message of a direct conversation names both of its users.
    fn meet(&mut self, user: &UserId, entry: &client::Entry) {
        if self.peer.is_empty()
            && let Some(entry::Content::Message(client::Message { to_user_id, .. })) = &entry.content
            && !to_user_id.is_empty()
        {
            let is_own = entry.sender_user_id == user.as_str();
            let peer = if is_own { to_user_id } else { &entry.sender_user_id };
            peer.clone_into(&mut self.peer);
        }
    }

    fn skip_to(&mut self, seq: u64) {
        if seq > self.seq {
            self.seq = seq;
            self.buffered = self.buffered.split_off(&(seq + 1));
        }
    }

    fn buffer(&mut self, entry: client::Entry) {
        if self.buffered.len() < BUFFERED_ENTRIES_MAX {
            self.buffered.entry(entry.seq).or_insert(entry);
        }
    }

    /// Hands over what has become next.
    fn drain(&mut self, log: &LogId, events: &mut VecDeque<Event>) {
        while let Some(first) = self.buffered.first_entry() {
            let seq = *first.key();
            if seq > self.seq + 1 {
                return;
            }
            let entry = first.remove();
            if seq == self.seq + 1 {
                self.hand_over(log, entry, events);
            }
        }
    }

    fn hand_over(&mut self, log: &LogId, entry: client::Entry, events: &mut VecDeque<Event>) {
        self.seq = entry.seq;
        self.ordinal = entry.ordinal;
        self.head = self.head.max(entry.seq);
        events.push_back(match event_of_user_log(&entry) {
            Some(event) => event,
            None => Event::Entry { conversation: log.clone(), entry },
        });
    }
}

/// What only a user's own log holds is told in its own words.
fn event_of_user_log(entry: &client::Entry) -> Option<Event> {
    let Some(entry::Content::ReadMoved(moved)) = &entry.content else { return None };
    let conversation = LogId::parse(&moved.conversation_id).ok()?;
    Some(Event::ReadMoved { conversation, seq: Seq(moved.seq), ordinal: Ordinal(moved.ordinal) })
}
