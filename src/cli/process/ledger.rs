//! Which files of an output folder are done: `.cascabel.json` beside them.
//!
//! ```text
//! {"schema": 1, "done": {"speech.wav": {"key": "…", "output": "…"}}}
//! ```
//!
//! `key` is the BLAKE3 hash of the input's bytes, the model file's hash and the options; `output` that of the file written. A
//! file is skipped where both still hold. The ledger is written whole, at most once a second and at the end; what it missed is
//! only done again. One that cannot be read counts as empty.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::audio::write_whole;
use crate::{Error, Result};

const NAME: &str = ".cascabel.json";
const SCHEMA: u32 = 1;
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u32,
    done: BTreeMap<String, Entry>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: String,
    output: String,
}

/// The ledger of one folder, shared by the threads of a run.
pub struct Ledger {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    document: Document,
    saved: Instant,
    changed: bool,
}

impl Ledger {
    /// The ledger of a folder; empty if there is none that can be read.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let document = known
            .filter(|document: &Document| document.schema == SCHEMA)
            .unwrap_or(Document { schema: SCHEMA, done: BTreeMap::new() });
        let inner = Inner { document, saved: Instant::now(), changed: false };
        Self { path, inner: Mutex::new(inner) }
    }

    /// Whether `output` was made from this key and is still what was written.
    pub fn has(&self, output: &Path, key: &str) -> bool {
        let entry = self.lock().document.done.get(&name(output)).cloned();
        entry
            .is_some_and(|entry| entry.key == key && hash_file(output).is_ok_and(|hash| hash == entry.output))
    }

    /// Notes that `output` has been made from this key.
    pub fn add(&self, output: &Path, key: &str) -> Result<()> {
        let entry = Entry { key: key.into(), output: hash_file(output)? };
        let mut inner = self.lock();
        inner.changed |= inner.document.done.insert(name(output), entry.clone()) != Some(entry);
        if inner.saved.elapsed() > INTERVAL { self.write(&mut inner) } else { Ok(()) }
    }

    /// Writes what has been noted.
    pub fn save(&self) -> Result<()> {
        let mut inner = self.lock();
        if inner.changed { self.write(&mut inner) } else { Ok(()) }
    }

    fn write(&self, inner: &mut Inner) -> Result<()> {
        let json = serde_json::to_vec_pretty(&inner.document)
            .map_err(|e| Error::input("ledger", "a JSON document", e.to_string()))?;
        write_whole(&self.path, |out| out.write_all(&json).map_err(|e| Error::io("write", &self.path, e)))?;
        (inner.saved, inner.changed) = (Instant::now(), false);
        Ok(())
    }

    /// A thread that panicked left a whole document: every change is one insertion.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of an output: what it was made from.
pub fn key(input: &Path, model: &blake3::Hash, options: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(hash_file(input)?.as_bytes()).update(model.as_bytes()).update(options.as_bytes());
    Ok(hasher.finalize().to_string())
}

fn hash_file(path: &Path) -> Result<String> {
    let wrong = |e| Error::io("read", path, e);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(wrong)?).map_err(wrong)?;
    Ok(hasher.finalize().to_string())
}

fn name(output: &Path) -> String {
    output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_done_while_input_model_options_and_output_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("a.flac"), folder.path().join("a.wav"));
        std::fs::write(&input, b"in").unwrap();
        std::fs::write(&output, b"out").unwrap();
        let (model, other) = (blake3::hash(b"m"), blake3::hash(b"n"));
        let made = key(&input, &model, "mix 1").unwrap();
        let ledger = Ledger::open(folder.path());
        assert!(!ledger.has(&output, &made));
        ledger.add(&output, &made).unwrap();
        ledger.save().unwrap();

        let again = Ledger::open(folder.path());
        assert!(again.has(&output, &made));
        assert!(!again.has(&output, &key(&input, &other, "mix 1").unwrap()));
        assert!(!again.has(&output, &key(&input, &model, "mix 0").unwrap()));
        std::fs::write(&input, b"new").unwrap();
        assert!(!again.has(&output, &key(&input, &model, "mix 1").unwrap()));
        std::fs::write(&output, b"edited").unwrap();
        assert!(!again.has(&output, &made));

        std::fs::write(folder.path().join(NAME), b"{").unwrap();
        assert!(!Ledger::open(folder.path()).has(&output, &made));
    }
}
