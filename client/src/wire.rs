//! One connection's bytes: frames out with request ids, frames in, and which request ids still wait.
//!
//! In: commands, received bytes. Out: one buffer to be written, messages of the server, and what an answer was asked for.
//! Always: a request id is used once per connection; what was asked on one connection is forgotten with it. Ids count up,
//! so those without an answer are a window of a deque, and its front is the first to time out. The window is bounded by
//! what is asked within [`REQUEST_TIMEOUT_MS`].

use crate::event::Ticket;
use bytes::Bytes;
use im_codec::{Deframer, FrameError, HEARTBEAT, Incoming};
use im_proto::client::{ClientFrame, client_frame};
use im_proto::{ClientId, LogId};
use prost::Message as _;
use std::collections::VecDeque;

/// Contract C5 on the client's side. The server promises the same.
pub(crate) const REQUEST_TIMEOUT_MS: u64 = 10_000;

/// Of a server frame; `proto/README.md`.
const SERVER_FRAME_BYTES_MAX: u32 = 256 * 1024;

/// Of a client frame before `SignedIn` names the limit; `proto/README.md`.
const SIGN_IN_FRAME_BYTES_MAX: usize = 8 * 1024;

/// What a request was for.
#[derive(Debug)]
pub(crate) enum Asked {
    SignIn,
    Send {
        conversation: LogId,
        id: ClientId,
    },
    /// A command that writes to a group, other than a send.
    ToGroup {
        conversation: LogId,
        id: ClientId,
    },
    Request(Ticket),
    Pull(LogId),
    /// The number of the attempt: an answer to one that was given up is of a sync that is void.
    Sync(u64),
}

/// The frame is larger than the server takes. Nothing was written: the server would close the connection for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FrameTooLarge;

#[derive(Debug)]
pub(crate) struct Wire {
    output: Vec<u8>,
    deframer: Deframer,
    frame_bytes_max: usize,
    /// The request id of `unanswered[0]`.
    first_id: u64,
    unanswered: VecDeque<Option<Unanswered>>,
}

#[derive(Debug)]
struct Unanswered {
    asked: Asked,
    deadline_ms: u64,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            output: Vec::new(),
            deframer: Deframer::default(),
            frame_bytes_max: SIGN_IN_FRAME_BYTES_MAX,
            first_id: 1,
            unanswered: VecDeque::new(),
        }
    }
}

impl Wire {
    /// A new connection: nothing written, nothing asked.
    pub fn restart(&mut self) {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        *self = Self { output, ..Self::default() };
    }

    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_bytes_max = frame_bytes_max as usize;
    }

    /// Writes a command and returns its request id.
    pub fn ask(&mut self, asked: Asked, command: client_frame::Command, now_ms: u64) -> Result<u64, FrameTooLarge> {
        let request_id = self.first_id + self.unanswered.len() as u64;
        let frame = ClientFrame { request_id, command: Some(command), ..Default::default() };
        let too_large = frame.encoded_len() > self.frame_bytes_max;
        if too_large || frame.encode_length_delimited(&mut self.output).is_err() {
            return Err(FrameTooLarge);
        }
        self.unanswered.push_back(Some(Unanswered { asked, deadline_ms: now_ms + REQUEST_TIMEOUT_MS }));
        Ok(request_id)
    }

    pub fn heartbeat(&mut self) {
        self.output.extend_from_slice(HEARTBEAT);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Hands over what is to be written and takes `into`'s memory for what comes next.
    pub fn swap_output(&mut self, into: &mut Vec<u8>) {
        into.clear();
        std::mem::swap(&mut self.output, into);
    }

    pub fn next_frame(&mut self, input: &mut Bytes) -> Result<Option<Incoming>, FrameError> {
        self.deframer.next(input, SERVER_FRAME_BYTES_MAX)
    }

    /// What the answer with this id is for. `None`: it came too late, or nobody asked.
    pub fn answered(&mut self, request_id: u64) -> Option<Asked> {
        let place = usize::try_from(request_id.checked_sub(self.first_id)?).ok()?;
        let asked = self.unanswered.get_mut(place)?.take()?.asked;
        self.advance();
        Some(asked)
    }

    /// The next request whose time is over, and its id.
    pub fn timed_out(&mut self, now_ms: u64) -> Option<(u64, Asked)> {
        if self.deadline_ms()? > now_ms {
            return None;
        }
        let request_id = self.first_id;
        Some((request_id, self.answered(request_id)?))
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.unanswered.front()?.as_ref().map(|front| front.deadline_ms)
    }

    fn advance(&mut self) {
        while let Some(None) = self.unanswered.front() {
            self.unanswered.pop_front();
            self.first_id += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::client::Sync;

    fn ask(wire: &mut Wire, ticket: u64, now_ms: u64) -> u64 {
        wire.ask(Asked::Request(Ticket(ticket)), client_frame::Command::Sync(Sync::default()), now_ms).unwrap()
    }

    fn ticket(asked: Option<Asked>) -> Option<u64> {
        match asked? {
            Asked::Request(Ticket(ticket)) => Some(ticket),
            _ => None,
        }
    }

    #[test]
    fn answers_come_in_any_order_and_each_request_id_is_answered_once() {
        let mut wire = Wire::default();
        let ids: Vec<u64> = (10..14).map(|n| ask(&mut wire, n, 0)).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert_eq!(ticket(wire.answered(3)), Some(12));
        assert_eq!(ticket(wire.answered(1)), Some(10));
        assert_eq!(ticket(wire.answered(1)), None);
        assert_eq!(ticket(wire.answered(3)), None);
        assert_eq!(ticket(wire.answered(99)), None);
        assert_eq!(ask(&mut wire, 14, 0), 5);
        assert_eq!(ticket(wire.answered(2)), Some(11));
        assert_eq!(ticket(wire.answered(5)), Some(14));
        assert_eq!(ticket(wire.answered(4)), Some(13));
        assert_eq!(wire.deadline_ms(), None);
    }

    #[test]
    fn a_request_ends_ten_seconds_after_it_was_written() {
        let mut wire = Wire::default();
        ask(&mut wire, 1, 0);
        ask(&mut wire, 2, 5_000);
        assert!(wire.timed_out(9_999).is_none());
        assert_eq!(wire.timed_out(10_000).map(|(id, asked)| (id, ticket(Some(asked)))), Some((1, Some(1))));
        assert!(wire.timed_out(10_000).is_none());
        assert_eq!(wire.deadline_ms(), Some(15_000));
    }

    #[test]
    fn a_frame_above_the_servers_limit_is_not_written() {
        let mut wire = Wire::default();
        wire.set_frame_bytes_max(100);
        let token = Bytes::from(vec![0; 200]);
        let command = client_frame::Command::Sync(Sync { token, limit: 0 });
        assert_eq!(wire.ask(Asked::Sync(1), command, 0), Err(FrameTooLarge));
        assert!(!wire.has_output() && wire.deadline_ms().is_none());
    }
}
