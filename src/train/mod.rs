//! Training: examples made on the fly, losses with their gradients, the optimiser, runs that stop and resume.
//!
//! ```text
//! recipe ─► task ─► examples ─► batch (candle on the plan, the task's judge) ─► adamw ─► checkpoint, model file
//!           filter: noisy sounds mixed of clean ones and noise
//!           generator: windows of clips, as tokens
//! ```
//!
//! Without the feature `train`, only the losses and the figures of an evaluation are here.

#[cfg(feature = "train")]
pub mod adamw;
#[cfg(feature = "train")]
pub mod ahead;
#[cfg(feature = "train")]
pub mod augment;
#[cfg(feature = "train")]
pub mod batch;
#[cfg(feature = "train")]
pub mod begins;
#[cfg(feature = "train")]
pub mod checkpoint;
#[cfg(feature = "train")]
pub mod corpus;
#[cfg(feature = "train")]
pub mod examples;
#[cfg(all(test, feature = "train-cuda"))]
mod gpu_tests;
#[cfg(feature = "train-cuda")]
pub mod learner;
#[cfg(feature = "train")]
mod log;
pub mod loss;
pub mod metrics;
#[cfg(feature = "train")]
pub mod mix;
#[cfg(feature = "train")]
pub mod noises;
#[cfg(feature = "train")]
pub mod peers;
#[cfg(feature = "train")]
pub mod pinned;
#[cfg(feature = "train")]
pub mod random;
#[cfg(feature = "train")]
pub mod recipe;
#[cfg(feature = "train")]
pub mod reverb;
#[cfg(feature = "train")]
pub mod run;
#[cfg(feature = "train")]
pub mod schedule;
#[cfg(feature = "train")]
pub mod speed;
#[cfg(feature = "train")]
mod spread;
#[cfg(feature = "train")]
pub mod task;
