//! Commands that write, on their way to the queue.
//!
//! In: one command at a time. Out: the turn's records as one batch to [`Forward`](crate::Forward). Always: records leave in
//! the order they came; what the queue does not take is kept up to a bound, in records and in bytes, and tried again, and the
//! connections that wait in it are not read; beyond the bound a command is answered BUSY; what has waited until its sender
//! was told UNKNOWN is not forwarded any more.

use crate::connection::Connection;
use crate::core::Core;
use crate::planted::{Bug, planted};
use crate::ports::Upstream;
use bytes::Bytes;
use im_codec::encode_delimited;
use im_codec::session::Told;
use im_observe::{REFUSED, TRACE};
use im_proto::client::{self, ErrorClass, ErrorCode, server_frame};
use im_proto::{ConnectionId, LogId, TraceId, internal};
use prost::Message as _;
use std::rc::Rc;
use std::time::Duration;
use tracing::field::display;

/// Records that the queue has not taken yet, of one core.
const BACKLOG_RECORDS_MAX: usize = 8192;
/// Bytes of those records: once as many wait, one more record is answered BUSY, so one record more than this is held.
const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Records gathered in a turn before they are forwarded without waiting for its end.
const BATCH_RECORDS_MAX: usize = 1024;
/// Likewise their bytes, so that a turn of large frames does not fill the backlog while the queue has room.
const BATCH_BYTES_MAX: usize = BACKLOG_BYTES_MAX / 8;
const RETRY_MS: u64 = 3;
/// Its sender was told UNKNOWN by then, and may by now have sent other things.
const RECORD_AGE_MAX_MS: u64 = 10_000;
/// What a client is told to wait when the backlog is full.
const BUSY_MS: u32 = 200;

#[derive(Default)]
pub struct Backlog {
    records: Vec<Upstream>,
    /// Whose they are and since when, one for one.
    owners: Vec<Owner>,
    /// Of all the records.
    bytes: usize,
    /// The queue was full, and a task tries again.
    is_blocked: bool,
}

struct Owner {
    connection: ConnectionId,
    since_ms: u64,
    /// Where its record's bytes lie: no two of a backlog lie in the same place.
    record: *const u8,
}

impl Backlog {
    fn has_room(&self) -> bool {
        let has_bytes = self.bytes < BACKLOG_BYTES_MAX || planted(Bug::BacklogBytesUnbounded);
        self.records.len() < BACKLOG_RECORDS_MAX && has_bytes
    }

    fn is_batch(&self) -> bool {
        self.records.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn push(&mut self, record: Upstream, connection: ConnectionId, now_ms: u64) {
        self.bytes += record.record.len();
        self.owners.push(Owner { connection, since_ms: now_ms, record: record.record.as_ptr() });
        self.records.push(record);
    }

    /// What the queue left: in its order, but from anywhere, for only a part of the queue may be full.
    fn keep(&mut self, left: Vec<Upstream>) {
        if left.is_empty() {
            self.owners.clear();
            self.bytes = 0;
        } else if left.len() < self.owners.len() {
            if planted(Bug::OwnersByPosition) {
                self.owners.drain(..self.owners.len() - left.len());
            }
            let mut records = left.iter().map(|left| left.record.as_ptr()).peekable();
            self.owners.retain(|owner| records.next_if_eq(&owner.record).is_some() || planted(Bug::OwnersByPosition));
            self.bytes = bytes(&left);
        }
        self.records = left;
    }

    /// Drops what has waited for too long; it lies in front. Answers how many those are.
    fn give_up_old(&mut self, now_ms: u64) -> usize {
        let is_old = |owner: &Owner| now_ms.saturating_sub(owner.since_ms) > RECORD_AGE_MAX_MS;
        let old = self.owners.iter().take_while(|owner| is_old(owner)).count();
        self.owners.drain(..old);
        self.bytes -= bytes(&self.records[..old]);
        self.records.drain(..old);
        old
    }
}

fn bytes(records: &[Upstream]) -> usize {
    records.iter().map(|record| record.record.len()).sum()
}

/// A command that writes.
pub struct Command {
    pub request_id: u64,
    /// The client's frame as received.
    pub frame: Bytes,
    /// What the client asks it to be traced by.
    pub trace: Option<TraceId>,
}

impl Connection {
    /// Puts the client's command into the turn's batch.
    pub fn forward(self: &Rc<Self>, core: &Rc<Core>, log: LogId, command: Command) {
        let Command { request_id, frame, trace } = command;
        let trace = trace.or_else(|| core.next_trace());
        let (connection, shown) = (self.id.0, trace.map(display));
        tracing::debug!(target: TRACE, hop = "forward", trace = shown, %log, connection, request = request_id);
        let Some(record) = self.record(core, &log, request_id, frame, trace) else { return };
        let mut backlog = core.backlog.borrow_mut();
        if !backlog.has_room() {
            drop(backlog);
            core.metrics().forward_refused.add(1);
            return self.refuse(core, request_id, trace);
        }
        backlog.push(Upstream { log, record, trace }, self.id, core.now_ms());
        if backlog.is_blocked {
            self.is_forward_blocked.set(true);
        } else if backlog.is_batch() {
            drop(backlog);
            core.forward_now();
        } else {
            drop(backlog);
            core.forward_later();
        }
    }

    fn record(&self, core: &Core, log: &LogId, request_id: u64, frame: Bytes, trace: Option<TraceId>) -> Option<Bytes> {
        let session = self.session.borrow();
        let login = session.login()?;
        let upstream = internal::Upstream {
            log_id: log.into(),
            origin: Some(internal::Origin {
                user_id: (&login.user).into(),
                device_id: (&login.device).into(),
                gateway_boot: core.shared.boot,
                connection_id: self.id.0,
                request_id,
            }),
            frame,
            trace: trace.map(TraceId::to_wire),
        };
        Some(Bytes::from(upstream.encode_to_vec()))
    }

    /// One line, unless too many come at once; those are counted on the next.
    pub fn log_refused(&self, core: &Core, request: u64, code: ErrorCode, trace: Option<TraceId>) {
        core.metrics().commands_refused.add(1);
        if !tracing::enabled!(target: REFUSED, tracing::Level::INFO) {
            return;
        }
        if let Some(left_out) = core.refused_lines.line() {
            let session = self.session.borrow();
            let user = session.login().map(|login| display(&login.user));
            let (connection, trace, code) = (self.id.0, trace.map(display), code.as_str_name());
            tracing::info!(target: REFUSED, trace, user, connection, request, code, left_out, "refused");
        }
    }

    fn refuse(self: &Rc<Self>, core: &Rc<Core>, request_id: u64, trace: Option<TraceId>) {
        self.log_refused(core, request_id, ErrorCode::Overload, trace);
        let busy = client::Error {
            class: ErrorClass::Busy as i32,
            code: ErrorCode::Overload as i32,
            retry_after_ms: BUSY_MS,
            detail: "the queue is full".to_owned(),
        };
        let frame = encode_delimited(&client::ServerFrame { request_id, body: Some(server_frame::Body::Error(busy)) });
        let now_ms = core.now_ms();
        self.with_session(core, |session, actions| session.answered(request_id, frame, Told::Nothing, now_ms, actions));
    }
}

impl Core {
    /// Hands on what has gathered, unless a task is at it already.
    pub fn forward_now(self: &Rc<Self>) {
        if self.backlog.borrow().is_blocked {
            return;
        }
        if !self.try_forward() {
            self.backlog.borrow_mut().is_blocked = true;
            self.block_owners();
            monoio::spawn(self.clone().forward_rest());
        }
    }

    /// The task that tries again while the queue is full.
    async fn forward_rest(self: Rc<Self>) {
        while !self.is_stopping.get() {
            monoio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            self.give_up_old();
            if self.try_forward() {
                self.backlog.borrow_mut().is_blocked = false;
                return self.unblock_owners();
            }
        }
    }

    /// True when the queue took everything.
    fn try_forward(&self) -> bool {
        let mut records = std::mem::take(&mut self.backlog.borrow_mut().records);
        let before = records.len();
        self.shared.forward.forward(&mut records);
        let left = records.len();
        let mut backlog = self.backlog.borrow_mut();
        backlog.keep(records);
        self.metrics().forwarded.add((before - left) as u64);
        self.metrics().forward_backlog.set(left as u64);
        self.metrics().forward_backlog_bytes.set(backlog.bytes as u64);
        left == 0
    }

    fn give_up_old(&self) {
        let old = self.backlog.borrow_mut().give_up_old(self.now_ms());
        if old > 0 {
            self.metrics().forward_given_up.add(old as u64);
            tracing::warn!(commands = old, "the queue took nothing for too long; their senders were told UNKNOWN");
        }
    }

    fn block_owners(&self) {
        let backlog = self.backlog.borrow();
        let connections = self.connections.borrow();
        for owner in &backlog.owners {
            if let Some(connection) = connections.get(&owner.connection) {
                connection.is_forward_blocked.set(true);
            }
        }
    }

    /// Once in a while and only behind a full queue: looks at every connection.
    fn unblock_owners(&self) {
        for connection in self.connections.borrow().values() {
            if connection.is_forward_blocked.replace(false) {
                connection.wake_reader();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: ConnectionId = ConnectionId(7);

    fn record(bytes: usize) -> Upstream {
        Upstream { log: LogId::parse("log").unwrap(), record: vec![0; bytes].into(), trace: None }
    }

    fn connections(backlog: &Backlog) -> Vec<u64> {
        backlog.owners.iter().map(|owner| owner.connection.0).collect()
    }

    #[test]
    fn the_bytes_of_a_backlog_are_those_of_what_the_queue_has_left() {
        let mut backlog = Backlog::default();
        (1..=4).for_each(|bytes| backlog.push(record(bytes), CONNECTION, bytes as u64));
        assert_eq!(backlog.bytes, 10);
        let mut left = std::mem::take(&mut backlog.records);
        left.remove(1);
        backlog.keep(left);
        assert_eq!(backlog.bytes, 8);
        assert_eq!((backlog.give_up_old(RECORD_AGE_MAX_MS + 3), backlog.bytes), (1, 7));
        backlog.keep(Vec::new());
        assert_eq!((backlog.bytes, backlog.owners.len()), (0, 0));
    }

    #[test]
    fn a_record_of_any_size_finds_room_in_a_backlog_that_is_not_full() {
        let mut backlog = Backlog::default();
        assert!(backlog.has_room());
        backlog.push(record(BACKLOG_BYTES_MAX - 1), CONNECTION, 0);
        assert!(backlog.has_room() && backlog.is_batch());
        backlog.push(record(1), CONNECTION, 0);
        assert!(!backlog.has_room());
    }

    #[test]
    fn who_waits_is_known_though_only_a_part_of_the_queue_is_full() {
        let mut backlog = Backlog::default();
        (1..=5).for_each(|connection| backlog.push(record(10), ConnectionId(connection), 0));
        let mut left = std::mem::take(&mut backlog.records);
        left.remove(4);
        left.remove(2);
        backlog.keep(left);
        assert_eq!(connections(&backlog), [1, 2, 4]);
    }
}
