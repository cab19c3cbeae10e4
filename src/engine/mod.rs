//! The engine: whole sounds through a model, and the models that come with the program.
//!
//! ```text
//! Sound ─► resample ─► channels as streams of one executor ─► drop the latency ─► resample back ─► mix ─► Sound
//! ```
//!
//! [`process`] runs a filter over a sound; [`open`] gives the executor for sound that comes block by block; [`bundled`] opens the
//! models that are compiled in.
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
pub mod generator;
pub mod live;
pub mod process;

pub use generator::{Generator, GeneratorOptions, Spot};
pub use process::{ProcessOptions, Processor, Stereo};

use crate::Result;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Limits, State};
use crate::model::Model;

/// Opens the real-time executor of a model. Every stream begins, and after a `reset` begins again, in the model's settled state if its
/// file has one, else in zeros.
///
/// All memory is allocated here, and the weights are packed; `advance` and `reset` then allocate nothing. A filter's output lags by
/// [`Model::latency`] frames.
///
/// ```
/// use cascabel::engine::{self, bundled};
/// use cascabel::exec::{Executor, Feed, Limits, Rows};
/// let model = bundled::open(bundled::DEFAULT)?;
/// let mut cpu = engine::open(&model, Limits { max_rows: 64, max_streams: 1 })?;
/// let (block, mut clean) = ([0.1; 64], [0.0; 64]);
/// cpu.advance(&[Feed { stream: 0, rows: 64 }], Rows::Samples(&block), &mut clean)?;
/// cpu.reset(0);
/// # assert_eq!(cpu.position(0), 0);
/// # Ok::<(), cascabel::Error>(())
/// ```
pub fn open(model: &Model, limits: Limits) -> Result<Cpu> {
    let mut cpu = Cpu::open(&model.plan, &model.weights, limits);
    if let Some(slots) = &model.settled {
        cpu.set_initial(&State::new(&model.plan, 0, slots.clone())?)?;
    }
    Ok(cpu)
}
