//! What a run tells, and the files that it leaves.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::train::adamw::StepReport;
use crate::train::loss::LossParts;
use crate::train::recipe::Recipe;
use crate::train::task::Validation;

/// What happens in a run; also a line of its log.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The data is loaded.
    Data {
        /// Seconds of sound: clean, for a filter.
        clean_seconds: f64,
        /// Seconds of noise, for a filter.
        #[serde(skip_serializing_if = "Option::is_none")]
        noise_seconds: Option<f64>,
        /// Hashes of both.
        hashes: Vec<String>,
        /// Parameters of the model.
        parameters: usize,
    },
    /// Several processes train together.
    Together {
        /// How many.
        processes: usize,
        /// What their sums go over.
        way: &'static str,
    },
    /// The run goes on by another recipe than the one that its checkpoint was written by.
    Recipe {
        /// From so many steps on.
        step: u64,
        /// The first line that differs, as the checkpoint has it; empty where it has no more.
        was: String,
        /// The same line now.
        now: String,
    },
    /// A step is done.
    Step {
        /// Its number, from 0.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// The mean loss; of a generator, bits a sample; of a test of memory, bits an answer.
        loss: f64,
        /// Its terms, of a filter.
        #[serde(skip_serializing_if = "Option::is_none")]
        parts: Option<LossParts>,
        /// The learning rate.
        rate: f32,
        /// The optimiser's report.
        report: StepReport,
        /// Seconds that it waited for its examples, where they are made ahead of it.
        waited: f64,
        /// Seconds of sound learned from, per second.
        speed: f64,
        /// Seconds spent in all sittings.
        seconds: f64,
    },
    /// A validation is done.
    Valid {
        /// After so many steps.
        step: u64,
        /// Of the moving average of the weights.
        figures: Validation,
    },
    /// A checkpoint is written.
    Saved {
        /// After so many steps.
        step: u64,
    },
}

/// The file names of a run.
pub struct Files {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The log, JSON lines.
    pub log: PathBuf,
    /// The model.
    pub model: PathBuf,
}

impl Files {
    /// The files of a recipe's run in a folder.
    pub fn of(recipe: &Recipe, out: &Path) -> Self {
        let file = |end: &str| out.join(format!("{}{end}", recipe.name));
        Self {
            checkpoint: file(".checkpoint.safetensors"),
            log: file(".log.jsonl"),
            model: file(".safetensors"),
        }
    }
}
