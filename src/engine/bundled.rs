//! Models compiled into the program. Their cards and figures are in `models/README.md`.
//!
//! ```
//! let model = cascabel::engine::bundled::open(cascabel::engine::bundled::DEFAULT)?;
//! assert_eq!(model.config.kind(), "filter");
//! let digits = cascabel::engine::bundled::open("digits")?;
//! assert_eq!(digits.config.kind(), "generator");
//! assert_eq!(cascabel::engine::bundled::names().collect::<Vec<_>>(), ["denoise", "digits", "music"]);
//! # Ok::<(), cascabel::Error>(())
//! ```

use crate::model::Model;
use crate::{Error, Result};

/// The filter that is used when none is named.
pub const DEFAULT: &str = "denoise";

/// Every bundled model: its name and its file.
const FILES: [(&str, &[u8]); 3] = [
    (DEFAULT, include_bytes!("../../models/denoise.safetensors")),
    ("digits", include_bytes!("../../models/digits.safetensors")),
    ("music", include_bytes!("../../models/music.safetensors")),
];

/// The names of the bundled models.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The file of the bundled model of this name.
pub fn bytes(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// The bundled model of this name.
pub fn open(name: &str) -> Result<Model> {
    let known = || names().collect::<Vec<_>>().join(", ");
    let bytes = bytes(name).ok_or_else(|| Error::input("bundled model", known(), name))?;
    Model::from_bytes(bytes, name)
}
