//! The one error type of the library.
//!
//! Every message is one line that says what was attempted, what was expected and what came. Words of a damaged file are quoted with
//! their control characters escaped and their length bounded, so that they can neither break the line nor steer a terminal.

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
        Self::Input { what: quoted(what.into()), expected: quoted(expected.into()), got: quoted(got.into()) }
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

/// The most characters quoted of one part of a message.
const LONGEST: usize = 500;

/// Text as it may stand in a message. Quoting twice changes nothing more.
fn quoted(text: String) -> String {
    let mut escaped = String::new();
    for c in text.chars().take(LONGEST + 2) {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    match escaped.char_indices().nth(LONGEST) {
        Some((end, _)) if &escaped[end..] != "…" => format!("{}…", &escaped[..end]),
        _ => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line_whatever_it_quotes() {
        let error = Error::input("field a\nb", "\u{1b}[2Jplain", "é".repeat(600));
        let text = error.to_string();
        assert_eq!(text, format!("field a\\nb: expected \\u{{1b}}[2Jplain, got {}…", "é".repeat(500)));
        let Error::Input { what, expected, got } = error else { unreachable!() };
        assert_eq!(Error::input(what, expected, got).to_string(), text, "quoting twice");
        assert_eq!(Error::input("a", "é", "…").to_string(), "a: expected é, got …");
    }
}
