//! `cascabel train`: a recipe becomes a model file.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::exit::Tally;
use super::picture::{Series, curve_png};
use super::{print, stop};
use crate::train::recipe::Recipe;
use crate::train::run::{Event, Files, RunOptions, train};
use crate::{Error, Result};

/// Train a model by a recipe; Ctrl-C writes a checkpoint and the model so far
///
/// OUT gets NAME.safetensors (the model), NAME.checkpoint.safetensors, NAME.log.jsonl and NAME.loss.png.
#[derive(clap::Args)]
pub struct Args {
    /// The recipe, TOML
    recipe: PathBuf,
    /// Continue from the checkpoint in OUT, if there is one
    #[arg(long)]
    resume: bool,
    /// The folder for model, checkpoint, log and loss curve
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Stop after so many minutes, with a checkpoint
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Threads; as many as there are processors without it
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

pub fn run(args: Args) -> Result<Tally> {
    let recipe = Recipe::load(&args.recipe)?;
    let files = Files::of(&recipe, &args.out);
    let bar = ProgressBar::new(recipe.schedule.steps);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut observe = |event: &Event| show(&bar, event);
    let mut options = RunOptions {
        out: args.out,
        resume: args.resume,
        minutes: args.minutes,
        threads: args.threads.map(NonZeroUsize::get),
        commit: option_env!("CASCABEL_COMMIT").unwrap_or("").into(),
        stop: stop::flag()?,
        observe: &mut observe,
    };
    let trained = train(&recipe, &mut options);
    bar.finish_and_clear();
    trained?;
    draw(&files)?;
    print::text(&format!("{}: trained\n", files.model.display()))?;
    Ok(Tally::ONE)
}
