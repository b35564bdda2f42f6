//! The id by which one command is found again at every hop.
//!
//! In: 16 bytes of a client, or two numbers of a gateway. Out: the same for records, deliveries, log lines, and as a W3C
//! `traceparent` for tools that are not ours. Always: never zero; says nothing of the user.

use crate::internal;
use std::fmt;
use std::num::NonZeroU128;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// `00-<trace>-<parent>-<flags>`.
const TRACEPARENT_BYTES: usize = 55;

impl TraceId {
    /// `None`: zero, which W3C forbids.
    pub const fn from_halves(high: u64, low: u64) -> Option<Self> {
        match NonZeroU128::new((high as u128) << 64 | low as u128) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// `None`: not 16 bytes, or all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        NonZeroU128::new(u128::from_be_bytes(bytes)).map(Self)
    }

    pub fn from_wire(trace: Option<internal::Trace>) -> Option<Self> {
        trace.and_then(|internal::Trace { high, low }| Self::from_halves(high, low))
    }

    pub fn to_wire(self) -> internal::Trace {
        internal::Trace { high: (self.0.get() >> 64) as u64, low: self.0.get() as u64 }
    }

    /// As a header of that name. Hops of ours have no span ids of their own: the second half stands in for one.
    pub fn traceparent(self) -> String {
        let parent = (self.0.get() as u64).max(1);
        format!("00-{self}-{parent:016x}-01")
    }

    pub fn from_traceparent(text: &[u8]) -> Option<Self> {
        let hex = std::str::from_utf8(text).ok().filter(|text| text.len() == TRACEPARENT_BYTES)?.get(3..35)?;
        u128::from_str_radix(hex, 16).ok().and_then(NonZeroU128::new).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_the_same_in_every_form() {
        let id = TraceId::from_halves(0x0af7_6519_16cd_43dd, 0x8448_eb21_1c80_319c).unwrap();
        assert_eq!(id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(id.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01");
        assert_eq!(TraceId::from_traceparent(id.traceparent().as_bytes()), Some(id));
        assert_eq!(TraceId::from_wire(Some(id.to_wire())), Some(id));
        let bytes = [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
        assert_eq!(TraceId::from_bytes(&bytes), Some(id));
    }

    #[test]
    fn what_is_no_trace_id_is_none() {
        assert_eq!(TraceId::from_bytes(&[0; 16]), None);
        assert_eq!(TraceId::from_bytes(&[1; 15]), None);
        assert_eq!(TraceId::from_bytes(b""), None);
        for text in ["", "00-0af7651916cd43dd8448eb211c80319c-1-01", &"x".repeat(TRACEPARENT_BYTES), &"ü".repeat(28)] {
            assert_eq!(TraceId::from_traceparent(text.as_bytes()), None, "{text}");
        }
    }
}
