//! Sound outside the model: units, sounds in memory, files in and out, resampling, devices.
//!
//! ```text
//! file, pipe ─► read ─► Sound ─► resample ─► (the model) ─► resample ─► Sound ─► write ─► file, pipe
//!               any format      to the model's rate          and back          WAV, whole or not at all
//! ```
//!
//! Whatever comes from outside is checked here, once: a [`Sound`] has 1 to 26 channels of one length, at least one
//! frame, a credible rate and only finite samples. All else is one line of [`Error`](crate::Error).
//!
//! ```
//! use cascabel::audio::{SampleRate, Sound, WavDepth, read_bytes, resample, resample_to_length, write_stream};
//! let tone = (0..4_410).map(|n| (n as f32 * 0.05).sin()).collect();
//! let heard = Sound::new(SampleRate::new(44_100)?, vec![tone])?;
//! let model_rate = SampleRate::new(16_000)?;
//!
//! let inside = resample(&heard, model_rate)?; // 1,600 frames, aligned with what was heard
//! let outside = resample_to_length(&inside, heard.rate(), heard.frames())?;
//!
//! let mut file = Vec::new();
//! write_stream(&mut file, "memory", &outside, WavDepth::Int16)?;
//! assert_eq!(read_bytes(file, "memory")?.frames(), 4_410);
//! # Ok::<(), cascabel::Error>(())
//! ```

mod atomic;
mod converter;
mod decode;
pub mod device;
pub mod mu_law;
mod read;
mod recorder;
mod resample;
mod sound;
pub mod stft;
mod units;
mod write;

pub use atomic::{could_be_folder, write_whole};
pub use converter::Converter;
pub use read::{read_bytes, read_middle, read_path, read_stream};
pub use recorder::Recorder;
pub(crate) use resample::gcd;
pub use resample::{resample, resample_delay, resample_to_length};
pub use sound::Sound;
pub use units::SampleRate;
pub use write::{WavDepth, WavStream, Written, name_of_wav, write_path, write_stream};
