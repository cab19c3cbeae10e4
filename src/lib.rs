//! Cascabel: a real-time audio modelling engine built on Mamba and S4D.
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
pub use error::{Error, Result};
