//! A generator's training: clips as mu-law tokens, each sample predicted from those before it.
//!
//! ```text
//! rows of a window       t = 0        1        2      …
//! heard        token of x₋₁       x₀       x₁     …     + 256·class, where the model has classes
//! wanted       token of  x₀       x₁       x₂     …
//! ```
//!
//! The loss is the mean over rows of −ln of the share that the wanted token was given; the log tells it in bits a sample. Silence that
//! fills a window after a short clip counts as any other sample: a model is to know that a sound ends.

mod clips;
mod validate;
mod windows;

#[cfg(test)]
mod tests;

use std::f64::consts::LN_2;

use candle_core::Device;

pub use self::clips::{Clip, Clips};
pub use self::validate::{bits, known};
pub use self::windows::{ClipsSpec, Windows};
use super::tokens::TokenJudge;
use super::{Data, Task, Validation};
use crate::exec::State;
use crate::model::GeneratorConfig;
use crate::plan::{Plan, Weights};
use crate::train::begins::Course;
use crate::train::corpus::find;
use crate::train::loss::{LossParts, LossValues};
use crate::train::recipe::Recipe;
use crate::{Error, Result};

/// A generator's clips, and those that it is validated on.
pub struct Generator {
    data: Data,
    windows: Windows,
    unseen: Clips,
    classes: usize,
    threads: usize,
}

impl Generator {
    /// Reads what the recipe names.
    pub fn read(
        recipe: &Recipe,
        (config, spec): (&GeneratorConfig, &ClipsSpec),
        plan: &Plan,
        threads: usize,
    ) -> Result<Self> {
        spec.course(recipe.run.batch).check("recipe [clips] seconds", plan, spec.rows(config.rate))?;
        let clips = Clips::read(&recipe.data.clean_files()?, config, spec.varies())?;
        let without = clips
            .all()
            .iter()
            .any(|clip| Some(clip.class() as usize) == config.nameless.then_some(config.classes.len()));
        if spec.nameless.is_some_and(|share| share > 0.0) && !without {
            let expected = "files of names that begin with no class's";
            return Err(Error::input("recipe [clips] nameless", expected, "none in [data] clean"));
        }
        let data = Data { seconds: clips.seconds(), noise_seconds: None, hashes: vec![clips.hash()] };
        let nameless = config.nameless.then_some(config.classes.len() as u32);
        let windows = Windows::new(spec, recipe.seed, recipe.run.batch, clips, nameless);
        let files = spaced(&find(&recipe.data.valid_clean)?, recipe.run.valid_examples);
        let unseen = Clips::read(&files, config, false)?.first_seconds(spec.valid_seconds);
        Ok(Self { data, windows, unseen, classes: config.classes.len(), threads })
    }
}

impl Task for Generator {
    type Row = u32;
    type Maker = Windows;
    type Judge = TokenJudge;

    fn data(&self) -> &Data {
        &self.data
    }

    fn maker(&self) -> Windows {
        self.windows.clone()
    }

    fn judge(&self, _: &Device) -> Result<TokenJudge> {
        Ok(TokenJudge)
    }

    fn course(&self) -> Course {
        self.windows.course()
    }

    fn told(mean: &LossValues) -> (f64, Option<LossParts>) {
        (mean.total / LN_2, None)
    }

    fn validate(&mut self, plan: &Plan, weights: &Weights, begin: Option<&State>) -> Result<Validation> {
        let bits_per_sample = bits(plan, weights, begin, &self.unseen, self.threads)?;
        let known = (self.classes > 1)
            .then(|| known(plan, weights, begin, (&self.unseen, self.classes), self.threads))
            .transpose()?
            .flatten();
        Ok(Validation::Generator { bits_per_sample, known })
    }
}

/// At most `count` of all, from all parts of their order: the first few may be of one class.
fn spaced<T: Clone>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len());
    (0..count).map(|i| all[i * all.len() / count].clone()).collect()
}
