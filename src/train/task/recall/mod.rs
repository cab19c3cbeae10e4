//! The papers' tests of memory: sequences at whose end something is asked for that was heard long before.
//!
//! Selective copying and induction heads, as in Gu & Dao 2023, §4.1 (arXiv 2312.00752; after Arjovsky et al. 2016 and Olsson et al. 2022). The loss is
//! the mean over answers of −ln of the share that the right one was given; all other rows count nothing.
//!
//! ```
//! use cascabel::train::random::Dice;
//! use cascabel::train::task::recall::Puzzle;
//! let pair = Puzzle::InductionHeads.make(8, 16, &mut Dice::new(1, 0));
//! let key = pair.heard.iter().position(|token| *token == 0).unwrap();
//! assert_eq!((pair.heard[7], pair.wanted[7]), (0, pair.heard[key + 1]));
//! ```

mod puzzle;

#[cfg(test)]
mod tests;

use std::f64::consts::LN_2;

use candle_core::Device;
use serde::{Deserialize, Serialize};

pub use self::puzzle::Puzzle;
use super::tokens::TokenJudge;
use super::{Data, Task, Validation, opened};
use crate::Result;
use crate::exec::{Executor, Feed, Rows, State};
use crate::model::GeneratorConfig;
use crate::plan::{Plan, Weights};
use crate::train::begins::Course;
use crate::train::examples::{Maker, Pair};
use crate::train::loss::cross_entropy::NOTHING;
use crate::train::loss::{LossParts, LossValues};
use crate::train::random::Dice;
use crate::train::recipe::Recipe;
use crate::train::spread::spread;

/// What the unseen puzzles are drawn by.
const UNSEEN: u64 = 0x0072_6563_616c_6c00;
/// Rows that an executor runs at once.
const ROWS: usize = 4096;

/// Which puzzle is to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallSpec {
    /// The puzzle.
    pub puzzle: Puzzle,
    /// How long its sequences are.
    pub length: usize,
}

/// Puzzles without end.
pub struct Recall {
    data: Data,
    maker: Puzzles,
    threads: usize,
    unseen: usize,
}

impl Recall {
    /// As the recipe says.
    pub fn new(recipe: &Recipe, config: &GeneratorConfig, spec: RecallSpec, threads: usize) -> Self {
        let data = Data {
            seconds: 0.0,
            noise_seconds: None,
            hashes: vec![blake3::hash(format!("{spec:?}").as_bytes()).to_hex().to_string()],
        };
        let maker = Puzzles { spec, vocabulary: config.vocabulary, seed: recipe.seed };
        Self { data, maker, threads, unseen: recipe.run.valid_examples }
    }
}

/// Makes puzzles: example i is a function of (seed, i).
#[derive(Clone)]
pub struct Puzzles {
    spec: RecallSpec,
    vocabulary: usize,
    seed: u64,
}

impl Maker for Puzzles {
    type Row = u32;

    fn rows(&self) -> usize {
        self.spec.puzzle.rows(self.spec.length)
    }

    fn make(&mut self, index: u64) -> Pair<u32> {
        self.spec.puzzle.make(self.spec.length, self.vocabulary, &mut Dice::new(self.seed, index))
    }
}

impl Task for Recall {
    type Row = u32;
    type Maker = Puzzles;
    type Judge = TokenJudge;

    fn data(&self) -> &Data {
        &self.data
    }

    fn maker(&self) -> Puzzles {
        self.maker.clone()
    }

    fn judge(&self, _: &Device) -> Result<TokenJudge> {
        Ok(TokenJudge)
    }

    fn course(&self) -> Course {
        // Every puzzle begins at zeros.
        Course::Windows { batch: 1, windows: 1 }
    }

    fn told(mean: &LossValues) -> (f64, Option<LossParts>) {
        (mean.total / LN_2, None)
    }

    fn validate(&mut self, plan: &Plan, weights: &Weights, _: Option<&State>) -> Result<Validation> {
        let right = right(plan, weights, self.maker.spec, self.unseen, self.threads)?;
        Ok(Validation::Recall { right })
    }
}

/// The share of the answers of `count` unseen puzzles that a model gives rightly, by the executor that users run, on so many threads. The
/// puzzles may be longer than those that were learned from.
pub fn right(plan: &Plan, weights: &Weights, spec: RecallSpec, count: usize, threads: usize) -> Result<f64> {
    let width = plan.value(plan.output).width;
    spec.puzzle.check(spec.length, width)?;
    let mut cpus = opened(plan, weights, None, ROWS, threads.min(count).max(1))?;
    let each = spread(&mut cpus, count, |cpu, i| {
        let Pair { heard, wanted } =
            spec.puzzle.make(spec.length, width, &mut Dice::new(UNSEEN ^ spec.length as u64, i as u64));
        cpu.reset(0);
        let (mut right, mut logits) = (0, vec![0.0; ROWS.min(heard.len()) * width]);
        for (heard, wanted) in heard.chunks(ROWS).zip(wanted.chunks(ROWS)) {
            let logits = &mut logits[..heard.len() * width];
            cpu.advance(&[Feed { stream: 0, rows: heard.len() }], Rows::Tokens(heard), logits)?;
            let asked = logits.chunks(width).zip(wanted).filter(|(_, wanted)| **wanted != NOTHING);
            right += asked.filter(|(logits, wanted)| likeliest(logits) == **wanted).count();
        }
        Ok(right)
    })?;
    Ok(each.iter().sum::<usize>() as f64 / (count * spec.puzzle.answers()).max(1) as f64)
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(i, _)| i as u32)
}
