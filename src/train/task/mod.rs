//! What a run teaches: a [`Filter`], a [`Generator`], or one of the papers' tests of memory ([`Recall`]).
//!
//! A task reads its data, makes examples, judges what a model gives for them, says where each example begins and validates. The rest of
//! a run, its steps, processes, optimiser and checkpoints, is written once, for any task.

pub mod filter;
pub mod generator;
pub mod recall;
pub mod tokens;

use std::fmt;

use candle_core::{Device, Tensor};
use serde::Serialize;

pub use self::filter::Filter;
pub use self::generator::Generator;
pub use self::recall::Recall;
use super::begins::Course;
use super::examples::{Examples, Maker, Row};
use super::loss::{LossParts, LossValues};
use crate::Result;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Limits, State};
use crate::plan::{Plan, Weights};

/// What a run teaches, once its data is read.
pub trait Task {
    /// A row of an example.
    type Row: Row;
    /// Who makes examples.
    type Maker: Maker<Row = Self::Row>;
    /// Who judges outputs.
    type Judge: Judge<Row = Self::Row>;

    /// What was read.
    fn data(&self) -> &Data;

    /// A maker of examples, for one thread.
    fn maker(&self) -> Self::Maker;

    /// A judge of outputs, for one thread, that works where the model learns.
    fn judge(&self, device: &Device) -> Result<Self::Judge>;

    /// Which example begins where.
    fn course(&self) -> Course;

    /// A mean loss as the log tells it, and its terms, where it has some.
    fn told(mean: &LossValues) -> (f64, Option<LossParts>);

    /// How good these weights are on unseen data, by the executor that users run; streams begin where theirs do.
    fn validate(&mut self, plan: &Plan, weights: &Weights, begin: Option<&State>) -> Result<Validation>;
}

/// Holds outputs against what was wanted, on this processor or on the GPU where they lie.
pub trait Judge: Send {
    /// A row of an example.
    type Row: Row;

    /// The losses of outputs `y [S, T, width]`, one an example, and the gradient of their sum by y.
    fn judge(&mut self, y: &Tensor, examples: &Examples<Self::Row>) -> Result<(Verdict, Tensor)>;
}

/// The losses of some examples, perhaps still being computed where the model learns.
pub struct Verdict(Box<dyn FnOnce() -> Result<Vec<LossValues>>>);

impl Verdict {
    /// Losses that `read` waits for.
    pub fn later(read: impl FnOnce() -> Result<Vec<LossValues>> + 'static) -> Self {
        Self(Box::new(read))
    }

    /// Losses that are known.
    pub fn now(values: Vec<LossValues>) -> Self {
        Self::later(|| Ok(values))
    }

    /// The losses, one an example; waits for them.
    pub fn values(self) -> Result<Vec<LossValues>> {
        (self.0)()
    }
}

/// What was read to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Seconds of sound.
    pub seconds: f64,
    /// Seconds of noise, where there is to be some.
    pub noise_seconds: Option<f64>,
    /// Hashes of both.
    pub hashes: Vec<String>,
}

/// How good a model is on unseen data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Validation {
    /// A filter, by its loss and its SI-SDR.
    Filter(filter::Figures),
    /// A generator.
    Generator {
        /// What a sample costs: −log₂ of the share that it was given, the mean over clips.
        bits_per_sample: f64,
        /// The share of clips that cost least as what they are, where there are classes to tell apart.
        #[serde(skip_serializing_if = "Option::is_none")]
        known: Option<f64>,
    },
    /// A test of memory.
    Recall {
        /// The share of answers that are right.
        right: f64,
    },
}

impl Validation {
    /// The figures by the names that they have in a model's card.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Filter(figures) => vec![
                ("valid_loss", figures.loss),
                ("valid_si_sdr_db", figures.si_sdr),
                ("valid_noisy_si_sdr_db", figures.noisy_si_sdr),
            ],
            Self::Generator { bits_per_sample, known } => {
                let known = known.map(|known| ("valid_known", known));
                std::iter::once(("valid_bits_per_sample", *bits_per_sample)).chain(known).collect()
            }
            Self::Recall { right } => vec![("valid_right", *right)],
        }
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(filter::Figures { loss, noisy_si_sdr, si_sdr }) => {
                write!(f, "validation loss {loss:.4}, SI-SDR {si_sdr:.2} dB (noisy {noisy_si_sdr:.2} dB)")
            }
            Self::Generator { bits_per_sample, known } => {
                write!(f, "validation, {bits_per_sample:.4} bits a sample")?;
                known.map_or(Ok(()), |known| write!(f, ", {:.0}% cheapest as their class", 100.0 * known))
            }
            Self::Recall { right } => write!(f, "validation, {:.2}% right", 100.0 * right),
        }
    }
}

/// An executor of users for each of `threads`, of one stream, which begins at `begin`.
fn opened(
    plan: &Plan,
    weights: &Weights,
    begin: Option<&State>,
    rows: usize,
    threads: usize,
) -> Result<Vec<Cpu>> {
    let open = |_| {
        let mut cpu = Cpu::open(plan, weights, Limits { max_rows: rows, max_streams: 1 });
        begin.map_or(Ok(()), |begin| cpu.set_initial(begin))?;
        Ok(cpu)
    };
    (0..threads).map(open).collect()
}
