//! Tells a silent server from a dead one.
//!
//! In: the times of sign-in, of bytes heard, and now. Out: when to write a heartbeat, and when to give the link up. Always:
//! one heartbeat per interval whatever else is written, because its answer also tells of lost pushes.

#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// 0: not signed in.
    interval_ms: u64,
    idle_timeout_ms: u64,
    next_ms: u64,
    heard_ms: u64,
}

/// If the server names none.
const INTERVAL_FALLBACK_MS: u32 = 30_000;

impl Heartbeat {
    pub fn start(&mut self, interval_ms: u32, idle_timeout_ms: u32, now_ms: u64) {
        let interval_ms = if interval_ms == 0 { INTERVAL_FALLBACK_MS } else { interval_ms };
        self.interval_ms = interval_ms.into();
        // A time-out below two intervals would end healthy links.
        self.idle_timeout_ms = u64::from(idle_timeout_ms).max(2 * self.interval_ms);
        self.next_ms = now_ms + self.interval_ms;
        self.heard_ms = now_ms;
    }

    pub fn stop(&mut self) {
        self.interval_ms = 0;
    }

    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    pub fn is_dead(&self, now_ms: u64) -> bool {
        self.interval_ms != 0 && now_ms >= self.heard_ms + self.idle_timeout_ms
    }

    /// True once per interval.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        if self.interval_ms == 0 || now_ms < self.next_ms {
            return false;
        }
        self.next_ms = now_ms + self.interval_ms;
        true
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        (self.interval_ms != 0).then(|| self.next_ms.min(self.heard_ms + self.idle_timeout_ms))
    }
}
