//! `cascabel import`: a published Mamba checkpoint becomes a model file.

use std::path::PathBuf;

use super::exit::Tally;
use super::print;
use super::tokens::tokenizer_of;
use crate::audio::write_whole;
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
    let (from, to) = (args.dir.join("tokenizer.json"), tokenizer_of(&args.output));
    if from.is_file() {
        let bytes = std::fs::read(&from).map_err(|e| Error::io("read", from, e))?;
        write_whole(&to, |out| out.write_all(&bytes).map_err(|e| Error::io("write", &to, e)))?;
    }
    print::text(&format!("{}: {} parameters\n", args.output.display(), model.plan.param_count()))?;
    Ok(Tally::ONE)
}
