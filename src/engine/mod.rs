//! The engine: whole sounds through a model, and the models that come with the program.
//!
//! ```text
//! Sound ─► resample ─► channels as streams of one executor ─► drop the latency ─► resample back ─► mix ─► Sound
//! ```
//!
//! [`process`] runs a filter over a sound; [`bundled`] opens the models that are compiled in.
//!
//! ```
//! use cascabel::audio::{SampleRate, Sound};
//! use cascabel::engine::{ProcessOptions, Processor};
//! use cascabel::model::{Card, Config, Model};
//! use cascabel::plan::Weights;
//! let config: Config = serde_json::from_str(
//!     r#"{"kind": "filter", "rate": 16000, "hop": 16, "window": 64, "basis_window": 64,
//!         "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 4}}]}"#).unwrap();
//! let weights = Weights::random(&config.plan()?, 1);
//! let model = Model::new(config, weights, Card::default())?;
//!
//! let noisy = Sound::new(SampleRate::new(44_100)?, vec![vec![0.1; 5_000]; 2])?;
//! let clean = Processor::open(&model, ProcessOptions::default())?.process(&noisy)?;
//! assert_eq!((clean.rate(), clean.frames(), clean.channel_count()), (noisy.rate(), 5_000, 2));
//! # Ok::<(), cascabel::Error>(())
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

pub mod bundled;
pub mod process;

pub use process::{ProcessOptions, Processor, Stereo};
