//! Cascabel: a real-time audio modelling engine built on Mamba and S4D.
//!
//! ```text
//! microphone, file ─► audio: Sound ─► engine: a model's plan on the real-time executor ─► audio: Sound ─► loudspeaker, file
//! recipe ─► train: examples, losses, steps there and back ─► model: one file ─► engine
//! ```
//!
//! [`audio`] reads and writes sound. [`model`] is what a file holds: a configuration, which compiles to a [`plan`], and weights. [`exec`]
//! runs plans: scalar, real-time, with gradients; [`engine`] runs a model over whole sounds ([`Processor`](engine::Processor)) or block
//! by block ([`engine::open`]). [`mod@train`] makes models. Whatever fails is one line of [`Error`].
pub mod audio;
#[cfg(feature = "cli")]
pub mod cli;
pub mod engine;
pub mod error;
pub mod exec;
pub mod guard;
pub mod model;
pub mod plan;
pub mod train;
mod wide;
pub use error::{Error, Result};

/// The README's code, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
