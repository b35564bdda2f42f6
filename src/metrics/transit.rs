//! What lies between gateways and logic.
//!
//! In: the counts of the queue's two ends, of questions and of the delivery streams. Out: their lines. Always: a number of
//! Kafka may be some seconds old.

use super::text::Text;
use im_storage::ports::Partition;

pub fn lag(out: &mut Text, lag: &[(Partition, u64)]) {
    let of_partitions = lag.iter().map(|(partition, records)| (partition.0, *records));
    out.labelled(("im_queue_lag_records", "gauge"), "partition", of_partitions);
}

#[cfg(feature = "distributed")]
pub use distributed::{produced, streams, unanswered};

#[cfg(feature = "distributed")]
mod distributed {
    use super::Text;
    use crate::join::Unanswered;
    use im_rpc::DeliveryStreams;
    use im_storage::kafka::ProducerCounts;
    use std::sync::atomic::Ordering;

    pub fn produced(out: &mut Text, counts: &ProducerCounts) {
        out.gauge("im_queue_in_flight_records", counts.in_flight.load(Ordering::Relaxed));
        out.counter("im_queue_produced_records_total", counts.taken.load(Ordering::Relaxed));
        out.counter("im_queue_produced_batches_total", counts.batches.load(Ordering::Relaxed));
        out.counter("im_queue_produce_failures_total", counts.lost.load(Ordering::Relaxed));
        out.counter("im_queue_producers_replaced_total", counts.replaced.load(Ordering::Relaxed));
        out.histogram("im_queue_ack_seconds", &counts.acks);
    }

    pub fn unanswered(out: &mut Text, unanswered: &Unanswered) {
        out.labelled(("im_gateway_unanswered_total", "counter"), "question", unanswered.by_question());
    }

    pub fn streams(out: &mut Text, streams: &DeliveryStreams) {
        let counts = streams.counts();
        out.counter("im_delivery_batches_total", counts.handed_on.load(Ordering::Relaxed));
        out.counter("im_delivery_dropped_total", counts.dropped.load(Ordering::Relaxed));
        out.counter("im_delivery_streams_opened_total", counts.streams_opened.load(Ordering::Relaxed));
        let (batches, bytes) = streams.waiting();
        out.gauge("im_delivery_waiting_batches", batches as u64);
        out.gauge("im_delivery_waiting_bytes", bytes as u64);
    }
}
