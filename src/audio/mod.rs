//! Sound outside the model: frames and units, files, resampling.
pub mod stft;
