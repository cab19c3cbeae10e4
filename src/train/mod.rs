//! Training: examples mixed on the fly, losses with their gradients, the optimiser, runs that stop and resume.
//!
//! ```text
//! recipe ─► corpus ─► mix ─► batch (candle on the plan, loss) ─► adamw ─► checkpoint, model file
//! ```
pub mod adamw;
pub mod augment;
pub mod batch;
pub mod checkpoint;
pub mod corpus;
pub mod loss;
pub mod metrics;
pub mod mix;
pub mod random;
pub mod recipe;
pub mod reverb;
pub mod run;
pub mod schedule;
pub mod validate;
