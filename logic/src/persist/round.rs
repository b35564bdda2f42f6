//! One attempt at the rest of a batch: every command decided, in order, on the ones before it.
//!
//! In: lanes, commands, and whether to look each one up first. Out: the steps, and the entries to append. Always: touches
//! the store by reading only; lanes' tips and the memory move along, and `undo` takes both back.

use super::look_ahead::LookedUp;
use super::{Outcome, Stored, new_entry, read_moved, written};
use crate::admit::Work;
use crate::decide::{Append, Decision, ReadTarget, Situation, TurnedAway, decide};
use crate::entry;
use crate::log_state::{Lane, Position};
use crate::membership::change_of;
use crate::memory::{CommandKey, Written};
use crate::metrics::add;
use crate::planted::planted;
use crate::refusal::Refusal;
use crate::traced;
use crate::worker::{Told, Worker};
use im_proto::ClientId;
use im_proto::client::{client_frame::Command, server_frame::Body};
use im_storage::ports::{ENTRY_BYTES_MAX, NewEntry, StoreError};
use prost::Message as _;

#[derive(Debug, Default)]
pub(super) struct Round {
    /// One for each command.
    pub steps: Vec<Step>,
    /// One for each `Step::Write`, in order.
    pub entries: Vec<NewEntry>,
    pub turned_away: TurnedAway,
    /// Lanes that were read up to their end in this round: what is refused on that needs no second look.
    read_to_end: Vec<usize>,
    /// Once in a round.
    has_looked_ahead: bool,
    looked_up: LookedUp,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every step is a write")]
pub(super) enum Step {
    Write(Stored),
    Tell(Told),
}

impl Step {
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::Write(entry) => Some(entry.position.head.0),
            Self::Tell(_) => None,
        }
    }

    /// For a planted fault alone: what is said only when the entry is stored.
    pub fn take_answer(&mut self) -> Option<Told> {
        match self {
            Self::Write(entry) => entry.answer.take().map(|(origin, body)| Told { origin, body }),
            Self::Tell(_) => None,
        }
    }
}

/// The next command to be decided.
#[derive(Clone, Copy)]
pub(super) struct Next<'a> {
    pub work: &'a Work,
    /// It, and what comes behind it.
    pub rest: &'a [Work],
    /// Look it up before it is appended.
    pub careful: bool,
    pub now_ms: i64,
}

/// What was asked of the store for one command, so that nothing is asked twice.
#[derive(Default)]
struct Asked {
    itself: bool,
    after: bool,
}

/// It was decided already, as far as its place can tell: if it made no entry, it was refused. A doubt alone is no reason, nor
/// is a place: a topic that was made anew counts from 0 again.
pub(super) fn may_have_come_before(tip: &Position, work: &Work, careful: bool) -> bool {
    let may_repeat = work.queued.may_repeat;
    let is_behind = (careful || may_repeat) && tip.was_decided(work.place);
    let was_moved = may_repeat && tip.was_moved_from(work.place.partition);
    is_behind && !planted("refused_is_forgotten") || was_moved && !planted("old_partition_forgotten")
}

pub(super) fn key(lane: &Lane, work: &Work, client_id: &ClientId) -> CommandKey {
    CommandKey { log: lane.log.clone(), sender: work.sender.clone(), client_id: client_id.clone() }
}

impl Worker {
    pub(super) async fn decide_round(
        &mut self,
        lanes: &mut [Lane],
        work: &[Work],
        careful: bool,
        round: &mut Round,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let (now_ms, is_traced) = ((self.shared.config.wall_clock_ms)(), traced::is_on());
        for (at, one) in work.iter().enumerate() {
            let next = Next { work: one, rest: &work[at..], careful, now_ms };
            match self.decide_one(lanes, next, round, outcome).await {
                Ok(()) => {}
                Err(error @ StoreError::Damaged(_)) => {
                    self.give_up(&mut lanes[one.lane], &error);
                    self.refuse(one, &Refusal::UNAVAILABLE, round);
                }
                Err(error) => return Err(error),
            }
            if is_traced {
                let seq = round.steps.last().and_then(Step::seq).unwrap_or_default();
                traced::decided(one, &lanes[one.lane], seq);
            }
        }
        Ok(())
    }

    async fn decide_one(
        &mut self,
        lanes: &mut [Lane],
        next: Next<'_>,
        round: &mut Round,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let work = next.work;
        let mut asked = Asked::default();
        loop {
            let lane = &mut lanes[work.lane];
            if lane.damaged {
                self.refuse(work, &Refusal::UNAVAILABLE, round);
                return Ok(());
            }
            match self.decide_on(lane, work, next.now_ms, &round.turned_away) {
                Decision::Append(append) => {
                    let came_before = may_have_come_before(&lane.state.tip, work, next.careful);
                    if (next.careful || came_before) && !asked.itself {
                        asked.itself = true;
                        if self.is_stored(lanes, next, &append.client_id, round, outcome).await? {
                            continue;
                        }
                    }
                    if came_before {
                        self.refuse(work, &Refusal::DECIDED_BEFORE, round);
                        return Ok(());
                    }
                    return self.write(&mut lanes[work.lane], work, append, round, outcome);
                }
                Decision::Repeat(body) => {
                    add(&self.shared.metrics.duplicates, 1);
                    round.tell(work, body);
                }
                Decision::Answer(body) => round.tell(work, body),
                Decision::Refuse(refusal) => self.refuse(work, &refusal, round),
                Decision::RefuseUnlessStored { client_id, refusal } => {
                    if !asked.itself {
                        asked.itself = true;
                        // With entries on the tip the append itself tells whether the head was right.
                        let is_known = lane.has_unconfirmed() || round.read_to_end.contains(&work.lane);
                        let moved_on = !is_known && self.catch_lane_up(lane, work.lane, outcome).await? > 0;
                        if !is_known {
                            round.read_to_end.push(work.lane);
                        }
                        if self.is_stored(lanes, next, &client_id, round, outcome).await? || moved_on {
                            continue;
                        }
                    }
                    self.turn_away(&lanes[work.lane], work, client_id, &refusal, round);
                }
                Decision::Await { client_id, after } => {
                    // The round has just turned it away: it is not looked up once more for each command behind it.
                    let is_absent = round.turned_away.contains_key(&key(lane, work, &after));
                    if !asked.after && !is_absent {
                        asked.after = true;
                        if self.is_stored(lanes, next, &after, round, outcome).await? {
                            continue;
                        }
                    }
                    self.turn_away(&lanes[work.lane], work, client_id, &Refusal::OUT_OF_ORDER, round);
                }
            }
            return Ok(());
        }
    }

    pub(super) fn decide_on(&self, lane: &Lane, work: &Work, now_ms: i64, turned_away: &TurnedAway) -> Decision {
        let read = match (&work.command, &work.read) {
            (Command::MarkRead(mark), Some(target)) => {
                let moved = lane.read_cursor(&mark.conversation_id);
                let current = if moved.seq > target.current.seq { moved } else { target.current };
                Some(ReadTarget { current, ..target.clone() })
            }
            _ => None,
        };
        let situation = Situation {
            log: &lane.log,
            at: &lane.state.tip,
            sender: &work.sender,
            epoch: self.epoch,
            now_ms,
            limits: &self.shared.config.limits,
            read: read.as_ref(),
            memory: &self.memory,
            turned_away,
        };
        decide(&work.command, &situation)
    }

    /// Puts the entry on the lane's tip and into the batch.
    fn write(
        &mut self,
        lane: &mut Lane,
        work: &Work,
        append: Append,
        round: &mut Round,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let Append { client_id, content_hash, entry, answer } = append;
        if entry.encoded_len() > ENTRY_BYTES_MAX {
            outcome.too_large(work);
            self.refuse(work, &Refusal::too_large("no store takes an entry of that size"), round);
            return Ok(());
        }
        let change = change_of(&lane.log, &entry, lane.state.tip.members_seq)?;
        let stored = Stored {
            lane: work.lane,
            sender: work.sender.clone(),
            client_id,
            position: lane.state.tip.behind(&entry, change.as_ref(), Some(work.place)),
            bytes: entry.encode_to_vec().into(),
            change,
            read_moved: read_moved(&lane.log, &entry)?,
            answer: Some((work.origin, answer)),
        };
        lane.state.tip = stored.position.clone();
        let seq = stored.position.head;
        if let Some((conversation, cursor)) = &stored.read_moved {
            lane.read_moved(seq, conversation.clone(), *cursor);
        }
        let key = key(lane, work, &stored.client_id);
        let ordinal = stored.position.ordinal;
        let written = Written { seq, ordinal, server_time_ms: entry.server_time_ms, content_hash };
        self.memory.remember_written(key, written);
        round.entries.push(new_entry(&lane.log, &stored, content_hash));
        round.steps.push(Step::Write(stored));
        Ok(())
    }

    fn refuse(&self, work: &Work, refusal: &Refusal, round: &mut Round) {
        round.steps.push(Step::Tell(self.refused(work, refusal)));
    }

    /// Refuses a command that made no entry; those that wait for it learn that without a look at the store.
    fn turn_away(&self, lane: &Lane, work: &Work, client_id: ClientId, refusal: &Refusal, round: &mut Round) {
        round.turned_away.insert(key(lane, work, &client_id), refusal.class());
        self.refuse(work, refusal, round);
    }

    /// Looks a command of the same sender up in the store and remembers it.
    async fn is_stored(
        &mut self,
        lanes: &mut [Lane],
        next: Next<'_>,
        client_id: &ClientId,
        round: &mut Round,
        outcome: &mut Outcome,
    ) -> Result<bool, StoreError> {
        if !std::mem::replace(&mut round.has_looked_ahead, true) {
            round.looked_up = self.look_ahead(lanes, next, round).await?;
        }
        let work = next.work;
        let lane = &mut lanes[work.lane];
        let key = key(lane, work, client_id);
        let found = match round.looked_up.remove(&key) {
            Some(found) => found,
            None => self.shared.ports.log.find(&lane.log, &work.sender, client_id).await?,
        };
        let Some(row) = found else { return Ok(false) };
        let written = written(&entry::read(&lane.log, &row)?);
        // It lies above the known head: another owner wrote it, or an attempt of ours whose result was lost, and nobody
        // may have been told. With entries on the tip, their append will stop and bring us here again.
        if row.seq > lane.state.stored.head && !lane.has_unconfirmed() {
            self.catch_lane_up(lane, work.lane, outcome).await?;
        } else if row.seq == lane.state.stored.head {
            // It may have been stored behind our catching up: no later entry told anybody of it, and no memory of ours says that
            // it was handed on.
            self.hand_on_again(lane, work.lane, &row, outcome).await?;
        }
        // Behind both: had one of them failed, a command that is remembered would not be looked up again.
        self.memory.remember_written(key, written);
        Ok(true)
    }
}

impl Round {
    fn tell(&mut self, work: &Work, body: Body) {
        self.steps.push(Step::Tell(Told { origin: work.origin, body }));
    }
}
