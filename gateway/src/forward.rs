//! Commands that write, on their way to the queue.
//!
//! In: one command at a time. Out: the turn's records as one batch to [`Forward`](crate::Forward). Always: records leave in
//! the order they came; what the queue does not take is kept up to a bound and tried again, and the connections that wait
//! in it are not read; beyond the bound a command is answered BUSY; what has waited until its sender was told UNKNOWN is not
//! forwarded any more.

use crate::connection::Connection;
use crate::core::Core;
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
/// Records gathered in a turn before they are forwarded without waiting for its end.
const BATCH_RECORDS_MAX: usize = 1024;
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
    /// The queue was full, and a task tries again.
    is_blocked: bool,
}

struct Owner {
    connection: ConnectionId,
    since_ms: u64,
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
        if backlog.records.len() >= BACKLOG_RECORDS_MAX {
            drop(backlog);
            core.metrics().forward_refused.add(1);
            return self.refuse(core, request_id, trace);
        }
        backlog.records.push(Upstream { log, record, trace });
        backlog.owners.push(Owner { connection: self.id, since_ms: core.now_ms() });
        if backlog.is_blocked {
            self.is_forward_blocked.set(true);
        } else if backlog.records.len() >= BATCH_RECORDS_MAX {
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
        self.metrics().forwarded.add((before - left) as u64);
        self.metrics().forward_backlog.set(left as u64);
        let mut backlog = self.backlog.borrow_mut();
        backlog.owners.drain(..before - left);
        backlog.records = records;
        left == 0
    }

    /// What lies in front has waited longest.
    fn give_up_old(&self) {
        let now_ms = self.now_ms();
        let mut backlog = self.backlog.borrow_mut();
        let is_old = |owner: &Owner| now_ms.saturating_sub(owner.since_ms) > RECORD_AGE_MAX_MS;
        let old = backlog.owners.iter().take_while(|owner| is_old(owner)).count();
        if old > 0 {
            backlog.owners.drain(..old);
            backlog.records.drain(..old);
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
