//! Training: examples mixed on the fly, losses with their gradients, the optimiser, the figures of an evaluation.
//!
//! Nothing here knows the model: sound and parameters are plain `f32` slices.
pub mod adamw;
pub mod augment;
pub mod corpus;
pub mod loss;
pub mod metrics;
pub mod mix;
pub mod random;
pub mod reverb;
pub mod schedule;
