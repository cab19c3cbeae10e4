//! `cascabel generate`: what a model makes, one token after the other.
//!
//! [`sound`] is for generators, [`text`] for language models.

mod sound;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::exit::Tally;
use super::named;
use super::process::Depth;
use crate::audio::write_whole;
use crate::engine::{Generator, GeneratorOptions, Spot};
use crate::exec::Sampling;
use crate::model::{Config, Model};
use crate::{Error, Result};

/// Make sound with a generator, or text with a language model: from nothing, of a class, on from what it is given
///
/// The same seed, model and machine give the same bits: sound n of --count is the same, whatever the count. Written to standard output (-o -), a sound can be
/// heard while it is made.
#[derive(clap::Args)]
pub struct Args {
    /// The file to write, a folder (made if it ends in / or --count is above 1), or - for standard output, where text goes without it
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// The name of a bundled model (digits, music), or a model file; a language model's tokenizer.json lies beside it
    #[arg(long, value_name = "NAME|PATH")]
    model: String,
    /// The class to make, of those the model knows; without it each sound is of the next class
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Seconds of sound to make, after the prompt; 4 without it
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Tokens of text to make at most, after the prompt; 200 without it
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// A sound of any format and rate, or a text, that is heard first, and stands before what is made
    #[arg(long, value_name = "FILE|TEXT")]
    prompt: Option<OsString>,
    /// How many sounds
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// Every seed gives other sounds
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Below 1 likely samples become likelier; the model's own, or 1, where it isn't given
    #[arg(long, value_name = "T", conflicts_with = "greedy", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// How far the class leads, with a model that knows sound without one: above 1 further, at twice the work; the model's own, or 1, where it isn't given
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    guidance: Option<f32>,
    /// Draw from the K most likely samples
    #[arg(long, value_name = "K", conflicts_with = "greedy")]
    top_k: Option<usize>,
    /// Draw from the fewest likely samples that have this share; the model's own, or 1, all, where it isn't given
    #[arg(long, value_name = "0..1", conflicts_with = "greedy", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Take the most likely sample each time
    #[arg(long)]
    greedy: bool,
    /// Go on from a state that --save-state wrote, in its class; with the same --seed as if it had never stopped, with guidance if it was made with it (--guidance 1 is none)
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    state: Option<PathBuf>,
    /// Write the state after the last sample or token (of one sound or text)
    #[arg(long, value_name = "FILE")]
    save_state: Option<PathBuf>,
    /// Draw the waveform and the spectrogram of what is made, of at most the first eight sounds, as a PNG
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    /// Bits of a sample, 32f for float
    #[arg(long, value_enum)]
    depth: Option<Depth>,
}

pub fn run(args: &Args) -> Result<Tally> {
    let model = named::open(&args.model)?.model;
    match &model.config {
        Config::Generator(config) => sound::run(args, &model, config),
        Config::Language(_) => text::run(args, &model),
        // Refused there.
        Config::Filter(_) => args.open(&model, 0, 1).map(|_| Tally::default()),
    }
}

impl Args {
    /// A generator of streams `first` and following, with this call's seed and sampling.
    fn open(&self, model: &Model, first: u64, streams: usize) -> Result<Generator> {
        Generator::open(model, GeneratorOptions { streams, first, ..self.options(model) })
    }

    /// What is given, and else what the model says.
    fn options(&self, model: &Model) -> GeneratorOptions {
        let own = GeneratorOptions::of(model);
        let sampling = match own.sampling {
            _ if self.greedy => Sampling::Greedy,
            Sampling::Random { temperature, top_k, top_p } => Sampling::Random {
                temperature: self.temperature.unwrap_or(temperature),
                top_k: self.top_k.or(top_k),
                top_p: self.top_p.or(top_p),
            },
            greedy => greedy,
        };
        let guidance = self.guidance.unwrap_or(own.guidance);
        GeneratorOptions { sampling, seed: self.seed, guidance, ..own }
    }

    /// Where --state says to go on from.
    fn spot(&self, model: &Model) -> Result<Option<Spot>> {
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|e| Error::io("read state", path, e))?;
            Spot::from_bytes(&model.plan, &bytes)
        };
        self.state.as_ref().map(read).transpose()
    }

    /// Writes where a generator's only stream is, if --save-state asks for it.
    fn save(&self, model: &Model, generator: &mut Generator) -> Result<()> {
        let (Some(path), Some(spot)) = (&self.save_state, generator.spot(0)) else { return Ok(()) };
        let bytes = spot.to_bytes(&model.plan)?;
        write_whole(path, |writer| writer.write_all(&bytes).map_err(|e| Error::io("write", path, e)))
    }

    /// Refuses what says nothing to this kind of model.
    fn refuse(&self, kind: &str, given: &[(&str, bool)]) -> Result<()> {
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::input(*name, format!("no such option with a {kind}"), "one")),
            None => Ok(()),
        }
    }
}

/// A pipe that its reader has closed wants no more.
fn closed(written: Result<()>) -> Result<()> {
    match written {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Standard output, by its name on the command line.
fn pipe() -> &'static Path {
    Path::new("-")
}
