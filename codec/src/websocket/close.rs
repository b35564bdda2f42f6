//! Close frames: a code and a reason.
//!
//! In: the payload of a close frame, or a code to send. Out: the other. Always: a code that may not stand in a frame is
//! refused when read and never written.

use super::decoder::Violation;
use bytes::Bytes;

pub const NORMAL: u16 = 1000;
pub const PROTOCOL_ERROR: u16 = 1002;
/// Text where this server takes binary alone.
pub const UNSUPPORTED_DATA: u16 = 1003;
pub const NOT_UTF8: u16 = 1007;
pub const TOO_BIG: u16 = 1009;

/// What a close frame says. An empty one says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseFrame {
    pub code: Option<u16>,
    /// UTF-8.
    pub reason: Bytes,
}

impl CloseFrame {
    pub fn read(payload: &Bytes) -> Result<Self, Violation> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            let is_empty = payload.is_empty();
            return if is_empty { Ok(Self::default()) } else { Err(Violation::Protocol("a close code of one byte")) };
        };
        let code = u16::from_be_bytes(*code);
        if !may_be_sent(code) {
            return Err(Violation::Protocol("a close code that no frame may carry"));
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(Violation::NotUtf8);
        }
        Ok(Self { code: Some(code), reason: payload.slice(2..) })
    }
}

/// The payload of a close frame without a reason; empty for `None`.
pub fn payload(code: Option<u16>) -> Vec<u8> {
    debug_assert!(code.is_none_or(may_be_sent));
    code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec())
}

/// The codes of the RFC and its registry, of libraries and of applications. 1004 to 1006 and 1015 never stand in a frame.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_judged() {
        let read = |payload: &[u8]| CloseFrame::read(&Bytes::copy_from_slice(payload));
        assert_eq!(read(b""), Ok(CloseFrame::default()));
        assert_eq!(read(b"\x03"), Err(Violation::Protocol("a close code of one byte")));
        let frame = read(b"\x0f\xa0bye").unwrap();
        assert_eq!((frame.code, &frame.reason[..]), (Some(4000), &b"bye"[..]));
        assert_eq!(read(b"\x03\xe8\xff"), Err(Violation::NotUtf8));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(read(&code.to_be_bytes()).is_err(), "{code}");
        }
        for code in [1000u16, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(read(&code.to_be_bytes()).is_ok(), "{code}");
        }
    }
}
