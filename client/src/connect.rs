//! The life of the link: dial, sign in, wait, dial again, or stay away.
//!
//! In: what the transport reports, close codes, the app's wishes. Out: requests to the transport and when the next attempt
//! is due. Always: after a code of 4500 or above, and after an expired token, nothing is dialled until the app has mended
//! the cause.

use crate::backoff::RECONNECT;
use crate::event::Cause;
use im_proto::client::{CloseCode, kicked};
use rand::rngs::SmallRng;

/// What the transport has to do. After `Close` nothing of the old stream may be fed to the core any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkAction {
    Close,
    Connect,
}

/// Opening the stream may take this long.
const DIAL_TIMEOUT_MS: u64 = 10_000;

/// Codes from here on do not reconnect.
const FINAL_CLOSE_CODES: i32 = 4500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Until the app says `connect` or brings a token.
    Stopped,
    Waiting {
        until_ms: u64,
    },
    Dialing {
        deadline_ms: u64,
    },
    SigningIn,
    Up,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub phase: Phase,
    /// Since the client started.
    dials: u64,
    /// Links in a row that ended before they were of use.
    failures: u32,
    /// What a `Kicked` announced, for a link that ends without `Closing`.
    kicked: Option<CloseCode>,
    close: bool,
    connect: bool,
}

/// What follows from the end of a link.
pub(crate) struct Ended {
    pub reconnect_after_ms: Option<u64>,
    pub needs_token: bool,
    pub cause: Cause,
}

impl Link {
    pub fn new() -> Self {
        Self { phase: Phase::Stopped, dials: 0, failures: 0, kicked: None, close: false, connect: false }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::SigningIn | Phase::Up)
    }

    pub fn dial(&mut self, now_ms: u64) {
        self.phase = Phase::Dialing { deadline_ms: now_ms + DIAL_TIMEOUT_MS };
        self.connect = true;
        self.dials += 1;
    }

    pub fn dials(&self) -> u64 {
        self.dials
    }

    pub fn poll_action(&mut self) -> Option<LinkAction> {
        if std::mem::take(&mut self.close) {
            return Some(LinkAction::Close);
        }
        std::mem::take(&mut self.connect).then_some(LinkAction::Connect)
    }

    /// The link was of use: the next failure is the first again.
    pub fn proved(&mut self) {
        self.failures = 0;
    }

    pub fn kicked(&mut self, reason: kicked::Reason) {
        self.kicked = match reason {
            kicked::Reason::Replaced => Some(CloseCode::ReplacedByNewer),
            kicked::Reason::Banned => Some(CloseCode::UserBanned),
            // Also a reason this client does not know.
            kicked::Reason::SignedOut | kicked::Reason::Unspecified => Some(CloseCode::SignedOutRemotely),
        };
    }

    /// Ends the link and decides what comes next.
    pub fn end(&mut self, cause: Cause, at_least_ms: u32, now_ms: u64, rng: &mut SmallRng) -> Ended {
        let cause = match (cause, self.kicked.take()) {
            (Cause::Lost, Some(code)) => Cause::Closed { code: code.into() },
            (cause, _) => cause,
        };
        self.close = true;
        self.connect = false;
        let needs_token = cause == Cause::Closed { code: CloseCode::TokenExpired.into() };
        let stays_away = match cause {
            Cause::Closed { code } => code >= FINAL_CLOSE_CODES || needs_token,
            Cause::WrongUser | Cause::Asked => true,
            Cause::Lost | Cause::Silent | Cause::BadFrame => false,
        };
        if stays_away {
            self.phase = Phase::Stopped;
            self.failures = 0;
            return Ended { reconnect_after_ms: None, needs_token, cause };
        }
        let delay_ms = RECONNECT.delay_ms(self.failures, at_least_ms, rng);
        self.failures += 1;
        self.phase = Phase::Waiting { until_ms: now_ms + delay_ms };
        Ended { reconnect_after_ms: Some(delay_ms), needs_token: false, cause }
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { until_ms } => Some(until_ms),
            Phase::Dialing { deadline_ms } => Some(deadline_ms),
            Phase::Stopped | Phase::SigningIn | Phase::Up => None,
        }
    }
}
