//! A model by name or by path.

use std::path::Path;

use crate::engine::bundled;
use crate::model::{GeneratorConfig, Model};
use crate::{Error, Result};

/// A model, and the hash of its file.
pub struct Named {
    /// The model.
    pub model: Model,
    /// BLAKE3 of the file's bytes.
    pub hash: blake3::Hash,
    /// Bytes of the file.
    pub file_len: usize,
}

/// Opens a bundled model by its name, or else a model file by its path.
pub fn open(name: &str) -> Result<Named> {
    if let Some(bytes) = bundled::bytes(name) {
        return from_bytes(bytes, name);
    }
    let path = Path::new(name);
    if !path.exists() {
        let known = bundled::names().collect::<Vec<_>>().join(", ");
        return Err(Error::input(
            format!("model {name}"),
            format!("{known} or a model file"),
            "no such file",
        ));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io("read model", path, e))?;
    from_bytes(&bytes, name)
}

fn from_bytes(bytes: &[u8], name: &str) -> Result<Named> {
    Ok(Named { model: Model::from_bytes(bytes, name)?, hash: blake3::hash(bytes), file_len: bytes.len() })
}

/// The number of a class that a generator knows.
pub fn class(config: &GeneratorConfig, name: &str) -> Result<usize> {
    let known = || match config.classes.as_slice() {
        [] => "no class: this model has none".into(),
        classes => format!("one of {}", classes.join(", ")),
    };
    let found = config.classes.iter().position(|class| class == name);
    found.ok_or_else(|| Error::input("--class", known(), name))
}
