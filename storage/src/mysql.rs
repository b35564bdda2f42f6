//! The directory on MySQL: who belongs to what, as rows.
//!
//! In: membership changes, read cursors, devices. Out: the same as rows, by key. Always: a change is applied whole in one
//! transaction or not at all; SQL that MySQL 8.4 and MariaDB 10.11 both understand; every call ends within
//! [`link::CALL_TIMEOUT`].
//!
//! Statements of a fixed shape are checked against the schema when this is compiled (`.sqlx/` holds what the check needs, no
//! database is asked); those whose number of rows varies are built in `bulk`.
//!
//! | file | what it is |
//! |---|---|
//! | `link` | connections: how long a call waits, what is done with one that failed, which server it is |
//! | `server` | settings that weaken what the database is for |
//! | `migrate` | the schema, version by version, up and down |
//! | `rows` | rows as values of the port |
//! | `bulk` | statements over many rows |
//! | `fold`, `apply` | membership changes: what they do to the rows, and the transaction that does it |
//! | `claims` | who may cover which shard |
//! | `directory` | the port |

mod apply;
mod bulk;
mod claims;
mod directory;
mod fold;
mod link;
pub mod migrate;
mod rows;
mod server;

pub use directory::MysqlDirectory;
pub use server::check;

use crate::finding::Finding;
use std::fmt::{Debug, Formatter};

/// How to reach the database.
#[derive(Clone)]
pub struct MysqlOptions {
    /// `mysql://user:password@host:port/database`, with `?ssl-mode=…` and the like of sqlx. Of the primary: a proxy that
    /// sends reads to copies would show what is no longer so.
    pub url: String,
    /// Of this process; a call that finds all of them busy waits for one.
    pub connections_max: u32,
    /// Names of [`Finding`]s that are no reason to refuse.
    pub allow: Vec<String>,
}

/// The URL may hold a password.
impl MysqlOptions {
    /// Whether they can be used. Asks no server.
    pub fn check(&self) -> Result<(), MysqlError> {
        link::connect_options(self).map(drop)
    }
}

impl Debug for MysqlOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { url: _, connections_max, allow } = self;
        let mut shown = f.debug_struct("MysqlOptions");
        shown.field("connections_max", connections_max).field("allow", allow).finish_non_exhaustive()
    }
}

/// Why the directory could not be opened, or the schema not changed.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    #[error("mysql: {0}")]
    Options(String),
    /// The driver's words, which do not hold the URL.
    #[error("mysql: {0}")]
    Driver(String),
    #[error("mysql: {0}; mend it, or name it in the allow list")]
    Weak(Finding),
    #[error("mysql: another one migrates this database, and was not done within {waited_seconds} s: try again later")]
    Migrating { waited_seconds: u32 },
    #[error("mysql: the schema is at version {applied} and this program needs {wanted}: run `im-server migrate up`")]
    OldSchema { applied: i64, wanted: i64 },
    #[error("mysql: the schema has version {version}, which this program does not know: run a newer program")]
    NewSchema { version: i64 },
    #[error("mysql: migration {version} was applied with other statements than this program's")]
    ChangedMigration { version: i64 },
    #[error(
        "mysql: migration {version} was not finished: mend the tables, then set or remove its row in _sqlx_migrations"
    )]
    UnfinishedMigration { version: i64 },
}

impl From<sqlx::Error> for MysqlError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error.to_string())
    }
}
