//! What tokens are to the verbs: sounds in mu-law, and a tokenizer's file.

use std::path::{Path, PathBuf};

use crate::audio::mu_law::{LEVELS, encode};
use crate::audio::{SampleRate, read_path, resample};
use crate::model::GeneratorConfig;
use crate::{Error, Result};

/// Refuses a generator of other tokens than mu-law's.
pub fn of_mu_law(config: &GeneratorConfig) -> Result<()> {
    if config.vocabulary == LEVELS {
        return Ok(());
    }
    let got = format!("one of {} tokens", config.vocabulary);
    Err(Error::input("model", format!("a generator of mu-law's {LEVELS} tokens"), got))
}

/// A sound as a model of this rate hears it, the mean of its channels, resampled; and its own rate.
pub fn heard(path: &Path, rate: SampleRate) -> Result<(Vec<u32>, SampleRate)> {
    let sound = read_path(path)?;
    let tokens = resample(&sound, rate)?.middle().into_iter().map(encode).collect();
    Ok((tokens, sound.rate()))
}

/// Where a model's own tokenizer lies: mamba.tokenizer.json of mamba.safetensors.
pub fn tokenizer_of(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{}.tokenizer.json", name.strip_suffix(".safetensors").unwrap_or(&name)))
}
