//! Why the process ends, and with which exit code: one variant for each thing an operator would do about it.

use crate::config::ConfigError;
use std::process::ExitCode;

/// What a build without the distributed roles says of them.
#[cfg(not(feature = "distributed"))]
pub const STANDALONE_ONLY: &str =
    "this build serves standalone only; `cargo build --release --features distributed` makes one with all roles";

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Mend the command line or the configuration.
    #[error("{0}")]
    Usage(String),
    /// Free the port, or take another.
    #[error("{0}")]
    Listen(String),
    /// Another server has the folder, it is not writable, or a newer version wrote it.
    #[error("{0}")]
    Folder(String),
    /// Restore a backup; nothing was changed.
    #[error("{0}")]
    Damaged(String),
    /// Start or mend a service that this role depends on; `im-server doctor` looks at all of them.
    #[error("{0}")]
    Service(String),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Listen(_) => 3,
            Self::Folder(_) => 4,
            Self::Damaged(_) => 5,
            Self::Service(_) => 6,
            Self::Other(_) => 1,
        })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}
