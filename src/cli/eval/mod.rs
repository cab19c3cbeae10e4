//! `cascabel eval`: how good a model is on files.
//!
//! [`filter`] holds a filter's output against clean references, [`generator`] counts the bits that a sample costs a generator.

mod filter;
mod generator;

use std::path::{Path, PathBuf};

use super::exit::Tally;
use super::named;
use crate::model::Config;
use crate::{Error, Result};

/// Measure a filter on noisy files with their clean references, or a generator's bits a sample on files
#[derive(clap::Args)]
pub struct Args {
    /// The name of a bundled model, or a model file
    #[arg(long, value_name = "NAME|PATH", default_value = crate::engine::bundled::DEFAULT)]
    model: String,
    /// The folder of noisy files; for a generator, of sounds that it has not learned
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The folder of clean files of the same names, for a filter
    #[arg(long, value_name = "CLEAN_DIR")]
    reference: Option<PathBuf>,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Tally> {
    let model = named::open(&args.model)?.model;
    match &model.config {
        Config::Filter(_) => filter::run(args, &model),
        Config::Generator(config) => generator::run(args, &model, config),
        Config::Language(_) => {
            Err(Error::input(format!("model {}", args.model), "a filter or a generator of sound", "language"))
        }
    }
}

/// The files of a folder in order of name; hidden ones are left out.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("list", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file() && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
