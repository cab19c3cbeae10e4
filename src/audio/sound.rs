//! A sound in memory: every channel's samples, planar, with what is promised of them.
//!
//! Shape: `channels[c][n]`, channel c, frame n. Full scale is ±1; beyond is allowed, NaN and infinity are not.
//!
//! ```
//! use cascabel::audio::{SampleRate, Sound};
//! let sound = Sound::new(SampleRate::new(16_000)?, vec![vec![0.0, 0.5], vec![0.0, -0.5]])?;
//! assert_eq!((sound.channel_count(), sound.frames()), (2, 2));
//! # Ok::<(), cascabel::Error>(())
//! ```

use super::units::SampleRate;
use crate::error::{Error, Result};
use std::fmt;

/// 1 to [`Sound::MAX_CHANNELS`] channels of one length, at least one frame, every sample finite.
#[derive(Clone, PartialEq)]
pub struct Sound {
    rate: SampleRate,
    channels: Vec<Vec<f32>>,
}

impl Sound {
    /// The most channels: as many as the decoders can name.
    pub const MAX_CHANNELS: usize = 26;

    /// A sound of planar channels; refused if the promises above don't hold.
    pub fn new(rate: SampleRate, channels: Vec<Vec<f32>>) -> Result<Self> {
        Self::of("sound", rate, channels)
    }

    /// The same, naming in an error where the samples came from.
    pub fn of(what: &str, rate: SampleRate, channels: Vec<Vec<f32>>) -> Result<Self> {
        let count = channels.len();
        if !(1..=Self::MAX_CHANNELS).contains(&count) {
            let expected = format!("1 to {} channels", Self::MAX_CHANNELS);
            return Err(Error::input(what, expected, count.to_string()));
        }
        let frames = channels.first().map_or(0, Vec::len);
        if frames == 0 {
            return Err(Error::input(what, "at least one frame of sound", "none"));
        }
        for (c, samples) in channels.iter().enumerate() {
            if samples.len() != frames {
                let expected = format!("{frames} frames in every channel");
                return Err(Error::input(what, expected, format!("{} in channel {c}", samples.len())));
            }
            if let Some((n, bad)) = samples.iter().enumerate().find(|(_, x)| !x.is_finite()) {
                let got = format!("{bad} at frame {n} ({:.3} s) of channel {c}", rate.seconds(n));
                return Err(Error::input(what, "finite samples", got));
            }
        }
        Ok(Self { rate, channels })
    }

    /// The sample rate.
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// The samples: `[channel][frame]`.
    pub fn channels(&self) -> &[Vec<f32>] {
        &self.channels
    }

    /// How many channels, 1 or more.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// The length in frames, 1 or more.
    pub fn frames(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// The length in seconds.
    pub fn seconds(&self) -> f64 {
        self.rate.seconds(self.frames())
    }

    /// The mean of the channels.
    pub fn middle(&self) -> Vec<f32> {
        let share = 1.0 / self.channels.len() as f32;
        let mut sum = vec![0.0; self.frames()];
        for channel in &self.channels {
            sum.iter_mut().zip(channel).for_each(|(sum, x)| *sum += share * x);
        }
        sum
    }

    /// The samples, given away.
    pub fn into_channels(self) -> Vec<Vec<f32>> {
        self.channels
    }
}

/// The shape, without the samples.
impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({}, {} channels, {} frames)", self.rate, self.channel_count(), self.frames())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(channels: Vec<Vec<f32>>) -> String {
        Sound::of("a.wav", SampleRate::new(8_000).unwrap(), channels).unwrap_err().to_string()
    }

    #[test]
    fn promises_are_checked_with_positions() {
        assert_eq!(refused(vec![]), "a.wav: expected 1 to 26 channels, got 0");
        assert_eq!(refused(vec![vec![0.0]; 27]), "a.wav: expected 1 to 26 channels, got 27");
        assert_eq!(refused(vec![vec![]]), "a.wav: expected at least one frame of sound, got none");
        let uneven = refused(vec![vec![0.0; 3], vec![0.0; 2]]);
        assert_eq!(uneven, "a.wav: expected 3 frames in every channel, got 2 in channel 1");
        let mut bad = vec![vec![0.0; 16]; 2];
        bad[1][8] = f32::NAN;
        assert_eq!(refused(bad), "a.wav: expected finite samples, got NaN at frame 8 (0.001 s) of channel 1");
        assert!(refused(vec![vec![1.0, f32::NEG_INFINITY]]).contains("-inf at frame 1"));
    }
}
