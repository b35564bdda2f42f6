//! Step 5, first half: which records become work.
//!
//! In: records of one batch. Out: commands, each in the lane of its log, answers to those turned away, and records that no
//! attempt can work off. Always: a command that waited longer than its sender would is turned away, not stored; nothing is
//! passed over in silence.

use crate::decide::ReadTarget;
use crate::log_state::QueuePlace;
use crate::refusal::Refusal;
use crate::worker::{Refused, Shared, Told};
use im_proto::client::{self, client_frame::Command, server_frame::Body};
use im_proto::{ConnectionId, LogId, TraceId, UserId, internal};
use im_storage::ports::{DeadLetter, DeadReason, GatewayBoot, Partition, Queued, Record};
use prost::Message as _;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub gateway: GatewayBoot,
    pub connection: ConnectionId,
    pub request_id: u64,
    pub trace: Option<TraceId>,
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
    /// As it came, should it have to be set aside.
    pub queued: Queued,
    pub place: QueuePlace,
}

pub(crate) struct Admitted {
    pub work: Vec<Work>,
    /// The logs of the work, each once, in the order of their first command.
    pub logs: Vec<LogId>,
    pub told: Vec<Told>,
    pub dead: Vec<Dead>,
}

/// A record that no attempt can work off.
#[derive(Debug)]
pub(crate) struct Dead {
    pub letter: DeadLetter,
    /// Who is told, where the record still says it.
    pub origin: Option<Origin>,
}

pub(crate) fn admit(shared: &Shared, partition: Partition, records: Vec<Queued>) -> Admitted {
    let now = Instant::now();
    let mut lanes: HashMap<LogId, usize> = HashMap::new();
    let work = Vec::with_capacity(records.len());
    let mut admitted = Admitted { work, logs: Vec::new(), told: Vec::new(), dead: Vec::new() };
    for queued in records {
        let record = &queued.record;
        let Some(arrival) = decode(record) else {
            let origin = origin_of(record);
            let letter = DeadLetter { partition, queued, reason: DeadReason::Undecodable };
            admitted.dead.push(Dead { letter, origin });
            continue;
        };
        match turn_away(shared, &arrival, &queued, now) {
            Some(refusal) => {
                let Arrival { origin, sender, .. } = &arrival;
                let written = Some((*origin, &record.log));
                shared.refused(&refusal, &Refused { user: sender, request_id: origin.request_id, written });
                admitted.told.push(Told { origin: arrival.origin, body: Body::Error(refusal.to_wire()) });
            }
            None => {
                let next = lanes.len();
                let lane = *lanes.entry(record.log.clone()).or_insert(next);
                if lane == next {
                    admitted.logs.push(record.log.clone());
                }
                let Arrival { origin, sender, command } = arrival;
                let place = QueuePlace { partition, offset: queued.offset };
                admitted.work.push(Work { lane, origin, sender, command, read: None, queued, place });
            }
        }
    }
    admitted
}

struct Arrival {
    origin: Origin,
    sender: UserId,
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
    let trace = TraceId::from_wire(upstream.trace).or(record.trace);
    Some(Arrival { origin: Origin::new(&origin, trace), sender, command })
}

impl Origin {
    fn new(origin: &internal::Origin, trace: Option<TraceId>) -> Self {
        Self {
            gateway: GatewayBoot(origin.gateway_boot),
            connection: ConnectionId(origin.connection_id),
            request_id: origin.request_id,
            trace,
        }
    }
}

/// Of a record that is otherwise not what a gateway writes.
fn origin_of(record: &Record) -> Option<Origin> {
    let upstream = internal::Upstream::decode(record.upstream.clone()).ok()?;
    let trace = TraceId::from_wire(upstream.trace).or(record.trace);
    upstream.origin.filter(|origin| origin.request_id != 0).map(|origin| Origin::new(&origin, trace))
}

fn turn_away(shared: &Shared, arrival: &Arrival, queued: &Queued, now: Instant) -> Option<Refusal> {
    // A ghost: its sender was told UNKNOWN long ago and may by now have sent other things instead.
    let waited = now.saturating_duration_since(queued.since);
    if waited > Duration::from_millis(shared.config.upstream_age_max_ms.into()) {
        return Some(Refusal::TOO_OLD);
    }
    // What may have come before was counted then, and may be stored without anybody having been told: it is looked at.
    if queued.may_repeat {
        return None;
    }
    shared.send_rate.take(&arrival.sender, now).err().map(Refusal::rate_limited)
}
