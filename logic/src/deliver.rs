//! Step 8: what is stored becomes visible, then everybody is told.
//!
//! In: stored entries and answers of one batch. Out: directory rows, inbox rows, and deliveries to gateways. Always: in
//! this order, each in one call for the whole batch, or a few for a batch with many receivers; all of it may be repeated; a
//! delivery may be lost without harm, since the inbox version moved before it. A frame is encoded once for all who get it.

mod large;
mod outbox;
mod plan;

use crate::admit::Origin;
use crate::catch_up::spare_damaged;
use crate::frame;
use crate::log_state::Lane;
use crate::metrics::add;
use crate::persist::{Outcome, Stored};
use crate::planted::planted;
use crate::prefetch::load::members;
use crate::prefetch::{LOADS_AT_ONCE_MAX, READS_PATIENCE};
use crate::traced;
use crate::worker::{Shared, Stopped, Told, Worker};
use futures_util::{StreamExt as _, stream};
use im_proto::client::{self, server_frame::Body};
use im_proto::{LogId, Seq, TraceId, UserId};
use im_storage::ports::{Login, MembershipChange, Moved, ReadCursor, StoreError};
use outbox::{Outbox, inbox_move};
use plan::{Audience, Plan, Run, RunKind};
pub(crate) use plan::{others, own_log_move, read_move, receipts_members_max, touch};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Inbox rows moved, and routes looked up, at once. A batch of large conversations takes several turns, so that neither
/// memory nor other tasks' waiting grows with members times logs.
const MOVES_AT_ONCE_MAX: usize = 16_384;

/// A sender is answered within 10 s, whatever the inbox does.
const INBOX_PATIENCE: Duration = Duration::from_secs(3);
/// For who is connected where, once for the members of a part and once for its large conversations' gateways.
const ROUTES_PATIENCE: Duration = Duration::from_secs(1);
/// After a directory did not say in time who gets receipts.
const RECEIPTS_PAUSE: Duration = Duration::from_secs(2);

/// Connections addressed before a gateway is handed what it has so far.
const TARGETS_AT_ONCE_MAX: usize = 65_536;

/// What was learned on the way, by the number of the move.
struct Moves {
    moved: Vec<Moved>,
    logins: Vec<Vec<Login>>,
}

impl Worker {
    pub(crate) async fn deliver(&mut self, lanes: &[Lane], outcome: Outcome) -> Result<(), Stopped> {
        let Outcome { mut stored, told, .. } = outcome;
        // A large conversation lets the small ones go first. Stable: within a log the entries keep their order.
        let members_of = |lane: usize| lanes[lane].state.stored.members.present.len();
        stored.sort_by_key(|entry| (members_of(entry.lane), entry.lane));
        self.apply(&stored).await?;
        self.note_reads(lanes, &stored);
        for part in plan::parts(&stored, self.shared.config.large_members_min, MOVES_AT_ONCE_MAX) {
            self.deliver_part(lanes, part).await;
        }
        // Last: the answer to a resend may rest on an entry of this very batch, whose sender may sync at once.
        traced::answered(&told);
        self.answer_all(told);
        Ok(())
    }

    async fn deliver_part(&mut self, lanes: &[Lane], stored: &[Stored]) {
        let receipts = self.receipt_readers(stored).await;
        let plan = plan::plan(lanes, stored, receipts, self.shared.config.large_members_min);
        let Some(moves) = self.bump(&plan).await else { return self.answer_alone(lanes, stored) };
        let gateways = if plan.has_large() { self.gateways().await } else { Vec::new() };
        let mut outbox = Outbox::default();
        for run in &plan.runs {
            let entries = &stored[run.entries.clone()];
            match &run.kind {
                RunKind::Conversation { recipients } => {
                    self.tell_members(run, entries, recipients, &moves, &mut outbox)
                }
                RunKind::Large { movers } => self.tell_gateways(run, entries, movers, &moves, &gateways, &mut outbox),
                RunKind::User { receipts } => self.tell_reader(run, entries, receipts, &moves, &mut outbox),
            }
        }
        self.hand_on(outbox);
        traced::delivered(stored, lanes);
    }

    /// The senders hear that their entries are stored. The inboxes lack them until they are repeated from the log.
    fn answer_alone(&mut self, lanes: &[Lane], stored: &[Stored]) {
        self.inbox_behind = !planted("missed_moves_forgotten");
        let answers = stored.iter().filter_map(|entry| entry.answer.clone());
        self.answer_all(answers.map(|(origin, body)| Told { origin, body }).collect());
        traced::delivered(stored, lanes);
    }

    /// Answers that rest on nothing that this worker still has to do.
    pub(crate) fn answer_all(&self, told: Vec<Told>) {
        let mut outbox = Outbox::default();
        let silenced = |told: &Told| planted("refusals_are_silent") && matches!(told.body, Body::Error(_));
        told.into_iter().filter(|told| !silenced(told)).for_each(|told| outbox.answer(told, None));
        self.hand_on(outbox);
    }

    fn hand_on(&self, outbox: Outbox) {
        add(&self.shared.metrics.answers, outbox.answers);
        add(&self.shared.metrics.push_targets, outbox.push_targets);
        add(&self.shared.metrics.large_pushes, outbox.large_pushes);
        for (gateway, deliveries) in outbox.into_gateways() {
            self.shared.ports.delivery.deliver(gateway, deliveries);
        }
    }

    async fn apply(&self, stored: &[Stored]) -> Result<(), Stopped> {
        let changes: Vec<MembershipChange> = stored.iter().filter_map(|entry| entry.change.clone()).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let mut patience = self.patience("apply membership");
        while let Err(error) = apply_changes(&self.shared, &changes).await {
            patience.wait(&error).await?;
        }
        Ok(())
    }

    /// For the directory, with its next cover: own sends, and cursors that were moved.
    fn note_reads(&mut self, lanes: &[Lane], stored: &[Stored]) {
        for entry in stored {
            let (log, read) = match &entry.read_moved {
                Some((conversation, cursor)) => (conversation.clone(), *cursor),
                None => {
                    let read = ReadCursor { seq: entry.position.head, ordinal: entry.position.ordinal };
                    (lanes[entry.lane].log.clone(), read)
                }
            };
            self.reads.add(log, entry.sender.clone(), read);
        }
    }

    /// For each moved read cursor of the batch: the other members, if they are few enough to be told. Those whom the directory
    /// does not name in time are told later: a receipt is worth no message's waiting.
    async fn receipt_readers(&mut self, stored: &[Stored]) -> Vec<Vec<UserId>> {
        let mut readers = vec![Vec::new(); stored.len()];
        let moved = |(at, entry): (usize, &Stored)| Some((at, (entry.read_moved.clone()?.0, entry.sender.clone())));
        let mut unknown: BTreeMap<usize, (LogId, UserId)> = stored.iter().enumerate().filter_map(moved).collect();
        let is_paused = self.receipts_late_until.is_some_and(|until| Instant::now() < until);
        if !is_paused {
            self.look_up_readers(&mut unknown, &mut readers).await;
        }
        if !unknown.is_empty() && !planted("late_receipts_forgotten") {
            // What was not asked says nothing of the directory.
            if !is_paused || planted("receipts_pause_renewed") {
                self.receipts_late_until = Some(Instant::now() + RECEIPTS_PAUSE);
            }
            if !self.late_receipts.add(unknown.into_values().collect()) {
                // They are found again behind the last cover.
                self.inbox_behind = true;
            }
        }
        readers
    }

    /// What is found out leaves `unknown`.
    async fn look_up_readers(&self, unknown: &mut BTreeMap<usize, (LogId, UserId)>, readers: &mut [Vec<UserId>]) {
        let looks = unknown.iter().map(|(at, (conversation, reader))| {
            let (at, shared, conversation, reader) = (*at, self.shared.clone(), conversation.clone(), reader.clone());
            async move { (at, others(&shared, &conversation, &reader).await) }
        });
        let mut found = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOADS_AT_ONCE_MAX);
        let deadline = Instant::now() + READS_PATIENCE;
        loop {
            match timeout_at(deadline, found.next()).await {
                Ok(None) => return,
                Ok(Some((at, Ok(others)))) => {
                    readers[at] = others;
                    unknown.remove(&at);
                }
                Ok(Some((at, Err(StoreError::Damaged(what))))) => {
                    tracing::error!(what, "no receipts: damaged data");
                    unknown.remove(&at);
                }
                Ok(Some((_, Err(error)))) => {
                    add(&self.shared.metrics.store_errors, 1);
                    tracing::warn!(%error, "who gets a receipt cannot be looked up; it is told later");
                }
                Err(_) => {
                    add(&self.shared.metrics.store_errors, 1);
                    tracing::warn!(receipts = unknown.len(), "the directory is slow; receipts are told later");
                    return;
                }
            }
        }
    }

    /// `None`: the inbox is away. What is stored is acked all the same; nobody is pushed to, since the routes lie where the
    /// inbox does, and the moves are repeated when it is back.
    async fn bump(&self, plan: &Plan<'_>) -> Option<Moves> {
        if plan.runs.is_empty() {
            return Some(Moves { moved: Vec::new(), logins: Vec::new() });
        }
        if self.inbox_behind {
            return None;
        }
        let (moves, users) = plan.moves();
        add(&self.shared.metrics.bumps, 1);
        add(&self.shared.metrics.moves, moves.len());
        let moved = match timeout(INBOX_PATIENCE, self.shared.ports.inbox.bump(moves)).await {
            Ok(Ok(moved)) => moved,
            away => {
                add(&self.shared.metrics.store_errors, 1);
                tracing::warn!(?away, "the inbox is away; messages are stored and acked without it");
                return None;
            }
        };
        Some(Moves { moved, logins: self.logins(&users).await })
    }

    /// Routes are hints: without them the pushes are lost, and the heartbeat repairs that. Acks wait behind them.
    async fn logins(&self, users: &[UserId]) -> Vec<Vec<Login>> {
        match timeout(ROUTES_PATIENCE, self.shared.ports.routes.look_up(users)).await {
            Ok(Ok(logins)) => logins,
            away => {
                add(&self.shared.metrics.store_errors, 1);
                tracing::warn!(?away, "no routes: a batch is not pushed");
                vec![Vec::new(); users.len()]
            }
        }
    }

    /// Every entry of one conversation's run, to its members. A user's inbox moved once for the run; the move rides on the
    /// last of its entries that the user gets: an earlier one that is lost shows as a gap before it.
    fn tell_members(
        &self,
        run: &Run<'_>,
        entries: &[Stored],
        recipients: &[UserId],
        moves: &Moves,
        outbox: &mut Outbox,
    ) {
        let audience = Audience::new(entries, recipients);
        let inbox_of = |recipient: usize, entry: usize| {
            let of_user = run.moves.start + recipient;
            audience.is_last(recipient, entry).then(|| inbox_move(&moves.moved[of_user..=of_user])).flatten()
        };
        for (at, entry) in entries.iter().enumerate() {
            let origin = entry.answer.as_ref().map(|(origin, _)| *origin);
            for recipient in (0..recipients.len()).filter(|recipient| audience.gets(*recipient, at)) {
                let logins = &moves.logins[run.moves.start + recipient];
                if !logins.is_empty() {
                    outbox.address(logins, origin, inbox_of(recipient, at));
                }
            }
            outbox.push(trace_of(origin), || frame::entry_pushed(run.log, self.epoch, &entry.bytes));
            if let Some((origin, body)) = &entry.answer {
                let sender = recipients.binary_search(&entry.sender).ok();
                let inbox = sender.and_then(|sender| inbox_of(sender, at));
                outbox.answer(Told { origin: *origin, body: body.clone() }, inbox);
            }
            if outbox.push_targets > TARGETS_AT_ONCE_MAX {
                self.hand_on(std::mem::take(outbox));
            }
        }
    }

    /// The entries of one user's own log, to its devices; and each moved cursor, to the other members.
    fn tell_reader(
        &self,
        run: &Run<'_>,
        entries: &[Stored],
        receipts: &[plan::Receipts],
        moves: &Moves,
        outbox: &mut Outbox,
    ) {
        // One move of each conversation's row, then that of the log itself: the user's version went through all of them.
        let own = run.moves.start..run.moves.start + entries.len() + 1;
        let head = own.end - 1;
        for (at, entry) in entries.iter().enumerate() {
            let is_last = at + 1 == entries.len();
            let inbox = if is_last { inbox_move(&moves.moved[own.clone()]) } else { None };
            let origin = entry.answer.as_ref().map(|(origin, _)| *origin);
            outbox.address(&moves.logins[head], origin, inbox);
            outbox.push(trace_of(origin), || frame::entry_pushed(run.log, self.epoch, &entry.bytes));
            if let Some((origin, body)) = &entry.answer {
                outbox.answer(Told { origin: *origin, body: body.clone() }, inbox);
            }
        }
        for (entry, receipts) in entries.iter().zip(receipts) {
            let Some((conversation, cursor)) = &entry.read_moved else {
                continue;
            };
            for of_user in receipts.moves.clone() {
                outbox.address(&moves.logins[of_user], None, inbox_move(&moves.moved[of_user..=of_user]));
            }
            outbox.push(trace_of(entry.answer.as_ref().map(|(origin, _)| *origin)), || {
                let receipt = client::ReceiptMoved {
                    conversation_id: conversation.into(),
                    user_id: (&entry.sender).into(),
                    read_seq: cursor.seq.0,
                };
                frame::of(0, Body::Receipt(receipt))
            });
        }
    }
}

/// A damaged log is passed over, and the others go on: whoever reads of it is told the same.
async fn apply_changes(shared: &Shared, changes: &[MembershipChange]) -> Result<(), StoreError> {
    match apply_whole(shared, changes).await {
        Err(StoreError::Damaged(_)) => {}
        outcome => return outcome,
    }
    for of_log in changes.chunk_by(|one, next| one.log == next.log) {
        spare_damaged(shared, &of_log[0].log, apply_whole(shared, of_log).await)?;
    }
    Ok(())
}

/// What the directory lacks before these, since it lost it, is given to it off the log.
pub(crate) async fn apply_whole(shared: &Shared, changes: &[MembershipChange]) -> Result<(), StoreError> {
    for log in shared.ports.directory.apply(changes.to_vec()).await? {
        let last = changes.iter().rev().find(|change| change.log == log).map_or(Seq(0), |change| change.seq);
        tracing::warn!(%log, seq = last.0, "the directory lacks changes of members; repeating them from the log");
        members(&shared.ports, &log, last).await?;
    }
    Ok(())
}

fn trace_of(origin: Option<Origin>) -> Option<TraceId> {
    origin.and_then(|origin| origin.trace)
}
