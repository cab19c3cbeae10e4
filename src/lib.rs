//! Cascabel: a real-time audio modelling engine built on Mamba and S4D.
pub mod audio;
pub mod error;
pub use error::{Error, Result};
