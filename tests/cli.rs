//! The program as a user runs it: every verb, every bad input.

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/generate.rs"]
mod generate;
#[path = "cli/live.rs"]
mod live;
#[path = "cli/process.rs"]
mod process;
#[path = "cli/support.rs"]
mod support;
#[cfg(feature = "train")]
#[path = "cli/train.rs"]
mod train;
#[cfg(feature = "train")]
#[path = "cli/train_generator.rs"]
mod train_generator;
#[path = "cli/verbs.rs"]
mod verbs;
