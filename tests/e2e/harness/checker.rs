//! Finds every breach of the contract in a history and what was read back after it.
//!
//! In: the events of all clients, and the store as fresh devices read it. Out: the breaches; none if the contract held.
//! Always: pure, and O(n log n): the seq is in the ack, so no order has to be searched for.
//!
//! The invariants are those of the contract: an acked entry is there (lost), once (doubled), under its seq with its content
//! (changed), without holes, in its sender's order and in real-time order; nothing refused or never sent is there; every
//! device applied each seq once and rising, and all devices end equal, cursors and counts included.

use super::history::{Device, Event, Op, What};
use super::read_back::ReadBack;
use im_proto::client::Entry;
use im_proto::client::entry::Content;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::mem::discriminant;

mod devices;
#[cfg(test)]
mod planted;
mod views;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// Acked, but not at its place with its content.
    Lost(String),
    /// One command under two seqs.
    Doubled(String),
    /// Two readers, or two acks, disagree about one seq.
    Changed(String),
    /// A seq between floor and head that was not answered.
    Hole(String),
    /// Two messages of one device are stored in another order than it sent them.
    SenderOrder(String),
    /// Acked before the other was sent, but behind it.
    RealTimeOrder(String),
    /// Stored although refused, or although nobody sent it.
    Uninvited(String),
    /// A command that never ended.
    Unanswered(String),
    /// A device was shown a seq twice, out of order, or with one missing before it.
    Shown(String),
    /// Devices do not agree in the end, or do not know the head.
    Diverged(String),
    /// A read cursor fell, or an acked one was forgotten.
    Cursor(String),
    /// An ordinal or an unread count is wrong.
    Count(String),
}

/// How many breaches there are of each kind that a record of a run names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    lost: usize,
    doubled: usize,
    holes: usize,
    out_of_order: usize,
    others: usize,
}

impl Tally {
    fn of(breaches: &[Breach]) -> Self {
        let mut tally = Self::default();
        for breach in breaches {
            match breach {
                Breach::Lost(_) => tally.lost += 1,
                Breach::Doubled(_) => tally.doubled += 1,
                Breach::Hole(_) => tally.holes += 1,
                Breach::SenderOrder(_) | Breach::RealTimeOrder(_) => tally.out_of_order += 1,
                _ => tally.others += 1,
            }
        }
        tally
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.lost += more.lost;
        self.doubled += more.doubled;
        self.holes += more.holes;
        self.out_of_order += more.out_of_order;
        self.others += more.others;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, doubled, holes, out_of_order, others } = self;
        write!(f, "{lost} lost, {doubled} doubled, {holes} holes, {out_of_order} out of order, {others} other breaches")
    }
}

/// One command and what became of it.
struct Command<'a> {
    invoked_at: usize,
    device: &'a Device,
    log: &'a str,
    client_id: &'a str,
    what: &'a What,
    acked: Option<Ack>,
    refused: bool,
    /// Not the first command under its id: it has the place of the first, whenever it was sent.
    repeats: bool,
}

impl Command<'_> {
    fn key(&self) -> Key<'_> {
        (self.log, &self.device.user, self.client_id)
    }
}

/// What names an entry for ever: log, sender, client id.
type Key<'a> = (&'a str, &'a str, &'a str);

#[derive(Clone, Copy, PartialEq)]
struct Ack {
    at: usize,
    epoch: u64,
    seq: u64,
    server_time_ms: i64,
}

/// Every entry that anybody saw, by log and seq.
type Union<'a> = BTreeMap<(&'a str, u64), &'a Entry>;

pub fn check(events: &[Event], read_backs: &[ReadBack]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let commands = commands(events, &mut breaches);
    let union = union(events, read_backs, &mut breaches);
    stored_as_acked(&commands, &union, read_backs, &mut breaches);
    stored_once(&union, &mut breaches);
    stored_because_sent(&commands, &union, &mut breaches);
    sender_order(&commands, &union, &mut breaches);
    real_time_order(&commands, &mut breaches);
    views::check(read_backs, &mut breaches);
    devices::check(events, &commands, read_backs, &mut breaches);
    breaches.sort();
    breaches.dedup();
    breaches
}

/// Panics with all breaches, if any; of those of one kind it shows the first.
pub fn assert_contract_held(events: &[Event], read_backs: &[ReadBack]) -> Tally {
    let breaches = check(events, read_backs);
    let tally = Tally::of(&breaches);
    let kinds = breaches.chunk_by(|a, b| discriminant(a) == discriminant(b));
    let shown: Vec<String> = kinds.flat_map(|of| of.iter().take(10)).map(|breach| format!("  {breach:?}")).collect();
    assert!(breaches.is_empty(), "the contract is broken: {tally}\n{}", shown.join("\n"));
    tally
}

fn commands<'a>(events: &'a [Event], breaches: &mut Vec<Breach>) -> BTreeMap<Op, Command<'a>> {
    let mut commands: BTreeMap<Op, Command<'a>> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Invoked { op, device, log, client_id, what } => {
                let repeats = !keys.insert((log, &device.user, client_id));
                let command =
                    Command { invoked_at: at, device, log, client_id, what, acked: None, refused: false, repeats };
                commands.insert(*op, command);
            }
            Event::Stored { op, epoch, seq, server_time_ms } => {
                let Some(command) = commands.get_mut(op) else { continue };
                let ack = Ack { at, epoch: *epoch, seq: *seq, server_time_ms: *server_time_ms };
                let first = *command.acked.get_or_insert(ack);
                if (Ack { at, ..first }) != ack {
                    breaches.push(Breach::Changed(format!("{}: acks {} and {seq}", command.client_id, first.seq)));
                }
            }
            Event::Refused { op } => {
                if let Some(command) = commands.get_mut(op) {
                    command.refused = true;
                }
            }
            Event::ReadMarked { .. } | Event::Applied { .. } => {}
        }
    }
    for command in commands.values() {
        if command.acked.is_none() && !command.refused {
            breaches.push(Breach::Unanswered(format!("{} of {:?}", command.client_id, command.device)));
        }
    }
    commands
}

/// Also finds readers that disagree.
fn union<'a>(events: &'a [Event], read_backs: &'a [ReadBack], breaches: &mut Vec<Breach>) -> Union<'a> {
    let mut union: Union<'a> = BTreeMap::new();
    let applied = events.iter().filter_map(|event| match event {
        Event::Applied { log, entry, .. } => Some((log.as_str(), entry)),
        _ => None,
    });
    let read = read_backs.iter().flat_map(|read| &read.conversations).flat_map(|conversation| {
        conversation.entries.iter().map(|entry| (conversation.state.conversation_id.as_str(), entry))
    });
    for (log, entry) in read.chain(applied) {
        let first = *union.entry((log, entry.seq)).or_insert(entry);
        if first != entry {
            breaches.push(Breach::Changed(format!("{log} {}: {first:?} and {entry:?}", entry.seq)));
        }
    }
    union
}

/// The entry is this command's: its sender's, under its id, with its content.
fn is_of(entry: &Entry, command: &Command<'_>) -> bool {
    let content_is_same = match (command.what, &entry.content) {
        (What::Message(body), Some(Content::Message(message))) => message.body == body.as_slice(),
        (What::Membership, Some(content)) => !matches!(content, Content::Message(_)),
        _ => false,
    };
    content_is_same && entry.sender_user_id == command.device.user && entry.client_id == command.client_id
}

fn stored_as_acked(
    commands: &BTreeMap<Op, Command<'_>>,
    union: &Union<'_>,
    read_backs: &[ReadBack],
    breaches: &mut Vec<Breach>,
) {
    let epoch = read_backs.first().map(|read| read.epoch);
    for command in commands.values().filter(|command| *command.what != What::Cursor) {
        let Some(ack) = command.acked else { continue };
        let there = union.get(&(command.log, ack.seq)).is_some_and(|entry| {
            is_of(entry, command) && entry.server_time_ms == ack.server_time_ms && Some(ack.epoch) == epoch
        });
        if !there {
            breaches.push(Breach::Lost(format!("{} {}: {}", command.log, ack.seq, command.client_id)));
        }
    }
}

fn stored_once(union: &Union<'_>, breaches: &mut Vec<Breach>) {
    let mut places: HashMap<Key<'_>, u64> = HashMap::new();
    for ((log, seq), entry) in union {
        if let Some(first) = places.insert((log, &entry.sender_user_id, &entry.client_id), *seq) {
            breaches.push(Breach::Doubled(format!("{log} {}: at {first} and at {seq}", entry.client_id)));
        }
    }
}

fn stored_because_sent(commands: &BTreeMap<Op, Command<'_>>, union: &Union<'_>, breaches: &mut Vec<Breach>) {
    let mut sent: HashMap<Key<'_>, Vec<&Command<'_>>> = HashMap::new();
    for command in commands.values() {
        sent.entry(command.key()).or_default().push(command);
    }
    for ((log, seq), entry) in union {
        let key = (*log, entry.sender_user_id.as_str(), entry.client_id.as_str());
        let wanted =
            sent.get(&key).is_some_and(|of| of.iter().any(|command| is_of(entry, command) && !command.refused));
        if !wanted {
            breaches.push(Breach::Uninvited(format!("{log} {seq}: {} of {}", entry.client_id, entry.sender_user_id)));
        }
    }
}

/// The stored messages of one device in one conversation lie in the order it sent them.
fn sender_order(commands: &BTreeMap<Op, Command<'_>>, union: &Union<'_>, breaches: &mut Vec<Breach>) {
    let places: HashMap<Key<'_>, u64> = union
        .iter()
        .map(|((log, seq), entry)| ((*log, entry.sender_user_id.as_str(), entry.client_id.as_str()), *seq))
        .collect();
    let mut last: HashMap<(&Device, &str), u64> = HashMap::new();
    for command in commands.values().filter(|c| matches!(c.what, What::Message(_)) && !c.repeats) {
        let Some(&seq) = places.get(&command.key()) else { continue };
        let before = last.entry((command.device, command.log)).or_default();
        if seq < *before {
            let text = format!("{} {}: {seq} behind {before} of {:?}", command.log, command.client_id, command.device);
            breaches.push(Breach::SenderOrder(text));
        }
        *before = seq.max(*before);
    }
}

/// Walks invocations by time; every ack that came before one must have a lower seq than it gets.
fn real_time_order(commands: &BTreeMap<Op, Command<'_>>, breaches: &mut Vec<Breach>) {
    let mut by_log: BTreeMap<&str, Vec<(&Command<'_>, Ack)>> = BTreeMap::new();
    for command in commands.values().filter(|c| *c.what != What::Cursor && !c.repeats) {
        if let Some(ack) = command.acked {
            by_log.entry(command.log).or_default().push((command, ack));
        }
    }
    for (log, commands) in by_log {
        let mut by_ack: Vec<Ack> = commands.iter().map(|(_, ack)| *ack).collect();
        by_ack.sort_by_key(|ack| ack.at);
        let mut acked = by_ack.into_iter().peekable();
        let mut highest = 0;
        for (command, ack) in commands {
            while let Some(before) = acked.next_if(|before| before.at < command.invoked_at) {
                highest = highest.max(before.seq);
            }
            if ack.seq < highest {
                breaches
                    .push(Breach::RealTimeOrder(format!("{log} {}: {} behind {highest}", command.client_id, ack.seq)));
            }
        }
    }
}
