//! Standard output.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::{Error, Result};

/// Writes text; a pipe that its reader has closed wants no more of it.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "standard output", e)),
        _ => Ok(()),
    }
}

/// Writes a document as JSON.
pub fn json(document: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(document)
        .map_err(|e| Error::input("JSON", "text and finite numbers", e.to_string()))?;
    text(&format!("{json}\n"))
}
