//! Where a partition ended when we fetched of it last.
//!
//! In: a consumer's client, a topic, a partition. Out: the offset behind its last record, as the broker said with the records that
//! it sent. Always: asks no broker and waits for none.

use crate::ports::{Offset, Partition};
use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_get_watermark_offsets, rd_kafka_resp_err_t};
use rdkafka::client::Client;
use std::ffi::CStr;

/// `None` if it did not say so yet.
pub fn fetched_end<C: ClientContext>(client: &Client<C>, topic: &CStr, partition: Partition) -> Option<Offset> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: the client lives for as long as it is borrowed; librdkafka reads the text, which ends with a zero, and writes the two
    // numbers, all within the call.
    let told = unsafe {
        rd_kafka_get_watermark_offsets(client.native_ptr(), topic.as_ptr(), partition.0 as i32, &mut low, &mut high)
    };
    let is_told = told == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    is_told.then(|| u64::try_from(high).ok().filter(|end| *end > 0).map(Offset)).flatten()
}
