//! When entries were stored, as the order for projections.
//!
//! In: a shard and a time. Out: the number of a window, which is an equality that a read can name. Always: pure; the windows
//! of a log's entries never go back (the writer carries the time of the entry before), so a projection that goes by windows
//! meets the entries of a log in their order; a cursor goes back far enough that no slow write is left out.

use crate::ports::{Cursor, Shard, StoreError};
use im_proto::{LogId, Seq};

pub const WINDOW_MS: i64 = 64_000;
/// A write may land so much later than its time says, and those of two servers may differ by it.
pub const SLACK_MS: i64 = 60_000;
/// A projection that is further behind is made anew from the logs: cheaper than looking through so many windows.
pub const KEPT_MS: i64 = 3_600_000;

/// One number for shard and window.
pub fn window(shard: Shard, window: i64) -> i64 {
    window * i64::from(Shard::COUNT) + i64::from(shard.index())
}

pub fn window_at(time_ms: i64) -> i64 {
    time_ms.div_euclid(WINDOW_MS)
}

/// A place in the order of storing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Behind everything that was reported as stored at this time.
    Time(i64),
    /// Behind this entry of a window; `None`: before its first.
    In { window: i64, last: Option<(LogId, Seq)> },
}

impl Place {
    pub fn cursor(&self) -> Cursor {
        let text = match self {
            // Of one length, so that later is greater.
            Self::Time(time_ms) => format!("t{time_ms:016}"),
            Self::In { window, last: None } => format!("w{window}"),
            Self::In { window, last: Some((log, seq)) } => format!("w{window}:{log}:{seq}"),
        };
        Cursor(text.into())
    }

    pub fn read(cursor: &Cursor) -> Result<Self, StoreError> {
        let parse = || {
            let text = std::str::from_utf8(&cursor.0).ok()?;
            if let Some(time_ms) = text.strip_prefix('t') {
                return Some(Self::Time(time_ms.parse().ok()?));
            }
            let mut parts = text.strip_prefix('w')?.splitn(3, ':');
            let window = parts.next()?.parse().ok()?;
            let last = match (parts.next(), parts.next()) {
                (Some(log), Some(seq)) => Some((LogId::parse(log).ok()?, Seq(seq.parse().ok()?))),
                _ => None,
            };
            Some(Self::In { window, last })
        };
        parse().ok_or_else(|| StoreError::Damaged("a cursor of another store".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back() {
        let log = LogId::parse("dxxxxxxxxxxxxxxxxxxxxxx").unwrap();
        for place in [
            Place::Time(1_700_000_000_000),
            Place::In { window: 7, last: None },
            Place::In { window: 7, last: Some((log, Seq(9))) },
        ] {
            assert_eq!(Place::read(&place.cursor()).unwrap(), place);
        }
        assert!(Place::read(&Cursor("x".into())).is_err());
    }

    #[test]
    fn no_two_shards_or_windows_have_the_same_number() {
        let mut numbers: Vec<i64> = (0..3).flat_map(|at| Shard::all().map(move |shard| window(shard, at))).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 3 * usize::from(Shard::COUNT));
    }
}
