//! `cascabel import`: a published Mamba checkpoint becomes a model file.

use std::path::PathBuf;

use super::exit::Tally;
use super::print;
use crate::{Error, Result};

/// Convert a Mamba checkpoint (Transformers or original naming) to a model file
///
/// A tokenizer.json there is copied beside it, as FILE's stem.tokenizer.json, where generate looks for it.
#[derive(clap::Args)]
pub struct Args {
    /// The folder with config.json and the weights (.safetensors or .bin)
    dir: PathBuf,
    /// The model file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<Tally> {
    let model = crate::model::import(&args.dir)?;
    model.save(&args.output)?;
    let (from, to) = (args.dir.join("tokenizer.json"), args.output.with_extension("tokenizer.json"));
    if from.is_file() {
        std::fs::copy(&from, &to).map_err(|e| Error::io("copy tokenizer.json to", to, e))?;
    }
    print::text(&format!("{}: {} parameters\n", args.output.display(), model.plan.param_count()))?;
    Ok(Tally::ONE)
}
