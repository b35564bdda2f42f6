//! Was every message answered once and delivered once to each receiver, in order and unchanged? Pure: no socket, no
//! clock.
//!
//! In: what was sent, each answer, each raw push, each entry that reached a receiver by repair. Out: [`Violations`].
//! Always: a message is judged by the serial in its body and the seq of its entry, which must rise together; the
//! memory held is that of the gaps that are open.

use crate::payload::Payload;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Described one by one up to here; beyond it they are only counted.
const DESCRIBED_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    Unanswered,
    AnsweredTwice,
    Refused,
    Missing,
    PushedTwice,
    /// To the connection that sent it, which has it by its answer.
    PushedBack,
    OutOfOrder,
    /// It came by a pull or sync: its push was lost, though nothing here is slow or killed.
    Repaired,
    WrongSeq,
    WrongContent,
    /// A message was pushed to a connection that is none of its receivers.
    WrongReceiver,
    Disconnected,
}

impl Violation {
    /// What a push may do, for it is a hint; and what a server that is killed does to a connection. All of it is
    /// mended by the log, but a server that is whole and not overloaded has no cause for it.
    pub fn is_mendable(self) -> bool {
        matches!(self, Self::PushedTwice | Self::PushedBack | Self::OutOfOrder | Self::Repaired | Self::Disconnected)
    }
}

/// Everything that was found, counted by kind, the first ones with their place.
#[derive(Debug, Default)]
pub struct Violations {
    counts: BTreeMap<Violation, u64>,
    described: Vec<String>,
}

impl Violations {
    pub fn add(&mut self, violation: Violation, place: impl fmt::Display) {
        *self.counts.entry(violation).or_default() += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(format!("{violation:?}: {place}"));
        }
    }

    pub fn total(&self) -> u64 {
        self.inexcusable(false)
    }

    /// Those that `allow_repairs` does not excuse.
    pub fn inexcusable(&self, allow_repairs: bool) -> u64 {
        let counted = self.counts.iter().filter(|(violation, _)| !(allow_repairs && violation.is_mendable()));
        counted.map(|(_, count)| count).sum()
    }

    #[cfg(test)]
    fn count(&self, violation: Violation) -> u64 {
        self.counts.get(&violation).copied().unwrap_or(0)
    }

    /// Counts by kind, in one line.
    pub fn summary(&self) -> String {
        let counts: Vec<_> = self.counts.iter().map(|(violation, count)| format!("{count} {violation:?}")).collect();
        counts.join(", ")
    }

    pub fn described(&self) -> &[String] {
        &self.described
    }
}

/// Which of 0, 1, 2 … have been seen.
#[derive(Debug, Default, Clone)]
struct Serials {
    /// All below were seen.
    next: u64,
    /// Seen above `next`.
    ahead: BTreeSet<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Next,
    /// Others before it are missing still.
    Ahead,
    /// It was missing while later ones had come.
    Late,
    Again,
}

impl Serials {
    fn see(&mut self, serial: u64) -> Sight {
        if serial == self.next && self.ahead.is_empty() {
            self.next += 1;
            return Sight::Next;
        }
        if serial < self.next || !self.ahead.insert(serial) {
            return Sight::Again;
        }
        let late = self.ahead.last() != Some(&serial);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        if late { Sight::Late } else { Sight::Ahead }
    }

    fn has(&self, serial: u64) -> bool {
        serial < self.next || self.ahead.contains(&serial)
    }

    fn missing_below(&self, end: u64) -> impl Iterator<Item = u64> + '_ {
        (self.next..end).filter(|serial| !self.has(*serial))
    }
}

/// The sender of one stream: its answers.
#[derive(Debug)]
pub struct Sender {
    stream: u32,
    sent: u64,
    answered: Serials,
    /// Seq of serial 0.
    first_seq: Option<u64>,
}

impl Sender {
    pub fn new(stream: u32) -> Self {
        Self { stream, sent: 0, answered: Serials::default(), first_seq: None }
    }

    /// The serial of the next message.
    pub fn next_serial(&self) -> u64 {
        self.sent
    }

    /// The next message is sent.
    pub fn sent(&mut self) {
        self.sent += 1;
    }

    pub fn answered_count(&self) -> u64 {
        self.answered.next + self.answered.ahead.len() as u64
    }

    /// The answer to `serial` names `seq`. Answers may overtake each other; seqs may not.
    pub fn answered(&mut self, serial: u64, seq: u64, found: &mut Violations) {
        let stream = self.stream;
        if self.answered.see(serial) == Sight::Again || serial >= self.sent {
            found.add(Violation::AnsweredTwice, format_args!("stream {stream}, message {serial}"));
            return;
        }
        let first = *self.first_seq.get_or_insert(seq.wrapping_sub(serial));
        if seq != first.wrapping_add(serial) {
            found.add(
                Violation::WrongSeq,
                format_args!("stream {stream}: message {serial} was answered with seq {seq}"),
            );
        }
    }

    /// All answers are in that will come.
    pub fn finish(&self, found: &mut Violations) {
        for serial in self.answered.missing_below(self.sent) {
            found.add(Violation::Unanswered, format_args!("stream {}, message {serial}", self.stream));
        }
    }
}

/// How an entry reached a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Pushed,
    /// By a pull or sync behind a gap.
    Repaired,
}

/// One receiver of one stream.
#[derive(Debug)]
pub struct Receiver {
    stream: u32,
    name: u32,
    seen: Serials,
    first_seq: Option<u64>,
    pub pushed: u64,
    pub repaired: u64,
}

impl Receiver {
    /// `name`: the receiver's number in the run, for reports.
    pub fn new(stream: u32, name: u32) -> Self {
        Self { stream, name, seen: Serials::default(), first_seq: None, pushed: 0, repaired: 0 }
    }

    /// An entry with `seq` came, or came again. True when it is the first time.
    pub fn arrived(&mut self, seq: u64, payload: Option<Payload>, arrival: Arrival, found: &mut Violations) -> bool {
        let (stream, name) = (self.stream, self.name);
        let Some(Payload { serial, .. }) = payload.filter(|payload| payload.stream == stream) else {
            found.add(Violation::WrongContent, format_args!("stream {stream}, receiver {name}, seq {seq}"));
            return false;
        };
        let place = format_args!("stream {stream}, receiver {name}, message {serial}, seq {seq}");
        let first = *self.first_seq.get_or_insert(seq.wrapping_sub(serial));
        if seq != first.wrapping_add(serial) {
            found.add(Violation::WrongSeq, place);
        }
        let sight = self.seen.see(serial);
        if sight == Sight::Again {
            // A repair may meet a push on its way; only a second push is the server's doing.
            if arrival == Arrival::Pushed {
                found.add(Violation::PushedTwice, place);
            }
            return false;
        }
        match arrival {
            Arrival::Pushed => self.pushed += 1,
            Arrival::Repaired => {
                self.repaired += 1;
                found.add(Violation::Repaired, place);
            }
        }
        if sight == Sight::Late && arrival == Arrival::Pushed {
            found.add(Violation::OutOfOrder, place);
        }
        true
    }

    pub fn has_seq(&self, seq: u64) -> bool {
        let serial = self.first_seq.and_then(|first| seq.checked_sub(first));
        serial.is_some_and(|serial| self.seen.has(serial))
    }

    /// Everything has come that will come; `sender` sent this stream.
    pub fn finish(&self, sender: &Sender, found: &mut Violations) {
        for serial in self.seen.missing_below(sender.sent) {
            let place = format_args!("stream {}, receiver {}, message {serial}", self.stream, self.name);
            found.add(Violation::Missing, place);
        }
        let both = self.first_seq.zip(sender.first_seq);
        if let Some((received, answered)) = both.filter(|(received, answered)| received != answered) {
            let place = format_args!(
                "stream {}, receiver {}: seqs begin at {received}, the answers' at {answered}",
                self.stream, self.name
            );
            found.add(Violation::WrongSeq, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(serial: u64) -> Option<Payload> {
        Some(Payload { stream: 1, serial, due_ns: 0 })
    }

    /// A stream of `sent` messages with seqs from 5, all answered; the receiver sees `arrivals` as (serial, how).
    fn check(sent: u64, arrivals: &[(u64, Arrival)]) -> Violations {
        let mut found = Violations::default();
        let mut sender = Sender::new(1);
        for _ in 0..sent {
            let serial = sender.next_serial();
            sender.sent();
            sender.answered(serial, 5 + serial, &mut found);
        }
        let mut receiver = Receiver::new(1, 0);
        for (serial, arrival) in arrivals {
            receiver.arrived(5 + serial, payload(*serial), *arrival, &mut found);
        }
        sender.finish(&mut found);
        receiver.finish(&sender, &mut found);
        found
    }

    use Arrival::{Pushed, Repaired};

    #[test]
    fn a_clean_run_has_no_violation() {
        assert_eq!(check(3, &[(0, Pushed), (1, Pushed), (2, Pushed)]).total(), 0);
        assert_eq!(check(0, &[]).total(), 0);
    }

    #[test]
    fn a_dropped_message_is_found_wherever_it_was() {
        for dropped in 0..3 {
            let arrivals: Vec<_> = (0..3).filter(|serial| *serial != dropped).map(|serial| (serial, Pushed)).collect();
            let found = check(3, &arrivals);
            assert_eq!((found.total(), found.count(Violation::Missing)), (1, 1), "message {dropped}: {found:?}");
        }
    }

    #[test]
    fn a_doubled_message_is_found_at_once_and_later() {
        for arrivals in [[0, 0, 1, 2], [0, 1, 2, 0], [0, 1, 2, 2]] {
            let found = check(3, &arrivals.map(|serial| (serial, Pushed)));
            assert_eq!((found.total(), found.count(Violation::PushedTwice)), (1, 1), "{arrivals:?}: {found:?}");
        }
    }

    #[test]
    fn swapped_messages_are_found() {
        for arrivals in [[1, 0, 2], [0, 2, 1]] {
            let found = check(3, &arrivals.map(|serial| (serial, Pushed)));
            assert_eq!((found.total(), found.count(Violation::OutOfOrder)), (1, 1), "{arrivals:?}: {found:?}");
        }
    }

    #[test]
    fn a_repaired_message_counts_as_delivered_and_as_repaired() {
        let found = check(3, &[(0, Pushed), (2, Pushed), (1, Repaired), (2, Repaired)]);
        assert_eq!((found.total(), found.count(Violation::Repaired)), (1, 1), "{found:?}");
    }

    #[test]
    fn a_push_behind_its_repair_is_a_double_push() {
        let found = check(2, &[(0, Repaired), (1, Pushed), (0, Pushed)]);
        assert_eq!((found.count(Violation::Repaired), found.count(Violation::PushedTwice)), (1, 1), "{found:?}");
    }

    #[test]
    fn changed_content_and_content_of_another_stream_are_found() {
        let mut found = Violations::default();
        let mut receiver = Receiver::new(1, 0);
        assert!(!receiver.arrived(1, None, Pushed, &mut found));
        let other = Payload { stream: 2, serial: 0, due_ns: 0 };
        assert!(!receiver.arrived(1, Some(other), Pushed, &mut found));
        assert_eq!(found.count(Violation::WrongContent), 2);
    }

    #[test]
    fn seqs_that_differ_between_sender_and_receiver_or_do_not_rise_with_the_serials_are_found() {
        let mut found = Violations::default();
        let mut sender = Sender::new(1);
        let mut receiver = Receiver::new(1, 0);
        for seq in [1, 3] {
            let serial = sender.next_serial();
            sender.sent();
            sender.answered(serial, seq, &mut found);
        }
        assert_eq!(found.count(Violation::WrongSeq), 1, "a hole in the answers");
        receiver.arrived(2, payload(0), Pushed, &mut found);
        receiver.arrived(3, payload(1), Pushed, &mut found);
        receiver.finish(&sender, &mut found);
        assert_eq!(found.count(Violation::WrongSeq), 2, "{found:?}");
    }

    #[test]
    fn missing_and_doubled_answers_are_found_and_overtaking_ones_are_not() {
        let mut found = Violations::default();
        let mut sender = Sender::new(1);
        (0..3).for_each(|_| sender.sent());
        sender.answered(1, 2, &mut found);
        sender.answered(0, 1, &mut found);
        assert_eq!(found.total(), 0, "{found:?}");
        sender.answered(1, 2, &mut found);
        sender.finish(&mut found);
        assert_eq!((found.count(Violation::AnsweredTwice), found.count(Violation::Unanswered)), (1, 1));
    }

    #[test]
    fn repairs_are_excused_where_they_are_allowed_and_losses_never() {
        let found = check(4, &[(0, Pushed), (2, Pushed), (1, Repaired), (2, Pushed)]);
        assert_eq!(found.inexcusable(false), 3, "repaired, doubled, missing: {found:?}");
        assert_eq!(found.inexcusable(true), 1, "missing: {found:?}");
    }

    #[test]
    fn a_receiver_knows_which_seqs_it_has() {
        let mut found = Violations::default();
        let mut receiver = Receiver::new(1, 0);
        assert!(!receiver.has_seq(5));
        receiver.arrived(5, payload(0), Pushed, &mut found);
        receiver.arrived(7, payload(2), Pushed, &mut found);
        assert_eq!([4, 5, 6, 7, 8].map(|seq| receiver.has_seq(seq)), [false, true, false, true, false]);
    }

    #[test]
    fn only_the_first_violations_are_described_and_all_are_counted() {
        let found = check(100, &[]);
        assert_eq!((found.total(), found.described().len()), (100, DESCRIBED_MAX));
        assert_eq!(found.summary(), "100 Missing");
    }
}
