//! A whole sound through a filter: as long as it was, and in line with what came in.
//!
//! ```text
//! x      the sound at its own rate                         x̃ = resample(x) to the model's rate
//! w̃      apart:   model(x̃_c), for each channel c a stream of its own
//!        linked:  x̃_c − (m − model(m)),  m = mean over c of x̃_c
//! y      (1 − mix)·x + mix·resample(w̃) back to x's rate and length
//! ```
//!
//! The model's output lags by its latency L: L frames of silence are fed after the sound and the first L frames of the output
//! are dropped, so that output n answers input n. Every stream begins in the model's settled state, if its file has one.
//!
//! **Linked.** A filter has no gain that channels could share, so what it takes away from the middle is taken away from every
//! channel alike. What differs between the channels is untouched: the stereo image cannot wander, and noise that differs from
//! channel to channel stays. A model of several channels links them by itself; its channels are taken in groups.
//!
//! Not aligned, nothing is dropped: the output is what the model says, L late and cut to the sound's length, and x is delayed as much
//! for the mix, to the nearest frame of its own rate. Where `mix` is 1, nothing above half the model's rate is left of a sound of a
//! higher one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::open;
use crate::audio::{SampleRate, Sound, resample, resample_to_length};
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, Feed, Limits, Rows};
use crate::model::{Config, Model};
use crate::{Error, Result};

/// Rows that the executor runs at once, and frames between two looks at the stop flag.
const ROWS: usize = 1_024;

fn limits(max_streams: usize) -> Limits {
    Limits { max_rows: ROWS, max_streams }
}

/// What becomes of several channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stereo {
    /// Each channel is filtered by itself.
    #[default]
    Apart,
    /// What is taken from the middle is taken from every channel.
    Linked,
}

/// How a sound is processed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessOptions {
    /// The share of the processed sound: 1 is all of it, 0 returns the input.
    pub mix: f32,
    /// Whether the model's delay is taken out.
    pub align: bool,
    /// What becomes of several channels.
    pub stereo: Stereo,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { mix: 1.0, align: true, stereo: Stereo::Apart }
    }
}

/// A filter opened for whole sounds. One serves any number of sounds, of any rate and channel count.
pub struct Processor<'m> {
    model: &'m Model,
    options: ProcessOptions,
    rate: SampleRate,
    /// Channels of the model.
    width: usize,
    cpu: Cpu,
    stop: Option<Arc<AtomicBool>>,
}

impl<'m> Processor<'m> {
    /// Opens a filter; a model of another kind and a mix outside 0 to 1 are refused.
    pub fn open(model: &'m Model, options: ProcessOptions) -> Result<Self> {
        let Config::Filter(config) = &model.config else {
            return Err(Error::input("model", "a filter (sound to sound)", model.config.kind()));
        };
        if !(0.0..=1.0).contains(&options.mix) {
            return Err(Error::input("mix", "a share of 0 to 1", options.mix.to_string()));
        }
        if options.stereo == Stereo::Linked && config.channels > 1 {
            let got = format!("one of {}", config.channels);
            return Err(Error::input("linked channels", "a model of one channel", got));
        }
        let (rate, cpu) = (SampleRate::new(config.rate)?, open(model, limits(1))?);
        Ok(Self { model, options, rate, width: config.channels, cpu, stop: None })
    }

    /// Makes [`process`](Self::process) return [`Error::Stopped`] soon after the flag is set.
    pub fn stopped_by(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Some(flag);
    }

    /// The sound processed: of the same rate, channel count and length.
    pub fn process(&mut self, sound: &Sound) -> Result<Sound> {
        let (inside, latency) = (resample(sound, self.rate)?, self.model.latency());
        let mut wet = match self.options.stereo {
            Stereo::Linked if sound.channel_count() > 1 => {
                let middle = inside.middle();
                let kept = self.filter(std::slice::from_ref(&middle))?;
                linked(inside.channels(), &middle, kept.first().map_or(&[], Vec::as_slice), latency)
            }
            _ => self.filter(inside.channels())?,
        };
        for channel in &mut wet {
            if self.options.align {
                channel.drain(..latency.min(channel.len()));
            } else {
                channel.truncate(inside.frames());
            }
        }
        let wet = Sound::of("output of the model", self.rate, wet)?;
        let wet = resample_to_length(&wet, sound.rate(), sound.frames())?.into_channels();
        let late = if self.options.align { 0 } else { self.rate.frames_at(sound.rate(), latency) };
        Sound::of("output", sound.rate(), mixed(wet, sound.channels(), late, self.options.mix))
    }

    /// The model over channels at its own rate, one stream for each group of the model's width: `latency` frames more than came in,
    /// so many late.
    fn filter(&mut self, channels: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let (width, latency) = (self.width, self.model.latency());
        if !channels.len().is_multiple_of(width) {
            let expected = format!("a multiple of the model's {width} channels");
            return Err(Error::input("sound", expected, channels.len().to_string()));
        }
        let streams = channels.len() / width;
        if self.cpu.limits().max_streams < streams {
            self.cpu = open(self.model, limits(streams))?;
        }
        (0..streams).for_each(|stream| self.cpu.reset(stream));
        let frames = channels.first().map_or(0, Vec::len);
        let mut out: Vec<Vec<f32>> = channels.iter().map(|_| Vec::with_capacity(frames + latency)).collect();
        let mut input = Vec::with_capacity(ROWS * channels.len());
        let mut output = vec![0.0; ROWS * channels.len()];
        for start in (0..frames + latency).step_by(ROWS) {
            if self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Stopped("a sound was left unfinished".into()));
            }
            let rows = ROWS.min(frames + latency - start);
            let feeds: Vec<Feed> = (0..streams).map(|stream| Feed { stream, rows }).collect();
            input.clear();
            for group in channels.chunks(width) {
                let row = |n: usize| group.iter().map(move |channel| channel.get(n).copied().unwrap_or(0.0));
                input.extend((start..start + rows).flat_map(row));
            }
            let output = output.get_mut(..input.len()).unwrap_or_default();
            self.cpu.advance(&feeds, Rows::Samples(&input), output)?;
            for (group, rows) in out.chunks_mut(width).zip(output.chunks(rows * width)) {
                for (c, channel) in group.iter_mut().enumerate() {
                    channel.extend(rows.iter().skip(c).step_by(width));
                }
            }
        }
        Ok(out)
    }
}

/// Every channel, `latency` late, without what the model took from the middle.
fn linked(channels: &[Vec<f32>], middle: &[f32], kept: &[f32], latency: usize) -> Vec<Vec<f32>> {
    let removed: Vec<f32> = late(middle, latency).zip(kept).map(|(middle, kept)| middle - kept).collect();
    let less = |channel: &Vec<f32>| late(channel, latency).zip(&removed).map(|(x, r)| x - r).collect();
    channels.iter().map(less).collect()
}

/// (1 − mix)·dry + mix·wet, dry so many frames late; exactly one of them at either end.
fn mixed(mut wet: Vec<Vec<f32>>, dry: &[Vec<f32>], frames: usize, mix: f32) -> Vec<Vec<f32>> {
    if mix >= 1.0 {
        return wet;
    }
    for (wet, dry) in wet.iter_mut().zip(dry) {
        wet.iter_mut().zip(late(dry, frames)).for_each(|(wet, dry)| *wet = (1.0 - mix) * dry + mix * *wet);
    }
    wet
}

/// So many frames of silence, then the samples.
fn late(samples: &[f32], frames: usize) -> impl Iterator<Item = f32> {
    std::iter::repeat_n(0.0, frames).chain(samples.iter().copied())
}

#[cfg(test)]
mod tests;
