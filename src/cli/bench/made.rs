//! What a sample costs as `generate` makes it, guidance and draw included, beside what its rate leaves.

use std::time::Instant;

use serde::Serialize;

use super::quantile;
use crate::Result;
use crate::engine::{Generator, GeneratorOptions};
use crate::model::{Config, Model};

/// How often the same sound is made.
const TIMES: usize = 3;
/// The least samples: a thousandth of them is one.
const LEAST: usize = 1000;

/// Microseconds a sample of one stream.
#[derive(Serialize)]
pub struct Made {
    pub mean_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// The same share of the least times that each sample took of three: what is the program's own and not another's who ran meanwhile.
    pub p999_of_least_us: f64,
    /// What the model's rate leaves.
    pub budget_us: f64,
    pub guidance: f32,
}

impl Made {
    /// Of a generator of sound; none of other models.
    pub fn measure(model: &Model, seconds: f64) -> Result<Option<Self>> {
        let Config::Generator(config) = &model.config else { return Ok(None) };
        if config.of_mu_law().is_err() {
            return Ok(None);
        }
        let options = GeneratorOptions::of(model);
        let mut times: Vec<Vec<f64>> = Vec::new();
        for _ in 0..TIMES {
            let mut generator = Generator::open(model, options)?;
            let (mut of, begun) = (Vec::new(), Instant::now());
            let enough = |done: usize| match times.first() {
                Some(first) => done >= first.len(),
                None => done >= LEAST && begun.elapsed().as_secs_f64() >= seconds / TIMES as f64,
            };
            while !enough(of.len()) {
                let start = Instant::now();
                generator.generate(&mut [0])?;
                of.push(1e6 * start.elapsed().as_secs_f64());
            }
            times.push(of);
        }
        let count = times.first().map_or(0, Vec::len);
        let mut least: Vec<f64> =
            (0..count).map(|i| times.iter().map(|of| of[i]).fold(f64::INFINITY, f64::min)).collect();
        let mut all = times.concat();
        Ok(Some(Self {
            mean_us: all.iter().sum::<f64>() / all.len() as f64,
            p99_us: quantile(0.99, &mut all),
            p999_us: quantile(0.999, &mut all),
            p999_of_least_us: quantile(0.999, &mut least),
            budget_us: 1e6 / f64::from(config.rate),
            guidance: options.guidance,
        }))
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let Self { mean_us, p99_us, p999_us, p999_of_least_us, budget_us, guidance } = self;
        format!(
            "  a sample as it is made, guidance {guidance}: {mean_us:.1} µs in the mean (99%: {p99_us:.1}, 99.9%: {p999_us:.1}; of the least of {TIMES} times each: {p999_of_least_us:.1}), its rate leaves {budget_us:.1}\n"
        )
    }
}
