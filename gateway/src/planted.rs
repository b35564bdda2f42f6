//! Bugs planted on purpose, to prove that the tests and the bench find such bugs.
//!
//! In: `IM_PLANTED_BUG`, read once. Out: yes or no. Always: without the feature `planted-bugs` every answer is a constant
//! no, and the compiler removes the bug.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A heartbeat is answered 0x00 whatever moved.
    NoHeartbeatHint,
    /// A login that has ended while its kick got lost stays.
    LostKickStays,
    /// "Given" advances though the move does not join.
    GivenSkips,
    /// A push that found no room leaves neither hint nor gap.
    PushDroppedSilently,
    /// Every 1,000th push is dropped, without a gap.
    DropOne,
    /// Every 1,000th push is queued twice.
    DoubleOne,
    /// Every 1,000th push is swapped with the next of its connection.
    SwapTwo,
    /// Bytes that arrive within 4 ms of a timer tick are gone, as those of a read that the tick cancelled.
    ReadCancelLosesBytes,
    /// An entry of a large conversation goes to those who were members when the logic was asked last.
    StaleMembersExpanded,
    /// Nobody is hinted of a large conversation's head.
    LargeHeadsUnhinted,
    /// A WebSocket header before more than one frame counts one byte too few.
    WebsocketHeaderShort,
    /// A WebSocket connection that the server closes ends without a close frame.
    WebsocketCloseMissing,
    /// The limit of open files stays where the process found it.
    SoftLimitKept,
    /// However many bytes wait for the queue, one more record finds room.
    BacklogBytesUnbounded,
    /// Whoever sent first counts as taken first, though a part of the queue is full.
    OwnersByPosition,
    /// However many bytes wait for a core, one more event finds room.
    LaneBytesUnbounded,
    /// A user whom a change of members named between question and answer is not asked about again.
    ChangeInBetweenForgotten,
}

/// How often the three before the last strike.
pub const EVERY: u64 = 1000;

#[cfg(feature = "planted-bugs")]
pub fn planted(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<Bug>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| match std::env::var("IM_PLANTED_BUG").as_deref() {
        Ok("no_heartbeat_hint") => Some(Bug::NoHeartbeatHint),
        Ok("lost_kick_stays") => Some(Bug::LostKickStays),
        Ok("given_skips") => Some(Bug::GivenSkips),
        Ok("push_dropped_silently") => Some(Bug::PushDroppedSilently),
        Ok("drop_one") => Some(Bug::DropOne),
        Ok("double_one") => Some(Bug::DoubleOne),
        Ok("swap_two") => Some(Bug::SwapTwo),
        Ok("read_cancel_loses_bytes") => Some(Bug::ReadCancelLosesBytes),
        Ok("stale_members_expanded") => Some(Bug::StaleMembersExpanded),
        Ok("large_heads_unhinted") => Some(Bug::LargeHeadsUnhinted),
        Ok("websocket_header_short") => Some(Bug::WebsocketHeaderShort),
        Ok("websocket_close_missing") => Some(Bug::WebsocketCloseMissing),
        Ok("soft_limit_kept") => Some(Bug::SoftLimitKept),
        Ok("backlog_bytes_unbounded") => Some(Bug::BacklogBytesUnbounded),
        Ok("owners_by_position") => Some(Bug::OwnersByPosition),
        Ok("lane_bytes_unbounded") => Some(Bug::LaneBytesUnbounded),
        Ok("change_in_between_forgotten") => Some(Bug::ChangeInBetweenForgotten),
        _ => None,
    });
    *planted == Some(bug)
}

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}
