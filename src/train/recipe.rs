//! A training run as a TOML file: data, model, loss, schedule, seed.
//!
//! `[model] kind` says what is learned. A filter learns from `[data] clean` and `noise`, mixed by `[mix]`, under `[loss]`; a generator
//! from windows of the clips of `[data] clean`, cut by `[clips]`, and its loss is the bits that their samples cost it; or, by `[recall]`,
//! to answer the papers' tests of memory.
//!
//! Paths are relative to the folder that the run is started in. Unknown keys are refused, so that a misspelt one cannot
//! silently leave a default in place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::adamw::AdamWSpec;
use super::begins::BeginSpec;
use super::corpus::find;
use super::loss::LossSpec;
use super::mix::MixSpec;
use super::schedule::Schedule;
use super::task::generator::ClipsSpec;
use super::task::recall::RecallSpec;
use crate::exec::candle::Products;
use crate::model::{Config, FilterConfig, GeneratorConfig, Mask};
use crate::{Error, Result};

/// Examples a step.
const MOST_EXAMPLES: usize = 1 << 16;

/// A whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model's name, and its files' stem.
    pub name: String,
    /// Draws the first weights and every example.
    pub seed: u64,
    /// For the model's card: what the data is.
    #[serde(default)]
    pub about: About,
    /// The model.
    pub model: Config,
    /// Folders of clips.
    #[serde(default, skip_serializing_if = "Data::is_none")]
    pub data: Data,
    /// How a filter's examples are made of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<MixSpec>,
    /// How a generator's are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clips: Option<ClipsSpec>,
    /// A test of memory, in place of clips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<RecallSpec>,
    /// What is minimised, of a filter; a generator's loss is the bits of a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossSpec>,
    /// The optimiser.
    #[serde(default)]
    pub optimiser: AdamWSpec,
    /// The learning rate's course.
    pub schedule: Schedule,
    /// Batches, checkpoints, validation.
    #[serde(default)]
    pub run: RunSpec,
}

/// Words for the model's card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// The data and its sources.
    pub data: String,
    /// The licence of the weights, and why.
    pub licence: String,
}

/// Where clips lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Sound to train on: clean, for a filter.
    pub clean: Vec<PathBuf>,
    /// Beginnings of the names of its files that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<String>,
    /// Noise to train a filter on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise: Vec<PathBuf>,
    /// Sound to validate on.
    pub valid_clean: Vec<PathBuf>,
    /// Noise to validate a filter on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid_noise: Vec<PathBuf>,
}

impl Data {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The files of the sound to train on.
    pub fn clean_files(&self) -> Result<Vec<PathBuf>> {
        let wanted = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            !self.leave_out.iter().any(|start| name.starts_with(start.as_str()))
        };
        Ok(find(&self.clean)?.into_iter().filter(wanted).collect())
    }
}

/// What a recipe says of its kind of model.
#[derive(Clone, Debug, PartialEq)]
pub enum Lesson<'a> {
    /// Clean sound from noisy sound.
    Filter(&'a FilterConfig, MixSpec, &'a LossSpec),
    /// The next sample from those before it.
    Generator(&'a GeneratorConfig, ClipsSpec),
    /// Answers that lie far back.
    Recall(&'a GeneratorConfig, RecallSpec),
}

/// How a run proceeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// Examples a step.
    pub batch: usize,
    /// Examples that share one graph on the CPU; the gradient's sum runs over halves of these groups, whatever the threads.
    /// On a GPU a step's examples share one.
    pub group: usize,
    /// Steps from one validation to the next.
    pub valid_every: u64,
    /// Examples of a validation; of a generator's, clips.
    pub valid_examples: usize,
    /// Minutes from one checkpoint to the next.
    pub checkpoint_minutes: f64,
    /// What one file of a checkpoint holds at most, in MiB of numbers, or one weight; 0 for one file, whatever its size.
    pub checkpoint_mib: usize,
    /// The rate of S4D's A and Δ, and of Mamba's A, as a share of the schedule's.
    pub dynamics_rate: f32,
    /// How much of the input a filter lets through whatever its masks say, set after training: see
    /// [`keep_dry`](crate::model::filter::keep_dry). Choose it on validation data.
    pub dry: f32,
    /// Seconds of silence heard by the state that the model's file says to begin from. 0 leaves that state out, and a stream
    /// begins from zeros: a state that training never met costs more than it gives.
    pub settle_seconds: usize,
    /// Where the streams of examples begin.
    pub begin: BeginSpec,
    /// Learn from each example in segments of so many samples: the memory of one, and a third more work; 0 takes examples whole. The
    /// gradient is the same, through all segments.
    pub segment: usize,
    /// How exact a GPU's matrix products are; elsewhere, and in the losses, f32.
    pub products: Products,
    /// What the model's weights are rounded to when the model is validated and written.
    pub store: Store,
}

/// What a model file holds its weights in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// As they are.
    #[default]
    F32,
    /// Half the room: 11 significant bits.
    F16,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            batch: 16,
            group: 1,
            valid_every: 250,
            valid_examples: 32,
            checkpoint_minutes: 3.0,
            checkpoint_mib: 0,
            dynamics_rate: 1.0,
            dry: 0.0,
            settle_seconds: 0,
            begin: BeginSpec::default(),
            segment: 0,
            products: Products::F32,
            store: Store::F32,
        }
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// A recipe from its text; `name` is for messages.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let wrong = |e: toml::de::Error| {
            let at = e.span().map_or(0, |s| text.get(..s.start).map_or(0, |t| t.matches('\n').count() + 1));
            Error::input(
                format!("recipe {name}, line {at}"),
                "a recipe as in models/denoise.toml",
                e.message().replace('\n', " "),
            )
        };
        let mut recipe: Self = toml::from_str(text).map_err(wrong)?;
        recipe.check()?;
        // What was left out stands in the recipe's text as it is.
        match recipe.model {
            Config::Generator(_) if recipe.recall.is_some() => {}
            Config::Generator(_) => drop(recipe.clips.get_or_insert_default()),
            _ => drop(recipe.mix.get_or_insert_default()),
        }
        Ok(recipe)
    }

    fn check(&self) -> Result<()> {
        self.model.validate()?;
        self.schedule.check()?;
        let run = &self.run;
        let dynamics_rate = run.dynamics_rate.is_finite() && run.dynamics_rate >= 0.0;
        for (name, fine, expected, got) in [
            (
                "batch",
                (1..=MOST_EXAMPLES).contains(&run.batch),
                "1 to 65,536 examples",
                run.batch.to_string(),
            ),
            (
                "group",
                run.group > 0 && run.batch.is_multiple_of(run.group.max(1)),
                "a divisor of batch",
                run.group.to_string(),
            ),
            ("valid_every", run.valid_every > 0, "1 step or more", run.valid_every.to_string()),
            (
                "checkpoint_minutes",
                run.checkpoint_minutes > 0.0,
                "more than 0",
                run.checkpoint_minutes.to_string(),
            ),
            ("dynamics_rate", dynamics_rate, "0 or more", run.dynamics_rate.to_string()),
        ] {
            if !fine {
                return Err(Error::input(format!("recipe [run] {name}"), expected, got));
            }
        }
        self.lesson()?;
        run.begin.check(run.settle_seconds > 0)?;
        let linear = matches!(&self.model, Config::Filter(filter) if filter.mask == Mask::None);
        if run.dry == 0.0 || (linear && (0.0..1.0).contains(&run.dry)) {
            return Ok(());
        }
        Err(Error::input(
            "recipe [run] dry",
            "0, or less than 1 for a filter with mask = \"none\"",
            run.dry.to_string(),
        ))
    }

    /// What is to be learned; one line for the first section that is missing or that is another kind's.
    pub fn lesson(&self) -> Result<Lesson<'_>> {
        let (data, run) = (&self.data, &self.run);
        let none_for = |kind: &str, sections: &[(&str, bool)]| match sections.iter().find(|section| section.1)
        {
            Some((what, _)) => {
                Err(Error::input(format!("recipe {what}"), format!("none for a {kind}"), "one"))
            }
            None => Ok(()),
        };
        let missing = |what: &str| Error::input(format!("recipe {what}"), "one for a filter", "none");
        let sounds = || match [("clean", &data.clean), ("valid_clean", &data.valid_clean)]
            .iter()
            .find(|of| of.1.is_empty())
        {
            Some((what, _)) => Err(Error::input(format!("recipe [data] {what}"), "folders of sound", "none")),
            None => Ok(()),
        };
        match &self.model {
            Config::Filter(config) => {
                none_for(
                    "filter",
                    &[("[clips]", self.clips.is_some()), ("[recall]", self.recall.is_some())],
                )?;
                sounds()?;
                for (what, folders) in
                    [("[data] noise", &data.noise), ("[data] valid_noise", &data.valid_noise)]
                {
                    folders.first().ok_or_else(|| missing(what))?;
                }
                let loss = self.loss.as_ref().ok_or_else(|| missing("[loss]"))?;
                Ok(Lesson::Filter(config, self.mix.clone().unwrap_or_default(), loss))
            }
            Config::Generator(config) => {
                let others = [
                    ("[data] noise", !data.noise.is_empty() || !data.valid_noise.is_empty()),
                    ("[mix]", self.mix.is_some()),
                    ("[loss]", self.loss.is_some()),
                    ("[run] settle_seconds", run.settle_seconds > 0),
                    ("[run.begin]", run.begin != BeginSpec::default()),
                    ("[run] dry", run.dry != 0.0),
                ];
                none_for("generator", &others)?;
                if let Some(recall) = self.recall {
                    let sound = [("[data]", !data.is_none()), ("[clips]", self.clips.is_some())];
                    none_for("test of memory", &sound)?;
                    none_for("test of memory", &[("[model] classes", config.class_count() > 0)])?;
                    recall.puzzle.check(recall.length, config.vocabulary)?;
                    return Ok(Lesson::Recall(config, recall));
                }
                sounds()?;
                config.of_mu_law()?;
                let clips = self.clips.clone().unwrap_or_default();
                clips.check(config.rate, config.nameless)?;
                Ok(Lesson::Generator(config, clips))
            }
            Config::Language(_) => Err(Error::input(
                "recipe [model]",
                "a model of sound",
                "one of text, which recipes do not train",
            )),
        }
    }

    /// The recipe as text, for the model's card.
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bundled;
    use proptest::prelude::*;

    const BUNDLED: &str = include_str!("../../models/denoise.toml");

    #[test]
    fn the_bundled_recipe_is_one_and_survives_the_card() -> Result<()> {
        let recipe = Recipe::parse(BUNDLED, "denoise.toml")?;
        assert_eq!(Recipe::parse(&recipe.to_text(), "card")?, recipe);
        assert_eq!(recipe.model.latency(), 128);
        Ok(())
    }

    #[test]
    fn the_bundled_models_later_stretches_are_of_the_same_model() -> Result<()> {
        let more = Recipe::parse(include_str!("../../models/denoise-more.toml"), "denoise-more.toml")?;
        let last = Recipe::parse(include_str!("../../models/denoise-last.toml"), "denoise-last.toml")?;
        let digits =
            [include_str!("../../models/digits.toml"), include_str!("../../models/digits-last.toml")];
        let [digits, digits_last] = digits.map(|text| Recipe::parse(text, "digits.toml"));
        let digits = digits?;
        assert_eq!(digits.model, digits_last?.model);
        assert_eq!(digits.model, bundled::open("digits")?.config);
        let music = Recipe::parse(include_str!("../../models/music.toml"), "music.toml")?;
        assert_eq!(music.model, bundled::open("music")?.config);
        let long = Recipe::parse(include_str!("../../models/denoise-long.toml"), "denoise-long.toml")?;
        let first = Recipe::parse(BUNDLED, "denoise.toml")?;
        assert_eq!(first.model, bundled::open("denoise")?.config);
        assert!([more, last, long].iter().all(|recipe| recipe.model == first.model));
        Ok(())
    }

    #[test]
    fn the_bundled_recipes_model_keeps_to_its_budget() -> Result<()> {
        let Recipe { model, run, .. } = Recipe::parse(BUNDLED, "denoise.toml")?;
        let (plan, rate) = (model.plan()?, f64::from(model.rate().unwrap_or(0)));
        let bytes = plan.param_count() * if run.store == Store::F16 { 2 } else { 4 };
        assert!(bytes <= 3_700_000, "{bytes} bytes, and 4 MB with the settled state and the card");
        let gmacs = plan.cost().flop_per_row() * rate / 2e9;
        assert!(gmacs <= 0.5, "{gmacs} GMAC/s");
        assert!(model.latency() as f64 <= 8e-3 * rate, "{} frames", model.latency());
        Ok(())
    }

    #[test]
    fn the_generators_recipes_are_some_and_keep_to_their_budget() -> Result<()> {
        for (text, most) in [
            (include_str!("../../models/digits.toml"), 2_000_000),
            (include_str!("../../models/digits-last.toml"), 2_000_000),
            (include_str!("../../models/music.toml"), 2_000_000),
        ] {
            let recipe = Recipe::parse(text, "generator.toml")?;
            assert_eq!(Recipe::parse(&recipe.to_text(), "card")?, recipe);
            let Lesson::Generator(model, clips) = recipe.lesson()? else { panic!("not a generator") };
            let plan = recipe.model.plan()?;
            assert!(recipe.run.store == Store::F16 && plan.param_count() <= most, "{}", plan.param_count());
            clips.course(recipe.run.batch).check(&recipe.name, &plan, clips.rows(model.rate))?;
        }
        Ok(())
    }

    #[test]
    fn a_dry_share_needs_linear_masks() {
        let with = BUNDLED.replace("dry = 0.0", "dry = 0.06");
        let bad = [
            ("dry = 0.06", "dry = 1.5"),
            ("dry = 0.06", "dry = nan"),
            ("mask = \"none\"", "mask = \"tanh\""),
        ];
        for (from, to) in bad {
            assert!(with.contains(from), "{from}");
            let message = Recipe::parse(&with.replace(from, to), "r.toml").unwrap_err().to_string();
            assert!(message.contains("dry") && message.lines().count() == 1, "{to}: {message}");
        }
    }

    #[test]
    fn where_examples_begin_is_checked() {
        for (begin, settle) in
            [("settled = 0.7, carried = 0.5", 60), ("settled = -0.1", 60), ("settled = 0.2", 0)]
        {
            let text = BUNDLED.replace(
                "[run.begin]\nsettled = 0.25\ncarried = 0.4",
                &format!("[run.begin]\n{}", begin.replace(", ", "\n")),
            );
            let text = text.replace("settle_seconds = 60", &format!("settle_seconds = {settle}"));
            let message = Recipe::parse(&text, "r.toml").unwrap_err().to_string();
            assert!(message.contains("begin") && message.lines().count() == 1, "{begin}: {message}");
        }
    }

    #[test]
    fn a_test_of_memory_needs_no_sound_and_survives_the_card() -> Result<()> {
        let text = "name = 'm'\nseed = 1\nrecall = { puzzle = 'induction-heads', length = 8 }\n\
            schedule = { peak = 1e-3, last = 0.0, warm_up = 0, steps = 1 }\n\
            model = { kind = 'generator', rate = 8000, vocabulary = 16, tiers = [\
            { d_model = 8, blocks = 1, mixer = { kind = 'mamba' } }] }\n";
        let recipe = Recipe::parse(text, "m.toml")?;
        assert!(matches!(recipe.lesson()?, Lesson::Recall(..)));
        assert_eq!(Recipe::parse(&recipe.to_text(), "card")?, recipe);
        for (more, what) in [
            ("clips = { seconds = 1.0 }\n", "[clips]"),
            ("data = { clean = ['a'], valid_clean = [] }\n", "[data]"),
        ] {
            let message = Recipe::parse(&format!("{more}{text}"), "m.toml").unwrap_err().to_string();
            assert!(message.contains(what) && message.lines().count() == 1, "{message}");
        }
        let short =
            Recipe::parse(&text.replace("length = 8", "length = 2"), "m.toml").unwrap_err().to_string();
        assert!(short.contains("a length of 3 to"), "{short}");
        Ok(())
    }

    #[test]
    fn a_typo_is_named_with_its_line() {
        let text = BUNDLED.replace("warm_up", "warmup");
        let line = text.lines().position(|l| l.starts_with("[schedule]")).unwrap_or(0);
        let message = Recipe::parse(&text, "r.toml").unwrap_err().to_string();
        assert!(
            message.contains("r.toml, line") && message.contains("warm_up"),
            "{message} (section at line {})",
            line + 1
        );
        assert_eq!(message.lines().count(), 1);
    }

    proptest! {
        #[test]
        fn a_damaged_recipe_is_an_error_or_a_recipe(at in 0..BUNDLED.len(), with in "[ -~]{0,3}", cut in any::<bool>()) {
            let before = BUNDLED.get(..at).unwrap_or(BUNDLED);
            let after = if cut { "" } else { BUNDLED.get(at + 1..).unwrap_or("") };
            if let Err(error) = Recipe::parse(&format!("{before}{with}{after}"), "r.toml") {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
