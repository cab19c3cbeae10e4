//! Models: a configuration, the plan it compiles to, its weights and the file that holds them.
//!
//! ```text
//! recipe (TOML) ─┐                       ┌─► filter    samples → samples
//!                ├─► Config ─► plan() ───┼─► generator mu-law tokens → logits
//! model file ────┘     │                 └─► language  tokens → logits
//!                      │
//!   .safetensors ◄──► Model { config, plan, weights, card, settled state } ◄── import (Mamba checkpoints)
//! ```
//!
//! [`config`] says what a model is and [`mixer`] what mixes its rows, [`blocks`] and [`backbone`] build its residual blocks and tiers, [`filter`], [`generator`]
//! and [`language`] put input and output around them, [`file`](mod@file) reads and writes the model file, [`mod@import`] reads published checkpoints.
//!
//! ```
//! use cascabel::model::Config;
//! let config: Config = serde_json::from_str(
//!     r#"{"kind": "filter", "rate": 16000, "hop": 16, "window": 96, "basis_window": 64,
//!         "tiers": [{"d_model": 32, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 8}},
//!                   {"d_model": 48, "blocks": 1, "pool": 4, "mixer": {"kind": "mamba"}}]}"#,
//! )
//! .map_err(|e| cascabel::Error::input("model config", "the fields of a filter", e.to_string()))?;
//! assert_eq!(config.latency(), 64);
//! assert_eq!(config.plan()?.period(), 64); // 16 samples a row, 4 rows a row of the centre
//! # Ok::<(), cascabel::Error>(())
//! ```

pub mod backbone;
pub mod blocks;
pub mod config;
pub mod draw;
pub mod file;
pub mod filter;
pub mod generator;
pub mod import;
pub mod language;
pub mod mixer;
#[cfg(not(feature = "train"))]
#[path = "no_pickle.rs"]
mod pickle;
#[cfg(feature = "train")]
mod pickle;
mod tensors;
#[cfg(test)]
mod tests;

pub use config::{Config, FilterConfig, GeneratorConfig, LanguageConfig, Mask, TierConfig};
pub use draw::DrawConfig;
pub(crate) use draw::check_guidance;
pub use file::{Card, FORMAT_VERSION, Model};
pub use import::import;
pub use mixer::{MambaConfig, Mixer, S4dConfig};
