//! Every bound of a session, named once, related by const asserts.
//!
//! In: the operator's configuration as [`SessionLimits`]. Out: numbers. Always: what an operator may set stays below the
//! hard caps here, so no configuration makes memory unbounded.

/// No frame of the server is ever longer.
pub const SERVER_FRAME_BYTES_MAX: u32 = 256 * 1024;
/// No frame of a client is ever longer, whatever is configured: what was accepted fits into one server frame.
pub const FRAME_BYTES_CAP: u32 = 192 * 1024;
/// Commands that write, unanswered, of one connection. The next one stops reading.
pub const PENDING_WRITES_MAX: usize = 32;
/// Commands that read, unanswered, of one connection. The next one stops reading.
pub const PENDING_READS_MAX: usize = 16;
/// Requests that timed out and whose late answers are still awaited; the oldest is forgotten for a newer one.
pub const TIMED_OUT_REQUESTS_MAX: usize = 64;
/// Every request is answered by then (contract C5).
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// A heartbeat is answered by then, whether the logic told the inbox version or not.
pub const VERSIONS_TIMEOUT_MS: u64 = 1_000;
pub const HEARTBEATS_PER_S_MAX: u32 = 10;
/// Heartbeats in a row before their rate counts.
pub const HEARTBEATS_BURST: u32 = 20;
pub const TOKEN_BYTES_MAX: usize = 4096;
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// User ids in one command.
pub const USER_IDS_MAX: usize = 1_000;
/// What the logic's largest token has, rounded up: 22 bytes for each of a user's 2,000 large conversations (a test in `logic`
/// compares the two).
pub const SYNC_TOKEN_BYTES_MAX: usize = 44 * 1024;
/// What a client is told to wait after OVERLOADED and SLOW_CONSUMER.
pub const BUSY_RECONNECT_MS: u32 = 1_000;
/// What a client is told to wait after GOING_AWAY and INTERNAL.
pub const DRAIN_RECONNECT_MS: u32 = 500;

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct SessionLimits {
    /// From the connection's beginning to its first byte.
    pub first_byte_timeout_ms: u64,
    /// From the connection's beginning to the end of sign-in.
    pub sign_in_timeout_ms: u64,
    /// From the first to the last byte of one frame.
    pub frame_timeout_ms: u64,
    /// Told to clients.
    pub heartbeat_interval_ms: u32,
    /// The longest silence of a client.
    pub idle_timeout_ms: u32,
    pub frame_bytes_max_before_sign_in: u32,
    pub frame_bytes_max: u32,
    pub body_bytes_max: usize,
    pub command_rate_per_s: u32,
    pub command_burst: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            first_byte_timeout_ms: 3_000,
            sign_in_timeout_ms: 5_000,
            frame_timeout_ms: 10_000,
            heartbeat_interval_ms: 30_000,
            idle_timeout_ms: 75_000,
            frame_bytes_max_before_sign_in: 8 * 1024,
            frame_bytes_max: 64 * 1024,
            body_bytes_max: 16 * 1024,
            command_rate_per_s: 100,
            command_burst: 300,
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimits {
    #[error("frame_bytes_max must lie between {FRAME_BYTES_MIN} and {FRAME_BYTES_CAP}")]
    FrameBytes,
    #[error("frame_bytes_max_before_sign_in must lie between {SIGN_IN_BYTES_MIN} and frame_bytes_max")]
    FrameBytesBeforeSignIn,
    #[error("body_bytes_max must leave {SEND_OVERHEAD_BYTES} bytes of frame_bytes_max for the rest of a send")]
    BodyBytes,
    #[error("idle_timeout_ms must be above heartbeat_interval_ms")]
    IdleTimeout,
    #[error("command_rate_per_s and command_burst must be at least 1")]
    CommandRate,
}

/// A sign-in with the longest token and ids fits.
const SIGN_IN_BYTES_MIN: u32 = 4096 + 256;
/// A sync with the longest token fits.
pub const FRAME_BYTES_MIN: u32 = SYNC_TOKEN_BYTES_MAX as u32 + 256;
/// Everything of a send but its body: ids, keys, lengths.
const SEND_OVERHEAD_BYTES: usize = 512;

impl SessionLimits {
    pub fn check(&self) -> Result<(), InvalidLimits> {
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_CAP).contains(&self.frame_bytes_max) {
            return Err(InvalidLimits::FrameBytes);
        }
        if !(SIGN_IN_BYTES_MIN..=self.frame_bytes_max).contains(&self.frame_bytes_max_before_sign_in) {
            return Err(InvalidLimits::FrameBytesBeforeSignIn);
        }
        if self.body_bytes_max.saturating_add(SEND_OVERHEAD_BYTES) > self.frame_bytes_max as usize {
            return Err(InvalidLimits::BodyBytes);
        }
        if self.idle_timeout_ms <= self.heartbeat_interval_ms {
            return Err(InvalidLimits::IdleTimeout);
        }
        if self.command_rate_per_s == 0 || self.command_burst == 0 {
            return Err(InvalidLimits::CommandRate);
        }
        Ok(())
    }
}

const _: () = {
    assert!(TOKEN_BYTES_MAX + 256 <= SIGN_IN_BYTES_MIN as usize);
    assert!(SIGN_IN_BYTES_MIN < FRAME_BYTES_MIN && FRAME_BYTES_MIN < FRAME_BYTES_CAP);
    // The rest is for the entry's own fields around what the client sent.
    assert!(FRAME_BYTES_CAP + 64 * 1024 <= SERVER_FRAME_BYTES_MAX);
    assert!(VERSIONS_TIMEOUT_MS < REQUEST_TIMEOUT_MS);
    assert!(HEARTBEATS_BURST >= HEARTBEATS_PER_S_MAX);
    assert!(PENDING_WRITES_MAX + PENDING_READS_MAX <= TIMED_OUT_REQUESTS_MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_configuration_that_works() {
        assert_eq!(SessionLimits::default().check(), Ok(()));
    }

    #[test]
    fn a_configuration_that_cannot_work_is_named() {
        let check = |change: fn(&mut SessionLimits)| {
            let mut limits = SessionLimits::default();
            change(&mut limits);
            limits.check()
        };
        assert_eq!(check(|l| l.frame_bytes_max = FRAME_BYTES_CAP + 1), Err(InvalidLimits::FrameBytes));
        assert_eq!(check(|l| l.frame_bytes_max = FRAME_BYTES_MIN - 1), Err(InvalidLimits::FrameBytes));
        assert_eq!(check(|l| l.frame_bytes_max_before_sign_in = 10), Err(InvalidLimits::FrameBytesBeforeSignIn));
        assert_eq!(check(|l| l.body_bytes_max = usize::MAX), Err(InvalidLimits::BodyBytes));
        assert_eq!(check(|l| l.idle_timeout_ms = 30_000), Err(InvalidLimits::IdleTimeout));
        assert_eq!(check(|l| l.command_rate_per_s = 0), Err(InvalidLimits::CommandRate));
    }
}
