//! What can be wrong with what a peer sent, and what follows from it.
//!
//! In: nothing. Out: small enums, one per consequence. Always: a [`FrameError`] ends the connection, a [`Refused`] answers
//! one command and the connection goes on.

use crate::limits::{BUSY_RECONNECT_MS, DRAIN_RECONNECT_MS};
use im_proto::client::{CloseCode, ErrorCode};

/// The bytes are no stream of frames. Nothing that follows can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame length that is not a plain varint of 32 bits")]
    BadLength,
    #[error("a frame of {length} bytes; at most {frame_bytes_max} are taken")]
    TooLarge { length: u32, frame_bytes_max: u32 },
}

/// One command is answered with an error of class FINAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub code: ErrorCode,
    /// For a developer's eyes.
    pub detail: &'static str,
}

impl Refused {
    pub const fn invalid(detail: &'static str) -> Self {
        Self { code: ErrorCode::InvalidArgument, detail }
    }

    pub const fn too_large(detail: &'static str) -> Self {
        Self { code: ErrorCode::TooLarge, detail }
    }
}

/// Why the server ends a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    pub code: CloseCode,
    pub reconnect_after_ms: u32,
    pub detail: String,
}

impl CloseReason {
    /// With the code's usual delay before a reconnect.
    pub fn new(code: CloseCode, detail: impl Into<String>) -> Self {
        let reconnect_after_ms = match code {
            CloseCode::Overloaded | CloseCode::SlowConsumer => BUSY_RECONNECT_MS,
            CloseCode::GoingAway | CloseCode::Internal => DRAIN_RECONNECT_MS,
            _ => 0,
        };
        Self { code, reconnect_after_ms, detail: detail.into() }
    }
}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::BadLength => CloseCode::ProtocolError,
            FrameError::TooLarge { .. } => CloseCode::FrameTooLarge,
        };
        Self::new(code, error.to_string())
    }
}
