//! Cascabel: a real-time audio modelling engine built on Mamba and S4D.
pub mod audio;
pub mod error;
pub mod exec;
pub mod model;
pub mod plan;
pub use error::{Error, Result};
