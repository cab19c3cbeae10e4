//! A filter's training: noisy sound in, clean sound out, under a [`Loss`].

mod judge;
mod validate;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

pub use self::judge::SoundJudge;
pub use self::validate::{Figures, validate};
use super::{Data, Task, Validation};
use crate::audio::{SampleRate, read_path, resample};
use crate::exec::State;
use crate::model::FilterConfig;
use crate::plan::{Plan, Weights};
use crate::train::begins::Course;
use crate::train::corpus::{Corpus, Source};
use crate::train::examples::Maker;
use crate::train::loss::{Loss, LossParts, LossSpec, LossValues};
use crate::train::mix::{Example, MixSpec, Mixer};
use crate::train::recipe::Recipe;
use crate::{Error, Result};

/// Validation draws its examples apart from training.
const VALID_SEED: u64 = 0x0076_616c_6964;

/// A filter's data, its loss, and the fixed examples that it is validated on.
pub struct Filter {
    data: Data,
    mixer: Mixer,
    loss: LossSpec,
    rate: u32,
    latency: usize,
    course: Course,
    /// One a thread of a validation.
    losses: Vec<Loss>,
    examples: Vec<Example>,
}

impl Filter {
    /// Reads what the recipe names.
    pub fn read(
        recipe: &Recipe,
        (config, mix, loss): (&FilterConfig, &MixSpec, &LossSpec),
        plan: &Plan,
        threads: usize,
    ) -> Result<Self> {
        if config.channels != 1 {
            return Err(Error::input(
                "recipe [model]",
                "a filter of one channel",
                config.channels.to_string(),
            ));
        }
        let (rate, latency) = (config.rate, config.latency());
        let read = |path: &Path| read_mono(path, rate);
        let corpus = |dirs: &[PathBuf], source| Ok::<_, Error>(Arc::new(Corpus::open(dirs, source, &read)?));
        let (clean, noise) = (
            Arc::new(Corpus::load(&recipe.data.clean_files()?, Source::Prefix, &read)?),
            corpus(&recipe.data.noise, Source::Folder)?,
        );
        let seconds = |c: &Corpus| c.samples() as f64 / f64::from(rate);
        let data = Data {
            seconds: seconds(&clean),
            noise_seconds: Some(seconds(&noise)),
            hashes: vec![clean.hash(), noise.hash()],
        };
        let mixer = Mixer::new(mix, rate, recipe.seed, clean, Some(noise))?;
        if mixer.rows() <= latency {
            let expected = format!("examples longer than the model's latency of {latency} samples");
            return Err(Error::input("recipe [mix]", expected, format!("{} samples", mixer.rows())));
        }
        let course = Course::Drawn { spec: recipe.run.begin, seed: recipe.seed };
        course.check("recipe [run.begin] carried", plan, mixer.rows())?;
        let losses = (0..threads).map(|_| Loss::new(loss, rate)).collect::<Result<_>>()?;
        let (clean, noise) = (
            corpus(&recipe.data.valid_clean, Source::Prefix)?,
            corpus(&recipe.data.valid_noise, Source::Folder)?,
        );
        let spec = MixSpec { seconds: 4.0, snr_db: [-5.0, 20.0], ..MixSpec::plain() };
        let mut unseen = Mixer::new(&spec, rate, VALID_SEED, clean, Some(noise))?;
        let examples = (0..recipe.run.valid_examples as u64).map(|i| unseen.example(i)).collect();
        Ok(Self { data, mixer, loss: loss.clone(), rate, latency, course, losses, examples })
    }
}

impl Task for Filter {
    type Row = f32;
    type Maker = Mixer;
    type Judge = SoundJudge;

    fn data(&self) -> &Data {
        &self.data
    }

    fn maker(&self) -> Mixer {
        self.mixer.clone()
    }

    fn judge(&self, device: &Device) -> Result<SoundJudge> {
        SoundJudge::new(&self.loss, self.rate, self.latency, device)
    }

    fn course(&self) -> Course {
        self.course
    }

    fn told(mean: &LossValues) -> (f64, Option<LossParts>) {
        (mean.total, Some(mean.parts))
    }

    fn validate(&mut self, plan: &Plan, weights: &Weights, begin: Option<&State>) -> Result<Validation> {
        let figures = validate(plan, weights, self.latency, begin, &self.examples, &mut self.losses)?;
        Ok(Validation::Filter(figures))
    }
}

/// The first channel of a file at `rate`.
fn read_mono(path: &Path, rate: u32) -> Result<Vec<f32>> {
    let sound = resample(&read_path(path)?, SampleRate::new(rate)?)?;
    sound
        .into_channels()
        .into_iter()
        .next()
        .ok_or_else(|| Error::input(path.display().to_string(), "sound", "none"))
}
