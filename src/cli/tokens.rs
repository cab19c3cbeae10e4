//! What tokens are to the verbs: sounds in mu-law, and a tokenizer's file.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::audio::mu_law::encode;
use crate::audio::{SampleRate, read_middle};

/// A sound as a model of this rate hears it; and its own rate.
pub fn heard(path: &Path, rate: SampleRate) -> Result<(Vec<u32>, SampleRate)> {
    let (samples, own) = read_middle(path, rate)?;
    Ok((samples.into_iter().map(encode).collect(), own))
}

/// Where a model's own tokenizer lies: mamba.tokenizer.json of mamba.safetensors.
pub fn tokenizer_of(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{}.tokenizer.json", name.strip_suffix(".safetensors").unwrap_or(&name)))
}
