//! Why a command or request is not done, as the client will be told.
//!
//! In: a rule that was broken. Out: the wire's `Error`. Always: the class follows from the code, so the same code never
//! asks for two different reactions; the detail is for a developer and holds nothing of the command's content.

use im_proto::client::{self, ErrorClass, ErrorCode};
use im_storage::ports::StoreError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    pub retry_after_ms: u32,
    pub detail: &'static str,
}

impl Refusal {
    pub(crate) const NOT_ALLOWED: Self =
        Self::plain(ErrorCode::NotAllowed, "no such conversation, or not for this user");
    pub(crate) const CONFLICT: Self = Self::plain(ErrorCode::Conflict, "this id was used with other content");
    pub(crate) const OTHER_EPOCH: Self = Self::plain(ErrorCode::Reset, "the cursor is of another epoch");
    pub(crate) const ABOVE_HEAD: Self = Self::plain(ErrorCode::Reset, "the cursor is above the head");
    pub(crate) const FOREIGN_TOKEN: Self = Self::plain(ErrorCode::Reset, "the token is of another history");
    pub(crate) const UNKNOWN_COMMAND: Self = Self::plain(ErrorCode::UnknownCommand, "unknown command");
    /// `after` may just be on its way through another connection: try again at once, but not in a tight loop.
    pub(crate) const OUT_OF_ORDER: Self =
        Self { code: ErrorCode::OutOfOrder, retry_after_ms: 50, detail: "the send named by `after` is not stored" };
    pub(crate) const UNAVAILABLE: Self =
        Self { code: ErrorCode::Unavailable, retry_after_ms: 500, detail: "a store is away" };
    pub(crate) const TOO_OLD: Self =
        Self { code: ErrorCode::Unavailable, retry_after_ms: 0, detail: "the command waited too long" };
    /// The queue repeats it, and it was refused then: it must not be stored now, whatever has changed.
    pub(crate) const DECIDED_BEFORE: Self =
        Self { code: ErrorCode::Unavailable, retry_after_ms: 200, detail: "the command was decided before" };
    /// It was set aside: the same command again would be too.
    pub(crate) const UNREADABLE: Self =
        Self::plain(ErrorCode::InvalidArgument, "the command cannot be read by this server");
    pub(crate) const OVERLOAD: Self =
        Self { code: ErrorCode::Overload, retry_after_ms: 500, detail: "too many requests at once" };

    const fn plain(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, retry_after_ms: 0, detail }
    }

    pub(crate) const fn invalid(detail: &'static str) -> Self {
        Self::plain(ErrorCode::InvalidArgument, detail)
    }

    pub(crate) const fn too_large(detail: &'static str) -> Self {
        Self::plain(ErrorCode::TooLarge, detail)
    }

    pub(crate) const fn rate_limited(retry_after_ms: u32) -> Self {
        Self { code: ErrorCode::RateLimited, retry_after_ms, detail: "too many commands of this user" }
    }

    pub fn class(&self) -> ErrorClass {
        match self.code {
            ErrorCode::OutOfOrder | ErrorCode::Unavailable => ErrorClass::Retry,
            ErrorCode::RateLimited | ErrorCode::Overload => ErrorClass::Busy,
            ErrorCode::TimedOut => ErrorClass::Unknown,
            ErrorCode::Unspecified
            | ErrorCode::InvalidArgument
            | ErrorCode::NotAllowed
            | ErrorCode::Conflict
            | ErrorCode::TooLarge
            | ErrorCode::Reset
            | ErrorCode::UnknownCommand => ErrorClass::Final,
        }
    }

    pub(crate) fn to_wire(&self) -> client::Error {
        client::Error {
            class: self.class() as i32,
            code: self.code as i32,
            retry_after_ms: self.retry_after_ms,
            detail: self.detail.to_owned(),
        }
    }
}

/// Why a request got no answer: a rule, or a store.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
