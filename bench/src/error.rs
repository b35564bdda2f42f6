//! Why a run did not end well.
//!
//! In: what went wrong. Out: the text and the exit code a caller sees. Always: a run that could not measure and a run
//! that measured a wrong server end with different codes.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The run could not be made: a wrong option, a server that does not start.
    #[error("{0}")]
    Setup(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// The run was made and the server broke a promise; the summary has been printed.
    #[error("the server broke its promises: {0}")]
    Violated(String),
}

impl BenchError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Violated(_) => 1,
            Self::Setup(_) | Self::Io { .. } => 2,
        }
    }
}

/// Names what was tried, for the message of an I/O error.
pub trait During<T> {
    fn during(self, what: impl Into<String>) -> Result<T, BenchError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { what: what.into(), source })
    }
}
