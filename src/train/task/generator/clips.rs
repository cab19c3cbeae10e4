//! Clips held in memory: as mu-law tokens, a byte a sample, or as samples where examples vary their gain or speed.

use std::path::{Path, PathBuf};

use crate::audio::mu_law::{SILENCE, decode, encode};
use crate::audio::{SampleRate, read_middle};
use crate::model::GeneratorConfig;
use crate::train::corpus::read_all;
use crate::{Error, Result};

/// One clip and its class.
#[derive(Clone, Debug)]
pub struct Clip {
    sound: Sound,
    class: u32,
}

#[derive(Clone, Debug)]
enum Sound {
    Tokens(Vec<u8>),
    Samples(Vec<f32>),
}

impl Clip {
    /// A clip of these samples, kept as they are where `exact`.
    pub fn new(samples: Vec<f32>, class: u32, exact: bool) -> Self {
        let tokens = |samples: Vec<f32>| samples.into_iter().map(|x| encode(x) as u8).collect();
        let sound = if exact { Sound::Samples(samples) } else { Sound::Tokens(tokens(samples)) };
        Self { sound, class }
    }

    /// Samples.
    pub fn len(&self) -> usize {
        match &self.sound {
            Sound::Tokens(tokens) => tokens.len(),
            Sound::Samples(samples) => samples.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which of the model's classes it is of; 0 where there are none.
    pub fn class(&self) -> u32 {
        self.class
    }

    /// Sample i; before the beginning (none) and after the end there is silence.
    pub fn sample(&self, i: Option<usize>) -> f32 {
        match &self.sound {
            Sound::Tokens(_) => decode(self.token(i, 1.0)),
            Sound::Samples(samples) => i.and_then(|i| samples.get(i)).copied().unwrap_or(0.0),
        }
    }

    /// The token of sample i times `gain`, which is for clips of samples; silence before the beginning and after the end.
    pub fn token(&self, i: Option<usize>, gain: f32) -> u32 {
        match &self.sound {
            Sound::Tokens(tokens) => i.and_then(|i| tokens.get(i)).map_or(SILENCE, |token| (*token).into()),
            Sound::Samples(_) => encode(gain * self.sample(i)),
        }
    }

    /// A clip's first samples, at most `count`.
    fn first(mut self, count: usize) -> Self {
        match &mut self.sound {
            Sound::Tokens(tokens) => tokens.truncate(count),
            Sound::Samples(samples) => samples.truncate(count),
        }
        self
    }

    fn hash(&self, hash: &mut blake3::Hasher) {
        hash.update(&(self.len() as u64).to_le_bytes());
        hash.update(&self.class.to_le_bytes());
        match &self.sound {
            Sound::Tokens(tokens) => hash.update(tokens),
            Sound::Samples(samples) => {
                hash.update(&samples.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
            }
        };
    }
}

/// Clips of one rate, in the order of their files.
#[derive(Clone, Debug)]
pub struct Clips {
    rate: u32,
    clips: Vec<Clip>,
}

impl Clips {
    /// These clips, at `rate` Hz.
    pub fn new(rate: u32, clips: Vec<Clip>) -> Result<Self> {
        if clips.iter().all(Clip::is_empty) {
            return Err(Error::input("clips", "at least one that is not empty", "none"));
        }
        Ok(Self { rate, clips })
    }

    /// Reads files as the model hears them: the mean of their channels at its rate, of the class that their names begin with.
    pub fn read(files: &[PathBuf], config: &GeneratorConfig, exact: bool) -> Result<Self> {
        // A name without a class is told before hours are read.
        let class = |path: &PathBuf| config.class_of(&path.file_stem().unwrap_or_default().to_string_lossy());
        let classes = files.iter().map(class).collect::<Result<Vec<_>>>()?;
        let rate = SampleRate::new(config.rate)?;
        // Of a long piece only the tokens stay: its samples are four times as many bytes.
        let read = |path: &Path| Ok(Clip::new(read_middle(path, rate)?.0, 0, exact));
        let clips = read_all(files, &read)?.into_iter().zip(classes);
        Self::new(config.rate, clips.map(|(clip, class)| Clip { class: class as u32, ..clip }).collect())
    }

    /// The clips.
    pub fn all(&self) -> &[Clip] {
        &self.clips
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Seconds of all.
    pub fn seconds(&self) -> f64 {
        self.clips.iter().map(Clip::len).sum::<usize>() as f64 / f64::from(self.rate)
    }

    /// Only the beginning of each, at most `seconds`, or one sample.
    pub fn first_seconds(mut self, seconds: f32) -> Self {
        let count = ((f64::from(seconds) * f64::from(self.rate)) as usize).max(1);
        self.clips = self.clips.into_iter().map(|clip| clip.first(count)).collect();
        self
    }

    /// A hash of what is kept.
    pub fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        self.clips.iter().for_each(|clip| clip.hash(&mut hash));
        hash.finalize().to_hex().to_string()
    }
}
