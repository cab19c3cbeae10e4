//! Standard output.

use std::io::Write;

use serde::Serialize;

use crate::{Error, Result};

/// Writes text; a pipe that closes is an error, not a panic.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("write", "standard output", e))
}

/// Writes a document as JSON.
pub fn json(document: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(document)
        .map_err(|e| Error::input("JSON", "text and finite numbers", e.to_string()))?;
    text(&format!("{json}\n"))
}
