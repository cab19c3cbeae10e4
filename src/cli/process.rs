//! `cascabel process`: sound files through a filter.
//!
//! [`plan`] checks the arguments into jobs, [`work`] runs them on several threads, [`ledger`] knows which are done already.

mod ledger;
mod plan;
mod work;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::exit::Tally;
use crate::Result;
use crate::audio::WavDepth;
use crate::engine::Stereo;

/// Clean sound files, or run any other filter over them
///
/// The output is WAV, as long as the input and in line with it. Into a folder, files that are done already (same input,
/// model and options) are skipped; Ctrl-C keeps the finished ones.
#[derive(clap::Args)]
pub struct Args {
    /// Sound files of any format, rate and channel count; - is standard input
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// The file to write, a folder (made if it ends in / or there are many files), or - for standard output
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// The name of a bundled model, or a model file
    #[arg(long, value_name = "NAME|PATH", default_value = crate::engine::bundled::DEFAULT)]
    model: String,
    /// The share of the processed sound, 0 (the input) to 1
    #[arg(long, value_name = "0..1", default_value_t = 1.0)]
    mix: f32,
    /// Files at once; as many as there are processors without it
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Bits of a sample, 32f for float
    #[arg(long, value_enum, default_value_t = Depth::Int16)]
    depth: Depth,
    /// Leave the model's delay in
    #[arg(long)]
    no_align: bool,
    /// Process files again that are done
    #[arg(long)]
    force: bool,
    /// Filter each channel by itself, or take from each what is taken from their middle
    #[arg(long, value_enum, default_value_t = Link::Apart)]
    stereo: Link,
    /// Draw the spectrograms before and after (one file only)
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Depth {
    /// 16-bit integer
    #[value(name = "16")]
    Int16,
    /// 24-bit integer
    #[value(name = "24")]
    Int24,
    /// 32-bit float
    #[value(name = "32f")]
    Float32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Link {
    /// Each channel by itself
    Apart,
    /// What is taken from the middle is taken from every channel
    Linked,
}

impl From<Depth> for WavDepth {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::Int16 => Self::Int16,
            Depth::Int24 => Self::Int24,
            Depth::Float32 => Self::Float32,
        }
    }
}

impl From<Link> for Stereo {
    fn from(link: Link) -> Self {
        match link {
            Link::Apart => Self::Apart,
            Link::Linked => Self::Linked,
        }
    }
}

pub fn run(args: Args) -> Result<Tally> {
    work::run(&plan::Run::new(args)?)
}
