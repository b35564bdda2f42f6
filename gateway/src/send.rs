//! What a connection has yet to write.
//!
//! In: answers and pushes, shared bytes. Out: one vectored write per connection and turn with everything that waits.
//! Always: an answer is never dropped (its client is not read while too much waits); a push beyond the bounds is dropped,
//! remembered, and followed by one sync hint when all is written; frames leave in the order they came, whole.

use crate::connection::Connection;
use crate::core::Core;
use bytes::{Buf as _, Bytes};
use im_codec::session::sync_hint;
use im_proto::InboxVersion;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// Writes to one connection before the others of the turn have theirs; what is left waits for the socket to be asked again.
const WRITES_PER_TURN_MAX: usize = 16;
/// An empty queue with a larger allocation gives it back.
const KEPT_FRAMES: usize = 4;

#[derive(Default)]
pub struct Output {
    /// The first may be written in part already: then it is the rest.
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Pushes were dropped: a sync hint follows when the queue is empty.
    is_lagging: bool,
    /// More waits than the reader may run ahead of, until half of it is gone.
    holds_reader: bool,
    /// A task waits for the socket.
    is_blocked: bool,
    progress_at_ms: u64,
}

/// What became of a write.
enum Written {
    All,
    /// The socket takes no more, or others are to have their turn.
    Rest,
}

impl Output {
    pub fn push_answer(&mut self, frame: Bytes, now_ms: u64) {
        if self.frames.is_empty() {
            self.progress_at_ms = now_ms;
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// False: dropped, for the client reads too slowly.
    pub fn push(&mut self, frame: Bytes, bytes_max: usize, frames_max: usize, now_ms: u64) -> bool {
        if self.is_lagging || self.bytes + frame.len() > bytes_max || self.frames.len() >= frames_max {
            self.is_lagging = true;
            return false;
        }
        self.push_answer(frame, now_ms);
        true
    }

    /// Forgets that a push was dropped: only a planted bug does so.
    pub fn forget_lag(&mut self) {
        self.is_lagging = false;
    }

    /// True while the client must take output before more of its input is read.
    pub fn holds_reader(&self, bytes_max: usize) -> bool {
        self.holds_reader || self.bytes > bytes_max
    }

    /// When a client that takes nothing is given up.
    pub fn stall_deadline_ms(&self, stall_timeout_ms: u64) -> Option<u64> {
        self.is_blocked.then_some(self.progress_at_ms + stall_timeout_ms)
    }

    /// The transport has bytes of its own to write: from now on the client has to take something.
    pub fn own_bytes_wait(&mut self, now_ms: u64) {
        if self.frames.is_empty() && !self.is_blocked {
            self.progress_at_ms = now_ms;
        }
    }

    pub fn clear(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }

    /// `count` bytes were written. Answers how many frames that finished.
    fn written(&mut self, mut count: usize) -> u64 {
        let mut whole = 0;
        self.bytes -= count;
        while let Some(front) = self.frames.front_mut() {
            if count < front.len() {
                front.advance(count);
                return whole;
            }
            count -= front.len();
            self.frames.pop_front();
            whole += 1;
        }
        if self.frames.capacity() > KEPT_FRAMES {
            self.frames = VecDeque::new();
        }
        whole
    }
}

impl Connection {
    /// Queues a push. False: dropped.
    pub fn push(self: &Rc<Self>, core: &Rc<Core>, frame: Bytes) -> bool {
        let config = &core.shared.config;
        let now_ms = core.now_ms();
        let queued = self.output.borrow_mut().push(frame, config.output_bytes_max, config.output_frames_max, now_ms);
        if queued {
            core.mark_dirty(self);
        }
        queued
    }

    /// Writes what waits; the rest when the socket takes it.
    pub fn write_waiting(self: &Rc<Self>, core: &Rc<Core>) {
        if self.is_over() || self.output.borrow().is_blocked {
            return;
        }
        match self.write_some(core) {
            Ok(Written::All) => self.all_written(core),
            Ok(Written::Rest) => {
                self.output.borrow_mut().is_blocked = true;
                self.arm(core);
                monoio::spawn(self.clone().write_rest(core.clone()));
            }
            Err(_) => self.end(),
        }
    }

    /// The task that waits for a socket that takes no more.
    async fn write_rest(self: Rc<Self>, core: Rc<Core>) {
        loop {
            let waited = self.transport.writable().await;
            if self.is_over() {
                return;
            }
            match waited.and_then(|()| self.write_some(&core)) {
                Ok(Written::All) => {
                    self.output.borrow_mut().is_blocked = false;
                    return self.all_written(&core);
                }
                Ok(Written::Rest) => crate::core::yield_now().await,
                Err(_) => return self.end(),
            }
        }
    }

    fn write_some(&self, core: &Core) -> io::Result<Written> {
        let mut output = self.output.borrow_mut();
        let bytes_max = core.shared.config.output_bytes_max;
        output.holds_reader |= output.bytes > bytes_max;
        for _ in 0..WRITES_PER_TURN_MAX {
            if output.frames.is_empty() && !self.transport.has_own() {
                break;
            }
            let count = match self.transport.try_write(&output.frames) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let whole = output.written(count);
            output.progress_at_ms = core.now_ms();
            core.metrics().writes.add(1);
            core.metrics().bytes_out.add(count as u64);
            core.metrics().frames_out.add(whole);
        }
        if output.holds_reader && output.bytes <= bytes_max / 2 {
            output.holds_reader = false;
            self.wake_reader();
        }
        Ok(if output.frames.is_empty() && !self.transport.has_own() { Written::All } else { Written::Rest })
    }

    fn all_written(self: &Rc<Self>, core: &Rc<Core>) {
        if std::mem::take(&mut self.output.borrow_mut().is_lagging) {
            self.hint(core);
        } else if self.session.borrow().is_closing() {
            self.transport.end_writing();
        }
    }

    /// Tells the client to sync, for reasons of the gateway's own.
    pub fn hint(self: &Rc<Self>, core: &Rc<Core>) {
        if self.session.borrow().is_signed_in() && self.push(core, sync_hint(InboxVersion(0))) {
            core.metrics().hints.add(1);
        } else if self.session.borrow().is_closing() {
            core.mark_dirty(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[test]
    fn a_push_beyond_either_bound_is_dropped_and_so_are_those_behind_it() {
        let mut output = Output::default();
        assert!(output.push(frame(60), 100, 10, 0));
        assert!(!output.push(frame(60), 100, 10, 0));
        assert!(output.is_lagging);
        // A later one would fit, but would come without the one before it.
        assert!(!output.push(frame(1), 100, 10, 0));
        let mut output = Output::default();
        assert!(output.push(frame(1), 100, 1, 0));
        assert!(!output.push(frame(1), 100, 1, 0));
    }

    #[test]
    fn an_answer_is_queued_whatever_waits() {
        let mut output = Output::default();
        for _ in 0..100 {
            output.push_answer(frame(10), 0);
        }
        assert_eq!((output.bytes, output.frames.len()), (1000, 100));
        assert!(output.holds_reader(999));
        assert!(!output.holds_reader(1000));
    }

    #[test]
    fn a_frame_written_in_part_goes_on_where_it_stopped() {
        let mut output = Output::default();
        for text in ["abc", "defg"] {
            output.push_answer(Bytes::from_static(text.as_bytes()), 0);
        }
        assert_eq!(output.written(4), 1);
        assert_eq!(output.frames, [Bytes::from_static(b"efg")]);
        assert_eq!(output.written(3), 1);
        assert!(output.frames.is_empty());
        assert_eq!(output.bytes, 0);
    }
}
