//! A run's log: JSON lines, an [`Event`] each.
//!
//! A run that was killed has told of steps that its checkpoint does not know, and perhaps half a line. When it goes on, those steps
//! are taken again, and what was told of them is dropped: each step stands in the log once.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Deserialize;

use super::run::Event;
use crate::audio::write_whole;
use crate::{Error, Result};

/// Adds an event.
pub fn add(path: &Path, event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).map_err(|e| Error::Train(e.to_string()))?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
    log.and_then(|mut log| writeln!(log, "{line}")).map_err(|e| Error::io("write", path, e))
}

/// Drops what came after the checkpoint that was written when `steps` steps had been taken.
pub fn keep_until(path: &Path, steps: u64) -> Result<()> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let kept = text.lines().filter(|line| stays(line, steps)).flat_map(|line| [line, "\n"]);
    let kept: String = kept.collect();
    if kept.as_bytes() == bytes {
        return Ok(());
    }
    write_whole(path, |to| to.write_all(kept.as_bytes()).map_err(|e| Error::io("write", path, e)))
}

/// What of a line says where it belongs.
#[derive(Deserialize)]
struct Line {
    event: String,
    step: Option<u64>,
}

/// Whether a line is whole and tells of nothing later. Steps are numbered from 0; all else counts the steps taken.
fn stays(line: &str, steps: u64) -> bool {
    serde_json::from_str::<Line>(line).is_ok_and(|line| match (line.event.as_str(), line.step) {
        ("step", Some(step)) => step < steps,
        (_, Some(step)) => step <= steps,
        (_, None) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_checkpoint_goes_and_the_rest_stays_as_it_was() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|e| Error::io("create", "folder", e))?;
        let path = folder.path().join("log");
        keep_until(&path, 2)?;
        assert!(!path.exists());
        let line =
            |event: &str, step: u64| format!("{{\"event\":\"{event}\",\"step\":{step},\"loss\":null}}\n");
        let kept = [
            "{\"event\":\"data\"}\n".into(),
            line("step", 0),
            line("step", 1),
            line("valid", 2),
            line("saved", 2),
        ];
        let dropped = [line("step", 2), line("valid", 3), "{\"event\":\"step\",\"st".into()];
        let write = |text: String| std::fs::write(&path, text).map_err(|e| Error::io("write", &path, e));
        write(kept.concat() + &dropped.concat())?;
        keep_until(&path, 2)?;
        let read = || std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e));
        assert_eq!(read()?, kept.concat());
        add(&path, &Event::Saved { step: 3 })?;
        assert_eq!(read()?, kept.concat() + "{\"event\":\"saved\",\"step\":3}\n");
        Ok(())
    }
}
