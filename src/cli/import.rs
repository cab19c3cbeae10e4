//! `cascabel import`: a published Mamba checkpoint becomes a model file.

use std::path::PathBuf;

use super::exit::Tally;
use super::print;
use crate::Result;

/// Convert a Mamba checkpoint (Transformers or original naming) to a model file
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
    print::text(&format!("{}: {} parameters\n", args.output.display(), model.plan.param_count()))?;
    Ok(Tally::ONE)
}
