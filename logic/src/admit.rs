//! Step 5, first half: which records become work.
//!
//! In: records of one batch. Out: commands, each in the lane of its log, and answers to those turned away. Always: a
//! command that waited longer than its sender would is turned away, not stored; an undecodable record is counted and
//! logged with its ids, never passed over in silence.

use crate::decide::ReadTarget;
use crate::metrics::add;
use crate::refusal::Refusal;
use crate::worker::{Shared, Told};
use im_proto::client::{self, client_frame::Command, server_frame::Body};
use im_proto::{ConnectionId, LogId, UserId, internal};
use im_storage::ports::{GatewayBoot, Offset, Record};
use prost::Message as _;
use std::collections::HashMap;
use std::time::Instant;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub gateway: GatewayBoot,
    pub connection: ConnectionId,
    pub request_id: u64,
}

/// A command to be decided.
#[derive(Debug)]
pub(crate) struct Work {
    /// Number of its log among the batch's lanes.
    pub lane: usize,
    pub origin: Origin,
    pub sender: UserId,
    pub command: Command,
    /// For a moved read cursor: filled in by `prefetch`.
    pub read: Option<ReadTarget>,
}

pub(crate) struct Admitted {
    pub work: Vec<Work>,
    /// The logs of the work, each once, in the order of their first command.
    pub logs: Vec<LogId>,
    pub told: Vec<Told>,
}

pub(crate) fn admit(shared: &Shared, records: Vec<(Offset, Record)>, now_ms: i64) -> Admitted {
    let now = Instant::now();
    let mut lanes: HashMap<LogId, usize> = HashMap::new();
    let mut admitted = Admitted { work: Vec::with_capacity(records.len()), logs: Vec::new(), told: Vec::new() };
    for (offset, record) in records {
        let Some(arrival) = decode(&record) else {
            add(&shared.metrics.undecodable, 1);
            tracing::error!(log = %record.log, offset = offset.0, bytes = record.upstream.len(), "undecodable record skipped");
            continue;
        };
        match turn_away(shared, &arrival, now_ms, now) {
            Some(refusal) => {
                shared.metrics.count_refusal(refusal.code);
                admitted.told.push(Told { origin: arrival.origin, body: Body::Error(refusal.to_wire()) });
            }
            None => {
                let next = lanes.len();
                let lane = *lanes.entry(record.log.clone()).or_insert(next);
                if lane == next {
                    admitted.logs.push(record.log);
                }
                let Arrival { origin, sender, command, .. } = arrival;
                admitted.work.push(Work { lane, origin, sender, command, read: None });
            }
        }
    }
    admitted
}

struct Arrival {
    origin: Origin,
    sender: UserId,
    received_at_ms: i64,
    command: Command,
}

/// `None`: not what a gateway writes.
fn decode(record: &Record) -> Option<Arrival> {
    let upstream = internal::Upstream::decode(record.upstream.clone()).ok()?;
    if upstream.log_id != record.log.as_str() {
        return None;
    }
    let origin = upstream.origin?;
    let sender = UserId::parse(&origin.user_id).ok()?;
    let command = client::ClientFrame::decode(upstream.frame).ok()?.command?;
    let origin = Origin {
        gateway: GatewayBoot(origin.gateway_boot),
        connection: ConnectionId(origin.connection_id),
        request_id: origin.request_id,
    };
    Some(Arrival { origin, sender, received_at_ms: upstream.received_at_ms, command })
}

fn turn_away(shared: &Shared, arrival: &Arrival, now_ms: i64, now: Instant) -> Option<Refusal> {
    // A ghost: its sender was told UNKNOWN long ago and may by now have sent other things instead.
    if now_ms.saturating_sub(arrival.received_at_ms) > i64::from(shared.config.upstream_age_max_ms) {
        return Some(Refusal::TOO_OLD);
    }
    shared.send_rate.take(&arrival.sender, now).err().map(Refusal::rate_limited)
}
