//! Which messages of a stream are under way.
//!
//! In: messages sent, and each answer and first arrival. Out: how many are under way. Always: a message is under way
//! until it was answered and every receiver has it; the oldest leaves first.

use std::collections::VecDeque;

pub struct InFlight {
    /// Answers and arrivals that end a message: one and its receivers.
    steps: usize,
    first_serial: u64,
    /// From `first_serial` on.
    messages: VecDeque<Message>,
}

struct Message {
    due_ns: u64,
    /// Steps that are missing still.
    missing: usize,
}

impl InFlight {
    pub fn new(receivers: usize) -> Self {
        Self { steps: 1 + receivers, first_serial: 0, messages: VecDeque::new() }
    }

    pub fn sent(&mut self, due_ns: u64) {
        self.messages.push_back(Message { due_ns, missing: self.steps });
    }

    /// The message was answered or reached one receiver. Returns when it was due; `None`: it is not under way.
    pub fn step(&mut self, serial: u64) -> Option<u64> {
        let place = serial.checked_sub(self.first_serial)?;
        let message = self.messages.get_mut(place as usize)?;
        message.missing = message.missing.saturating_sub(1);
        let due_ns = message.due_ns;
        while self.messages.front().is_some_and(|front| front.missing == 0) {
            self.messages.pop_front();
            self.first_serial += 1;
        }
        Some(due_ns)
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_under_way_until_its_answer_and_every_arrival() {
        let mut in_flight = InFlight::new(2);
        (0..3).for_each(|n| in_flight.sent(10 + n));
        (0..3).for_each(|_| assert_eq!(in_flight.step(1), Some(11)));
        assert_eq!(in_flight.len(), 3, "the one before it is under way");
        (0..3).for_each(|_| assert_eq!(in_flight.step(0), Some(10)));
        assert_eq!(in_flight.len(), 1);
        assert_eq!((in_flight.step(0), in_flight.step(7)), (None, None));
        assert_eq!(in_flight.len(), 1, "a second arrival and a strange one change nothing");
        (0..3).for_each(|_| assert_eq!(in_flight.step(2), Some(12)));
        assert_eq!(in_flight.len(), 0);
    }
}
