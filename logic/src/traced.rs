//! One line for each hop of a command, for whoever follows one through the system.
//!
//! In: what a hop came to. Out: a line at level debug with the command's trace id. Always: costs one look at the level when
//! nobody follows; no content.

use crate::admit::Work;
use crate::log_state::Lane;
use crate::persist::Stored;
use crate::worker::Told;
use im_observe::TRACE;
use tracing::field::display;
use tracing::{Level, enabled};

pub(crate) fn is_on() -> bool {
    enabled!(target: TRACE, Level::DEBUG)
}

/// `seq`: 0 when nothing is to be stored.
pub(crate) fn decided(work: &Work, lane: &Lane, seq: u64) {
    let (trace, request) = (work.origin.trace.map(display), work.origin.request_id);
    tracing::debug!(target: TRACE, hop = "decide", trace, log = %lane.log, request, seq);
}

pub(crate) fn persisted(entry: &Stored, lane: &Lane) {
    let (trace, seq) = (trace_of(entry).map(display), entry.position.head.0);
    tracing::debug!(target: TRACE, hop = "persist", trace, log = %lane.log, seq);
}

pub(crate) fn delivered(entries: &[Stored], lanes: &[Lane]) {
    if is_on() {
        for entry in entries {
            let (trace, seq) = (trace_of(entry).map(display), entry.position.head.0);
            tracing::debug!(target: TRACE, hop = "deliver", trace, log = %lanes[entry.lane].log, seq);
        }
    }
}

/// Of answers that rest on no new entry.
pub(crate) fn answered(told: &[Told]) {
    if is_on() {
        for told in told {
            let (trace, request) = (told.origin.trace.map(display), told.origin.request_id);
            tracing::debug!(target: TRACE, hop = "deliver", trace, request);
        }
    }
}

fn trace_of(entry: &Stored) -> Option<im_proto::TraceId> {
    entry.answer.as_ref().and_then(|(origin, _)| origin.trace)
}
