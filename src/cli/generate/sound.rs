//! Sound that a generator makes, sample by sample.
//!
//! ```text
//! prompt ─► model's rate, mono ─► mu-law ─► heard     class, seed, sampling
//!                                              └────────► Generator ─► mu-law ─► WAV: a file, a folder of them, or as it goes to standard output
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Args, closed, pipe};
use crate::audio::mu_law::decode;
use crate::audio::{SampleRate, WavDepth, WavStream, could_be_folder, name_of_wav, read_path, write_whole};
use crate::cli::exit::{Tally, complain};
use crate::cli::picture::sound_png;
use crate::cli::tokens::heard;
use crate::cli::{beside, named, print, stop};
use crate::engine::{Generator, Spot};
use crate::model::{GeneratorConfig, Model};
use crate::{Error, Result};

/// The most sounds side by side, and the most samples that wait for their files.
const STREAMS: usize = 64;
/// The most sounds of a picture.
const DRAWN: usize = 8;
const ROOM: usize = 1 << 28;
/// Sounds are written, and Ctrl-C is looked for, so many times a second of sound.
const LOOKS: usize = 50;

/// A call, checked against its model.
struct Run<'a> {
    args: &'a Args,
    output: &'a Path,
    model: &'a Model,
    config: &'a GeneratorConfig,
    rate: SampleRate,
    /// The class of all sounds.
    class: Option<usize>,
    /// Tokens heard first, samples to make.
    prompt: Vec<u32>,
    samples: usize,
    spot: Option<Spot>,
}

pub fn run(args: &Args, model: &Model, config: &GeneratorConfig) -> Result<Tally> {
    let run = Run::new(args, model, config)?;
    let start = Instant::now();
    let many = args.count > 1 || to_folder(run.output);
    if many {
        run.folder()?
    } else {
        run.one()?
    }
    if let Some(path) = &args.picture {
        run.draw(path, many)?;
    }
    if run.output != pipe() {
        let seconds = (args.count * run.samples) as f64 / f64::from(run.rate.hz());
        let times = seconds / start.elapsed().as_secs_f64().max(1e-9);
        let what = if many { format!("{} sounds", args.count) } else { run.output.display().to_string() };
        let heard = match run.prompt.len() {
            0 => String::new(),
            n => format!(" after {:.3} s heard", n as f64 / f64::from(run.rate.hz())),
        };
        print::text(&format!("{what}: {seconds:.3} s at {}{heard}, {times:.1} × real time\n", run.rate))?;
    }
    Ok(Tally { done: args.count, failed: 0 })
}

fn to_folder(output: &Path) -> bool {
    output != pipe()
        && (output.as_os_str().to_string_lossy().ends_with(std::path::is_separator) || output.is_dir())
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, model: &'a Model, config: &'a GeneratorConfig) -> Result<Self> {
        args.refuse("generator of sound", &[("--tokens", args.tokens.is_some())])?;
        config.of_mu_law()?;
        let Some(output) = args.output.as_deref() else {
            return Err(Error::input("-o", "where the sound is to go, a file, a folder or -", "nothing"));
        };
        let rate = SampleRate::new(config.rate)?;
        let class = args.class.as_deref().map(|name| named::class(config, name)).transpose()?;
        if !(1..=1_000_000).contains(&args.count) {
            return Err(Error::input("--count", "1 to 1,000,000", args.count.to_string()));
        }
        let seconds = args.seconds.unwrap_or(4.0);
        let samples = (seconds * f64::from(config.rate)).round();
        if !(samples >= 1.0 && seconds <= 14_400.0) {
            let expected = "a sample at least, at most 14,400";
            return Err(Error::input("--seconds", expected, seconds.to_string()));
        }
        if args.count > 1 && output == pipe() {
            return Err(Error::input("standard output", "one sound", args.count.to_string()));
        }
        if !to_folder(output) && args.count == 1 {
            name_of_wav(output)?;
        }
        beside::check(&[output], &[("--save-state", &args.save_state), ("--picture", &args.picture)])?;
        if args.picture.is_some() && output == pipe() {
            return Err(Error::input("--picture", "a sound that goes to a file", "standard output"));
        }
        if args.save_state.is_some() && (args.count > 1 || to_folder(output)) {
            return Err(Error::input("--save-state", "one sound", "a folder of them"));
        }
        let mut prompt = Vec::new();
        if let Some(path) = args.prompt.as_deref().map(Path::new) {
            let (tokens, own) = heard(path, rate)?;
            if own != rate {
                complain(&format!("{}: resampled from {own} to the model's {rate}", path.display()));
            }
            prompt = tokens;
        }
        let (samples, spot) = (samples as usize, args.spot(model)?);
        let class = class.or(spot.as_ref().map(|spot| spot.class));
        let run = Self { args, output, model, config, rate, class, prompt, samples, spot };
        // What is out of range is said before anything is made.
        args.options(model).check(model)?;
        run.begin(std::io::sink(), &output.display().to_string())?;
        Ok(run)
    }

    /// A generator for the sounds `first` and following, each of its class, that have heard what there is to hear.
    fn open(&self, first: usize, streams: usize) -> Result<Generator> {
        let mut generator = self.args.open(self.model, first as u64, streams)?;
        let mut heard = vec![self.spot.clone(); self.config.class_count().max(1)];
        for stream in 0..streams {
            let class = self.class_of(first + stream);
            // Each class hears the prompt once.
            match heard.get(class).cloned().flatten() {
                Some(spot) => generator.go_to(stream, &Spot { class, ..spot })?,
                None => {
                    generator.set_class(stream, class)?;
                    generator.hear(stream, &self.prompt)?;
                    heard[class] = generator.spot(stream);
                }
            }
        }
        Ok(generator)
    }

    /// A WAV of this call's length.
    fn begin<W: Write>(&self, out: W, name: &str) -> Result<WavStream<W>> {
        WavStream::begin(out, name, self.rate, 1, self.prompt.len() + self.samples, self.depth())
    }

    fn class_of(&self, sound: usize) -> usize {
        self.class.unwrap_or(sound % self.config.classes.len().max(1))
    }

    /// Makes the sounds of a generator and hands their samples on, some of each stream at a time.
    fn make(&self, generator: &mut Generator, mut out: impl FnMut(&[Vec<f32>]) -> Result<()>) -> Result<()> {
        let streams = generator.streams();
        let heard: Vec<f32> = self.prompt.iter().map(|token| decode(*token)).collect();
        out(&vec![heard; streams])?;
        let rows = (self.rate.hz() as usize / LOOKS).max(1);
        let mut tokens = vec![0; rows * streams];
        let mut left = self.samples;
        while left > 0 {
            if stop::flag()?.load(Ordering::Relaxed) {
                return Err(Error::Stopped(format!("{left} of {} samples were not made", self.samples)));
            }
            let now = rows.min(left);
            let tokens = &mut tokens[..now * streams];
            generator.generate(tokens)?;
            let of =
                |stream: usize| tokens.iter().skip(stream).step_by(streams).map(|t| decode(*t)).collect();
            out(&(0..streams).map(of).collect::<Vec<Vec<f32>>>())?;
            left -= now;
        }
        Ok(())
    }

    /// One sound, to a file that appears whole or to standard output as it goes.
    fn one(&self) -> Result<()> {
        let mut generator = self.open(0, 1)?;
        if self.output == pipe() {
            closed(self.write(&mut generator, std::io::stdout().lock(), "standard output"))?;
        } else {
            let name = self.output.display().to_string();
            write_whole(self.output, |writer| self.write(&mut generator, writer, &name))?;
        }
        self.args.save(self.model, &mut generator)
    }

    fn write(&self, generator: &mut Generator, out: impl Write, name: &str) -> Result<()> {
        let mut wav = self.begin(out, name)?;
        self.make(generator, |sound| wav.push(&[&sound[0]]))?;
        wav.finish().map(|_| ())
    }

    /// Many sounds, side by side, to a folder.
    fn folder(&self) -> Result<()> {
        let folder = self.output;
        could_be_folder(folder)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let together = (ROOM / (self.prompt.len() + self.samples)).clamp(1, STREAMS);
        for first in (0..self.args.count).step_by(together) {
            let streams = together.min(self.args.count - first);
            let mut sounds = vec![Vec::with_capacity(self.prompt.len() + self.samples); streams];
            self.make(&mut self.open(first, streams)?, |parts| {
                sounds.iter_mut().zip(parts).for_each(|(sound, part)| sound.extend(part));
                Ok(())
            })?;
            for (sound, i) in sounds.iter().zip(first..) {
                let path = folder.join(self.name(i));
                let name = path.display().to_string();
                write_whole(&path, |out| {
                    let mut wav = self.begin(out, &name)?;
                    wav.push(&[sound])?;
                    wav.finish()
                })?;
            }
        }
        Ok(())
    }

    /// The first sounds as they lie in their files.
    fn draw(&self, picture: &Path, many: bool) -> Result<()> {
        let files: Vec<_> = match many {
            true => (0..self.args.count.min(DRAWN)).map(|i| self.output.join(self.name(i))).collect(),
            false => vec![self.output.to_path_buf()],
        };
        let sounds = files.iter().map(|file| read_path(file)).collect::<Result<Vec<_>>>()?;
        let names = files.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy());
        let names: Vec<_> = names.collect();
        let titled: Vec<(&str, &[f32])> = names
            .iter()
            .zip(&sounds)
            .map(|(name, sound)| (&**name, sound.channels()[0].as_slice()))
            .collect();
        sound_png(picture, &titled, self.rate.hz())
    }

    fn depth(&self) -> WavDepth {
        self.args.depth.map_or_else(WavDepth::default, WavDepth::from)
    }

    /// seven-0017.wav; 0017.wav of a model without classes.
    fn name(&self, sound: usize) -> String {
        match self.config.classes.get(self.class_of(sound)) {
            Some(class) => format!("{class}-{sound:04}.wav"),
            None => format!("{sound:04}.wav"),
        }
    }
}
