//! `cascabel live`: a microphone in, a model, a loudspeaker out, until q.
//!
//! [`plan`] opens what the arguments name, [`run`] tends the line and tells how it goes: [`status`] is what is told, [`screen`] shows it on a terminal.

mod keys;
mod pace;
mod plan;
mod records;
mod run;
mod screen;
mod status;

use std::path::PathBuf;

use super::exit::Tally;
use super::named;
use super::process::Depth;
use crate::Result;
use crate::engine::GeneratorOptions;
use crate::engine::live::AnswerOptions;
use crate::model::{Config, Model};

/// Run a model on what a microphone hears, and play it, while it comes
///
/// On a terminal: meters, spectrograms, load and latency; else a JSON line a second. Keys, or lines on standard input: b bypass, + and - mix,
/// r reset, s swap, q quit or Ctrl-C (on a terminal also arrows for the mix, Esc). `cascabel devices` lists what --input and --output can be; file:take.wav and file:out.wav are files, null is
/// silence and nowhere. What is written has its name once it ends; until then, and after a crash, it lies whole beside it under a hidden one.
#[derive(clap::Args)]
pub struct Args {
    /// A device's ID, a host (jack) for its default device, file:PATH or null; without it the default microphone, of JACK where there is no other
    #[arg(long, value_name = "ID")]
    input: Option<String>,
    /// The same to play to; the default loudspeaker without it
    #[arg(long, value_name = "ID")]
    output: Option<String>,
    /// The name of a bundled model, or a model file; none lets the sound through as it is
    #[arg(long, value_name = "NAME|PATH", default_value = crate::engine::bundled::DEFAULT)]
    model: String,
    /// A model that key s, or a line s on standard input, goes over to, and back
    #[arg(long, value_name = "NAME|PATH")]
    swap: Option<String>,
    /// What the model does with what it hears: filters it, or, a generator of sound, answers when it ends
    #[arg(long, value_enum, default_value_t = Mode::Filter)]
    mode: Mode,
    /// Answer in this class, of those the model knows; the first without it
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Every seed gives other answers; 0 without it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The level from which on something is heard, or said, in dB of full scale, -40 without it; what is 6 dB quieter is silence
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    above: Option<f32>,
    /// Seconds of silence before an answer; the answer ends after as much silence of its own; 0.5 without it
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pause: Option<f64>,
    /// Seconds of the longest answer; 10 without it
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    longest: Option<f64>,
    /// The share of the processed sound, 0 (the input) to 1
    #[arg(long, value_name = "0..1", default_value_t = 1.0, allow_negative_numbers = true)]
    mix: f32,
    /// Frames a second of both devices, 48000 where they have it without it; a file that is heard has its own
    #[arg(long, value_name = "HZ", allow_negative_numbers = true)]
    rate: Option<u32>,
    /// Frames of a call; 512 without it, with JACK its period
    #[arg(long, value_name = "FRAMES", allow_negative_numbers = true)]
    block: Option<usize>,
    /// Channels of both devices, 1 to 26; without it their own, at most 2; a file that is heard has its own
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    channels: Option<usize>,
    /// Frames kept in hand, so that a call that comes late finds something; a block between two devices without it
    #[arg(long, value_name = "FRAMES", allow_negative_numbers = true)]
    margin: Option<usize>,
    /// Run the model on a thread of its own, at real-time priority where that is allowed, two blocks ahead of the loudspeaker: for large models
    #[arg(long)]
    worker: bool,
    /// Write what is played to a WAV file too, from the device's first frame on; one of that name is replaced when it ends
    #[arg(long, value_name = "FILE.wav")]
    record: Option<PathBuf>,
    /// Write what is heard to a WAV file too
    #[arg(long, value_name = "FILE.wav")]
    record_input: Option<PathBuf>,
    /// Bits of a sample of the files written, 32f for float
    #[arg(long, value_enum, default_value_t = Depth::Int16)]
    depth: Depth,
    /// Between files: by the clock, not as fast as it goes
    #[arg(long)]
    realtime: bool,
    /// End after so many seconds of the clock's, whatever the sound
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// JSON lines on a terminal too; keys are lines then
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// What comes in goes out, changed
    Filter,
    /// Listens; when you stop, goes on from what it heard
    Answer,
}

impl Args {
    /// How a generator answers.
    fn answer(&self, model: &Model) -> Result<AnswerOptions> {
        let own = AnswerOptions::of(model);
        let class = match (&self.class, &model.config) {
            (Some(name), Config::Generator(config)) => named::class(config, name)?,
            _ => own.class,
        };
        Ok(AnswerOptions {
            generator: GeneratorOptions { seed: self.seed.unwrap_or(own.generator.seed), ..own.generator },
            class,
            above_db: self.above.unwrap_or(own.above_db),
            pause_s: self.pause.unwrap_or(own.pause_s),
            longest_s: self.longest.unwrap_or(own.longest_s),
        })
    }

    /// The options of an answer, and whether they are given.
    fn of_answers(&self) -> [(&'static str, bool); 5] {
        [
            ("--class", self.class.is_some()),
            ("--seed", self.seed.is_some()),
            ("--above", self.above.is_some()),
            ("--pause", self.pause.is_some()),
            ("--longest", self.longest.is_some()),
        ]
    }
}

pub fn run(args: &Args) -> Result<Tally> {
    run::run(plan::Plan::new(args)?)
}
