//! Step 7: decide a batch and store it, in one ordered append.
//!
//! In: lanes and their commands. Out: entries that are durable, and answers that rest on nothing unsaved. Always: an entry
//! is handed on only when the store reported it, or a read found it; whatever was decided behind an entry that was not
//! stored is forgotten and decided again; the order of a log's commands stays. A taken key means that this very command
//! was stored before, or that another owner wrote: the store tells which. No error text is read.

mod look_ahead;
mod round;

use crate::admit::{Dead, Origin, Work};
use crate::entry;
use crate::log_state::{Lane, Position};
use crate::membership::change_of;
use crate::memory::{CommandKey, Written};
use crate::metrics::add;
use crate::planted::planted;
use crate::prefetch::load::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, members_seq_before_entry};
use crate::refusal::Refusal;
use crate::traced;
use crate::worker::{Refused, Stopped, Told, Worker};
use bytes::Bytes;
use im_proto::client::{self, entry::Content, server_frame::Body};
use im_proto::{ClientId, LogId, Ordinal, Seq, UserId};
use im_storage::ports::{
    DeadLetter, DeadReason, EntryRow, MembershipChange, NewEntry, Partition, Queued, ReadCursor, Stop, StoreError,
};
use round::{Round, Step};
use std::time::Instant;

/// How often one command may meet a taken key before its sender is told to try again. Each time another owner has written
/// in between; with one owner it happens once.
const TAKEN_MAX: u32 = 8;

/// An entry that the store has.
#[derive(Debug)]
pub(crate) struct Stored {
    pub lane: usize,
    pub sender: UserId,
    pub client_id: ClientId,
    /// The log behind this entry.
    pub position: Position,
    /// The encoded `Entry`.
    pub bytes: Bytes,
    pub change: Option<MembershipChange>,
    /// In a user's own log: the cursor it moved.
    pub read_moved: Option<(LogId, ReadCursor)>,
    /// Who waits for it. `None`: found in the store, written by another owner or by an attempt whose result was lost.
    pub answer: Option<(Origin, Body)>,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub stored: Vec<Stored>,
    pub told: Vec<Told>,
    /// Commands whose entries no store takes. Their senders are told like any that is refused.
    pub too_large: Vec<TooLarge>,
}

#[derive(Debug)]
pub(crate) struct TooLarge {
    queued: Queued,
    origin: Origin,
}

impl TooLarge {
    pub fn dead(self, partition: Partition) -> Dead {
        let Self { queued, origin } = self;
        Dead { letter: DeadLetter { partition, queued, reason: DeadReason::TooLarge }, origin: Some(origin) }
    }
}

impl Worker {
    pub(crate) async fn persist(&mut self, lanes: &mut [Lane], work: &[Work]) -> Result<Outcome, Stopped> {
        let mut outcome = Outcome::default();
        let mut patience = self.patience("store a batch");
        let (mut from, mut taken) = (0, 0);
        // After a first stop every command is looked up before it is appended again: resends come in swarms, and one
        // look-up is cheaper than one more append.
        let mut careful = false;
        while from < work.len() {
            let mut round = Round::default();
            let started = Instant::now();
            let decided = self.decide_round(lanes, &work[from..], careful, &mut round, &mut outcome).await;
            self.shared.metrics.decide_time.note(started.elapsed());
            if let Err(error) = decided {
                self.undo(lanes, round.steps);
                patience.wait(&error).await?;
                continue;
            }
            let (settled, stop) = self.append(lanes, round, &mut outcome).await;
            taken = if settled > 0 { 0 } else { taken };
            from += settled;
            careful = true;
            match stop {
                None => {}
                Some(Stopping { stop: Stop::Unknown(error), lanes: doubtful }) => {
                    patience.wait(&error).await?;
                    self.read_behind(lanes, &doubtful, &mut outcome).await?;
                }
                Some(Stopping { stop: Stop::Taken, lanes: _ }) if taken == TAKEN_MAX => {
                    outcome.told.push(self.refused(&work[from], &Refusal::UNAVAILABLE));
                    from += 1;
                }
                Some(Stopping { stop: Stop::Taken, .. }) => {
                    taken += 1;
                    add(&self.shared.metrics.appends_taken, 1);
                    if !planted("head_kept_on_taken") {
                        self.read_behind(lanes, &[work[from].lane], &mut outcome).await?;
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// Appends what was decided. Answers how many commands are settled, from the front.
    async fn append(
        &mut self,
        lanes: &mut [Lane],
        mut round: Round,
        outcome: &mut Outcome,
    ) -> (usize, Option<Stopping>) {
        let mut entries = round.entries;
        let whole = entries.len();
        if planted("unordered_batch") {
            entries.reverse();
        }
        if planted("ack_before_persist") {
            self.answer_all(round.steps.iter_mut().filter_map(Step::take_answer).collect());
            // Long enough for the answer to leave, as with a slow disk.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let (mut stored, mut stop) = (0, None);
        if whole > 0 {
            add(&self.shared.metrics.appends, 1);
            let started = Instant::now();
            let appended = self.shared.ports.log.append(entries).await;
            self.shared.metrics.append_time.note(started.elapsed());
            add(&self.shared.metrics.append_retries, usize::from(appended.stored < whole));
            (stored, stop) = (appended.stored, appended.stop);
        }
        add(&self.shared.metrics.appended, stored);
        if stored < whole && stop.is_none() {
            stop = Some(Stop::Unknown(StoreError::Unavailable("an append stopped without a reason".into())));
        }
        let (mut steps, is_traced) = (round.steps.into_iter(), traced::is_on());
        let (mut settled, mut confirmed) = (0, 0);
        // What follows the first entry that is not stored was decided on it: it is decided again, refusals too.
        while let Some(step) = steps.as_slice().first() {
            if matches!(step, Step::Write(_)) && confirmed == stored && stop.is_some() {
                break;
            }
            settled += 1;
            match steps.next() {
                Some(Step::Write(entry)) => {
                    confirmed += 1;
                    lanes[entry.lane].state.confirm(&entry.position);
                    if is_traced {
                        traced::persisted(&entry, &lanes[entry.lane]);
                    }
                    outcome.stored.push(entry);
                }
                Some(Step::Tell(told)) => outcome.told.push(told),
                None => {}
            }
        }
        let undone = self.undo(lanes, steps.collect());
        (settled, stop.map(|stop| Stopping { stop, lanes: undone }))
    }

    /// Forgets what was decided and not stored. Answers the lanes that had such entries, each once.
    fn undo(&mut self, lanes: &mut [Lane], steps: Vec<Step>) -> Vec<usize> {
        let mut touched = Vec::new();
        for step in steps {
            match step {
                Step::Write(entry) => {
                    let log = lanes[entry.lane].log.clone();
                    let Stored { lane, sender, client_id, .. } = entry;
                    self.memory.forget_written(&CommandKey { log, sender, client_id });
                    touched.push(lane);
                }
                Step::Tell(_) => {}
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.iter().for_each(|lane| lanes[*lane].fall_back());
        touched
    }

    /// Reads what the store holds behind the known heads, however long the store is away.
    async fn read_behind(&mut self, lanes: &mut [Lane], which: &[usize], outcome: &mut Outcome) -> Result<(), Stopped> {
        let mut patience = self.patience("read behind a head");
        for at in which {
            loop {
                match self.catch_lane_up(&mut lanes[*at], *at, outcome).await {
                    Ok(_) => break,
                    Err(error @ StoreError::Damaged(_)) => {
                        self.give_up(&mut lanes[*at], &error);
                        break;
                    }
                    Err(error) => patience.wait(&error).await?,
                }
            }
        }
        Ok(())
    }

    /// Moves the lane's place over the entries that the store has behind it. What is known stays true, since entries never
    /// change; so head and members behind the new entries are those of a fresh read. They are handed on like our own:
    /// their writer may have died before it did. Answers how many there were.
    async fn catch_lane_up(&mut self, lane: &mut Lane, at: usize, outcome: &mut Outcome) -> Result<usize, StoreError> {
        lane.fall_back();
        let mut found = 0;
        loop {
            let from = lane.state.stored.head.next();
            let rows = self.shared.ports.log.range(&lane.log, from, PAGE_ENTRIES_MAX, PAGE_BYTES_MAX).await?;
            if rows.is_empty() {
                return Ok(found);
            }
            for row in &rows {
                let read = entry::read(&lane.log, row)?;
                if row.seq != lane.state.stored.head.next() {
                    return Err(entry::damaged(&lane.log, row.seq, "a hole before the entry"));
                }
                let change = change_of(&lane.log, &read.entry, lane.state.stored.members_seq)?;
                let position = lane.state.stored.behind(&read.entry, change.as_ref(), read.record);
                let foreign = foreign(&lane.log, at, &read, change, position)?;
                lane.state.confirm(&foreign.position);
                lane.state.tip = lane.state.stored.clone();
                let key = CommandKey {
                    log: lane.log.clone(),
                    sender: foreign.sender.clone(),
                    client_id: foreign.client_id.clone(),
                };
                self.memory.remember_written(key, written(&read));
                outcome.stored.push(foreign);
                found += 1;
                add(&self.shared.metrics.foreign_entries, 1);
            }
        }
    }

    /// The last entry of the lane, once in a batch: whoever has it drops it.
    async fn hand_on_again(
        &self,
        lane: &Lane,
        at: usize,
        row: &EntryRow,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let is_here = outcome.stored.iter().any(|entry| entry.lane == at && entry.position.head == row.seq);
        if !is_here && !planted("found_not_handed_on") {
            let read = entry::read(&lane.log, row)?;
            let change = change_of(&lane.log, &read.entry, self.changed_before(lane).await?)?;
            outcome.stored.push(foreign(&lane.log, at, &read, change, lane.state.stored.clone())?);
        }
        Ok(())
    }

    /// The change of members before the one that the lane's last entry is, if it is one: of a log that was loaded only the last
    /// is known.
    async fn changed_before(&self, lane: &Lane) -> Result<Seq, StoreError> {
        let Position { head, members_seq, members_seq_before, .. } = lane.state.stored;
        if head != members_seq || members_seq_before != Seq(0) || planted("loaded_change_follows_any") {
            return Ok(members_seq_before);
        }
        members_seq_before_entry(&self.shared.ports, &lane.log, head).await
    }

    pub(crate) fn refused(&self, work: &Work, refusal: &Refusal) -> Told {
        let written = Some((work.origin, &work.queued.record.log));
        let of = Refused { user: &work.sender, request_id: work.origin.request_id, written };
        self.shared.refused(refusal, &of);
        Told { origin: work.origin, body: Body::Error(refusal.to_wire()) }
    }
}

impl Outcome {
    /// A command may be decided more than once.
    fn too_large(&mut self, work: &Work) {
        let is_known = self.too_large.iter().any(|known| known.queued.offset == work.queued.offset);
        if !is_known {
            self.too_large.push(TooLarge { queued: work.queued.clone(), origin: work.origin });
        }
    }
}

/// Why an append ended early, and the lanes whose entries are not known to be stored.
struct Stopping {
    stop: Stop,
    lanes: Vec<usize>,
}

fn written(read: &entry::ReadEntry) -> Written {
    Written {
        seq: Seq(read.entry.seq),
        ordinal: Ordinal(read.entry.ordinal),
        server_time_ms: read.entry.server_time_ms,
        content_hash: read.content_hash,
    }
}

/// An entry read from the store, and the place behind it.
fn foreign(
    log: &LogId,
    at: usize,
    read: &entry::ReadEntry,
    change: Option<MembershipChange>,
    position: Position,
) -> Result<Stored, StoreError> {
    let id = |_| entry::damaged(log, position.head, "an id");
    Ok(Stored {
        lane: at,
        sender: UserId::parse(&read.entry.sender_user_id).map_err(id)?,
        client_id: ClientId::parse(&read.entry.client_id).map_err(id)?,
        bytes: read.bytes.clone(),
        change,
        read_moved: read_moved(log, &read.entry)?,
        answer: None,
        position,
    })
}

/// The conversation and cursor of a `ReadMoved`.
pub(crate) fn read_moved(log: &LogId, entry: &client::Entry) -> Result<Option<(LogId, ReadCursor)>, StoreError> {
    let Some(Content::ReadMoved(moved)) = &entry.content else {
        return Ok(None);
    };
    let conversation = LogId::parse(&moved.conversation_id)
        .map_err(|_| entry::damaged(log, Seq(entry.seq), "the id of a conversation"))?;
    Ok(Some((conversation, ReadCursor { seq: Seq(moved.seq), ordinal: Ordinal(moved.ordinal) })))
}

/// What the store is given for an entry.
fn new_entry(log: &LogId, entry: &Stored, content_hash: entry::ContentHash) -> NewEntry {
    let client_id = if planted("dedupe_from_cache_only") {
        // The store's second key never fires: only memory knows what was stored.
        ClientId::parse(&format!("planted-{}", entry.position.head)).unwrap_or_else(|_| entry.client_id.clone())
    } else {
        entry.client_id.clone()
    };
    NewEntry {
        log: log.clone(),
        seq: entry.position.head,
        sender: entry.sender.clone(),
        client_id,
        stored: entry::stored(&entry.bytes, content_hash, &entry.position),
    }
}
