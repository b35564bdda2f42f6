//! The entry log on MongoDB: one document for each entry.
//!
//! In: entries with chosen seqs. Out: the same bytes, for ever. Always: two unique keys give the seq to one writer; an append
//! is a chain of ordered inserts, each begun when the one before was whole; every read and write is with majority.
//!
//! A document is `{l, s, u, i, p, o, w, t, c, b}`: log, seq, sender, client id, page of the log, "opens its page", window of
//! storing, time of storing, checksum, bytes. Reads name `l` with `p` or `o`, so that they are small by equality alone: on
//! MongoDB they run on the unique keys, and servers that speak its protocol over another engine can serve them too.
//!
//! | file | what it is |
//! |---|---|
//! | `open` | keys and settings, looked at before anything is written |
//! | `document` | an entry as a document, and back, with its checksum |
//! | `append` | ordered inserts, and what an error says of them |
//! | `times` | when the last entry of a log was stored, remembered |
//! | `window`, `clock` | when entries were stored: the order for projections, by the server's time |
//! | `entry_log` | the port |

mod append;
mod clock;
mod document;
mod entry_log;
mod open;
mod times;
mod window;

pub use entry_log::MongoEntryLog;
pub use open::{MongoError, check};

use mongodb::options::ConnectionString;
use std::fmt::{Debug, Formatter};
use std::time::Duration;

/// How to reach the database.
#[derive(Clone)]
pub struct MongoOptions {
    /// `mongodb://…`; may hold a password.
    pub url: String,
    pub database: String,
    /// No call waits longer.
    pub timeout: Duration,
    /// Ours. Where it is set anew the server is asked for its time, by which entries are found in the order of their storing.
    pub wall_clock_ms: fn() -> i64,
    /// Instead of the server's time: a test's.
    pub given_time_ms: Option<fn() -> i64>,
    /// Names of [`Finding`](crate::finding::Finding)s that are no reason to refuse.
    pub allow: Vec<String>,
}

impl MongoOptions {
    /// Whether they can be used. Asks no server.
    pub fn check(&self) -> Result<(), MongoError> {
        // The parser's words may quote the URL.
        let wrong = |_| "the URL is not mongodb://[user:password@]host:port,host:port/?option=value".to_owned();
        ConnectionString::parse(&self.url).map(drop).map_err(wrong).map_err(MongoError::Options)
    }
}

impl Debug for MongoOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoOptions").field("database", &self.database).finish_non_exhaustive()
    }
}
