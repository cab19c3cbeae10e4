//! The one error type of the library.
//!
//! Every message is one line that says what was attempted, what was expected and what came.

use std::path::PathBuf;

/// What can go wrong outside the real-time path. After `open`, nothing does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {attempt} {path}: {source}", path = path.display())]
    Io {
        /// What was attempted, as a verb: `open`, `write`, `rename`.
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Input from outside (sound, model, recipe, option) is not what it must be.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// The thing at fault, with its name or path.
        what: String,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// The caller asked for something that this build or machine does not have.
    #[error("{what} is not available: {why}")]
    Unavailable {
        /// The thing asked for.
        what: String,
        /// The reason, and what would help.
        why: String,
    },
    /// Training or another long job was stopped on request; what was finished is kept.
    #[error("stopped on request: {0}")]
    Stopped(String),
    /// The tensor library used in training failed.
    #[error("training: {0}")]
    Train(String),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A wrong input: what is at fault, what was expected, what came.
    pub fn input(what: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Input { what: what.into(), expected: expected.into(), got: got.into() }
    }

    /// A failed file operation: the verb, the path, the system's error.
    pub fn io(attempt: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { attempt, path: path.into(), source }
    }

    /// Whether the same call may succeed later without a change of input.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), std::io::ErrorKind::Interrupted | std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::StorageFull))
    }
}
