//! The way from a device's frames through a filter back to a device's frames.
//!
//! ```text
//!            ┌─► dry:  Converter, rate in → out, T late ──────────────────────────────┐
//! frames in ─┤                                                                        ├─► (dry, wet), frame for frame
//!            └─► Converter, in → model's ─► advance ─► Converter, model's → out, T late ┘
//!
//! T = ⌈half_in + (half_out + 1) / r + ℓ / r⌉ + margin     frames of the rate out; r: frames of the model in one of them
//! ```
//!
//! T is the latency: frame j out answers the sound that was heard T frames before it. half are the frames a converter has to see beforehand, ℓ
//! is the model's own latency, and the margin is what callbacks of the device need so that nothing is missing when it is asked for. At the
//! model's own rate nothing is converted, and T = ℓ + margin.

use super::answer::{AnswerOptions, Answerer, Mood};
use crate::audio::{Converter, SampleRate, gcd};
use crate::engine::open;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Limits, Rows};
use crate::model::{Config, Model};
use crate::{Error, Result};

/// Frames that are taken at once; more are cut.
pub(super) const BLOCK: usize = 256;

/// What a chain stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The rate that frames come in at.
    pub rate_in: SampleRate,
    /// The rate that frames are wanted at.
    pub rate_out: SampleRate,
    /// Channels of a frame that comes in.
    pub channels_in: usize,
    /// Channels of a frame that goes out. As many as come in: each is filtered by itself; else the mean of those that come in
    /// is filtered and goes to all.
    pub channels_out: usize,
    /// Whether the two run by clocks of their own, so that one has to be followed.
    pub two_clocks: bool,
    /// Frames of the rate out that are kept in hand.
    pub margin: usize,
    /// The most frames that come in before any is asked for; of more, the oldest may be lost.
    pub burst: usize,
}

/// The parts of a latency, in frames of the rate out; together, rounded up, they are [`Chain::latency`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Converting to the model's rate.
    pub to_model: f64,
    /// The model's own.
    pub model: f64,
    /// Converting back.
    pub from_model: f64,
    /// Kept in hand for the device's callbacks.
    pub margin: usize,
    /// All.
    pub total: usize,
}

/// What is between.
#[derive(Clone, Copy)]
pub enum Voice<'m> {
    /// Nothing: what comes goes out as it is, at the rate that is wanted.
    Through,
    /// A filter.
    Filter(&'m Model),
    /// A generator that listens and answers.
    Answer(&'m Model, AnswerOptions),
}

impl<'m> From<&'m Model> for Voice<'m> {
    fn from(model: &'m Model) -> Self {
        Self::Filter(model)
    }
}

impl<'m> Voice<'m> {
    fn model(self) -> Option<&'m Model> {
        match self {
            Self::Through => None,
            Self::Filter(model) | Self::Answer(model, _) => Some(model),
        }
    }

    /// Its rate, and how many channels it takes at once.
    fn shape(self, ends: Ends) -> Result<(SampleRate, usize)> {
        let refused = |expected: &str, got: &Config| Err(Error::input("model", expected, got.kind()));
        match (self, self.model().map(|model| &model.config)) {
            (_, None) => Ok((ends.rate_out, 1)),
            (Self::Filter(_), Some(Config::Filter(config))) => {
                Ok((SampleRate::new(config.rate)?, config.channels))
            }
            (Self::Answer(..), Some(Config::Generator(config))) => Ok((SampleRate::new(config.rate)?, 1)),
            (Self::Filter(_), Some(Config::Generator(_))) => Err(Error::input(
                "model",
                "a filter (sound to sound)",
                "a generator, which answers (--mode answer)",
            )),
            (Self::Filter(_), Some(other)) => refused("a filter (sound to sound)", other),
            (_, Some(other)) => refused("a generator of sound, to answer", other),
        }
    }
}

/// What takes rows of the model's rate and gives as many.
enum Inside {
    Nothing,
    Filter(Box<Cpu>),
    Answer(Box<Answerer>),
}

impl Inside {
    /// Opens it, and runs it once, so that the first block finds its weights near.
    fn open(voice: Voice<'_>, rows: usize, streams: usize) -> Result<Self> {
        Ok(match voice {
            Voice::Through => Self::Nothing,
            Voice::Answer(model, options) => Self::Answer(Box::new(Answerer::open(model, options, rows)?)),
            Voice::Filter(model) => {
                let mut cpu = Box::new(open(model, Limits { max_rows: rows, max_streams: streams })?);
                let feeds: Vec<Feed> = (0..streams).map(|stream| Feed { stream, rows }).collect();
                let width = model.plan.value(model.plan.output).width;
                let mut said = vec![0.0; rows * streams * width];
                cpu.advance(&feeds, Rows::Samples(&said.clone()), &mut said)?;
                (0..streams).for_each(|stream| cpu.reset(stream));
                Self::Filter(cpu)
            }
        })
    }
}

/// One model between two rates, or none.
pub struct Chain {
    inside: Inside,
    ends: Ends,
    latency: Latency,
    /// Channels of the model.
    width: usize,
    /// Of each channel that is filtered.
    down: Vec<Converter>,
    up: Vec<Converter>,
    dry: Vec<Converter>,
    feeds: Vec<Feed>,
    /// One channel, of samples that came in or of the model's.
    one: Vec<f32>,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Chain {
    /// Opens a model between two ends, or nothing but their converters. All memory is taken here. A generator hears the mean of the channels
    /// and speaks to all.
    pub fn open(voice: Voice<'_>, ends: Ends) -> Result<Self> {
        let (model, (rate, width)) = (voice.model(), voice.shape(ends)?);
        let apart = ends.channels_in == ends.channels_out && !matches!(voice, Voice::Answer(..));
        let channels = if apart { ends.channels_in } else { 1 };
        if ends.channels_in * ends.channels_out == 0 || !channels.is_multiple_of(width) {
            let expected = format!("a multiple of the model's {width} channels");
            return Err(Error::input("device", expected, channels.to_string()));
        }
        let latency = latency(model.map(|model| (rate, model.latency())), ends);
        // A block's rows at the model's rate.
        let rows = ends.rate_in.frames_at(rate, BLOCK) + 2;
        let burst = ends.burst.max(BLOCK);
        let heard = |to, start| {
            let open = if ends.two_clocks { Converter::drifting } else { Converter::new };
            vec![open(ends.rate_in, to, start, burst); channels]
        };
        // Output 0 of either lies T frames of the rate out before the beginning, the model's ℓ rows later.
        let (up_late, up_unit) = parts(rate, ends.rate_out, latency.total);
        let up_start = model.map_or(0, Model::latency) as i64 * up_unit - up_late;
        let (dry_late, _) = parts(ends.rate_in, ends.rate_out, latency.total);
        let streams = channels / width;
        let inside = Inside::open(voice, rows, streams)?;
        // Without a model nothing goes that way.
        let (down, up) = match model {
            Some(_) => {
                let room = ends.rate_in.frames_at(rate, burst) + rows;
                (heard(rate, 0), vec![Converter::new(rate, ends.rate_out, up_start, room); channels])
            }
            None => (Vec::new(), Vec::new()),
        };
        Ok(Self {
            inside,
            ends,
            latency,
            width,
            down,
            up,
            dry: heard(ends.rate_out, -dry_late),
            feeds: (0..streams).map(|stream| Feed { stream, rows: 0 }).collect(),
            one: vec![0.0; rows.max(BLOCK)],
            input: vec![0.0; rows * channels],
            output: vec![0.0; rows * channels],
        })
    }

    /// What it stands between.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// How late an answer is, in parts.
    pub fn latency(&self) -> Latency {
        self.latency
    }

    /// What it is at, if it answers.
    pub(super) fn mood(&self) -> Option<Mood> {
        match &self.inside {
            Inside::Answer(answerer) => Some(answerer.mood()),
            Inside::Filter(_) | Inside::Nothing => None,
        }
    }

    /// Channels that are filtered.
    pub(super) fn channels(&self) -> usize {
        self.dry.len()
    }

    /// Takes at most [`BLOCK`] frames, channels side by side. What is no number is silence.
    pub(super) fn hear(&mut self, frames: &[f32]) {
        let (inputs, channels) = (self.ends.channels_in, self.channels());
        for c in 0..channels {
            let mut count = 0;
            for (x, frame) in self.one.iter_mut().zip(frames.chunks_exact(inputs)) {
                let sample = if channels == inputs {
                    frame.get(c).copied().unwrap_or(0.0)
                } else {
                    frame.iter().sum::<f32>() / inputs as f32
                };
                *x = if sample.is_finite() { sample } else { 0.0 };
                count += 1;
            }
            let samples = self.one.get(..count).unwrap_or_default();
            for converter in [self.down.get_mut(c), self.dry.get_mut(c)].into_iter().flatten() {
                converter.push(samples);
            }
        }
        loop {
            let rows = self.down.first().map_or(0, Converter::ready).min(self.input.len() / channels);
            if rows == 0 {
                break;
            }
            self.advance(rows);
        }
    }

    /// So many rows of the model's rate through the model.
    fn advance(&mut self, rows: usize) {
        let (width, count) = (self.width, rows * self.down.len());
        self.feeds.iter_mut().for_each(|feed| feed.rows = rows);
        for (c, down) in self.down.iter_mut().enumerate() {
            let one = self.one.get_mut(..rows).unwrap_or_default();
            down.pull(one);
            let stream = self.input.iter_mut().skip(c / width * rows * width);
            stream.skip(c % width).step_by(width).zip(one).for_each(|(x, sample)| *x = *sample);
        }
        let input = self.input.get(..count).unwrap_or_default();
        let output = self.output.get_mut(..count).unwrap_or_default();
        // Feeds and lengths are right by construction; were they not, this would be silence.
        match &mut self.inside {
            Inside::Filter(cpu) => {
                if cpu.advance(&self.feeds, Rows::Samples(input), output).is_err() {
                    output.fill(0.0);
                }
            }
            Inside::Answer(answerer) => answerer.advance(input, output),
            Inside::Nothing => output.fill(0.0),
        }
        for (c, up) in self.up.iter_mut().enumerate() {
            let stream = output.iter().skip(c / width * rows * width);
            let one = self.one.get_mut(..rows).unwrap_or_default();
            one.iter_mut().zip(stream.skip(c % width).step_by(width)).for_each(|(x, sample)| *x = *sample);
            up.push(one);
        }
    }

    /// Frames out that are ready.
    pub(super) fn ready(&self) -> usize {
        let of = |converters: &[Converter]| converters.first().map_or(usize::MAX, Converter::ready);
        of(&self.up).min(of(&self.dry))
    }

    /// Writes the next frames of a channel, which are ready.
    pub(super) fn say(&mut self, channel: usize, dry: &mut [f32], wet: &mut [f32]) {
        if let Some(from) = self.dry.get_mut(channel) {
            from.pull(dry);
        }
        match self.up.get_mut(channel) {
            Some(from) => _ = from.pull(wet),
            None => wet.copy_from_slice(dry),
        }
    }

    /// Leaves out frames; below 0, goes back by so many.
    pub(super) fn leave_out(&mut self, frames: i64) {
        self.up.iter_mut().chain(&mut self.dry).for_each(|converter| converter.advance(frames));
    }

    /// Makes the clock of what comes in so many parts in a million faster than it says.
    pub(super) fn follow(&mut self, parts: f64) {
        self.down.iter_mut().chain(&mut self.dry).for_each(|converter| converter.set_drift(parts));
    }

    /// Frames out between what is asked for next and the last frame heard.
    pub(super) fn in_hand(&self) -> f64 {
        let ahead = self.dry.first().map_or(0.0, Converter::ahead);
        ahead * f64::from(self.ends.rate_out.hz()) / f64::from(self.ends.rate_in.hz())
            - self.latency.total as f64
    }
}

/// So many frames of a rate as frames of another, in parts of 1/L of them; and L.
fn parts(from: SampleRate, to: SampleRate, frames: usize) -> (i64, i64) {
    let divisor = gcd(from.hz() as usize, to.hz() as usize) as i64;
    (frames as i64 * (i64::from(from.hz()) / divisor), i64::from(to.hz()) / divisor)
}

/// Of a model's rate and own latency, if there is one.
fn latency(model: Option<(SampleRate, usize)>, ends: Ends) -> Latency {
    let out = f64::from(ends.rate_out.hz());
    let at = |frames: usize, rate: SampleRate| frames as f64 * out / f64::from(rate.hz());
    let dry = at(Converter::lookahead(ends.rate_in, ends.rate_out, ends.two_clocks), ends.rate_in);
    let (to_model, model, from_model) = model.map_or((dry, 0.0, 0.0), |(rate, own)| {
        let down = Converter::lookahead(ends.rate_in, rate, ends.two_clocks);
        let up = Converter::lookahead(rate, ends.rate_out, false);
        // Between two rates, up to a row is waited for that the next frame would bring.
        let from_model = if down + up > 0 { at(up + 1, rate) } else { 0.0 };
        (at(down, ends.rate_in), at(own, rate), from_model)
    });
    let total = (to_model + model + from_model).max(dry).ceil() as usize + ends.margin;
    Latency { to_model, model, from_model, margin: ends.margin, total }
}
