//! Units: a sample rate is a type, so that it cannot be taken for a length.
//!
//! *Frame*: one sample for every channel. A rate is whole Hz from 1,000 to 768,000: below lies no speech and no music,
//! above no converter; a rate outside is a damaged header.
//!
//! ```
//! use cascabel::audio::SampleRate;
//! let rate = SampleRate::new(16_000)?;
//! assert_eq!(rate.to_string(), "16000 Hz");
//! assert_eq!(rate.frames_at(SampleRate::new(48_000)?, 5), 15);
//! assert!(SampleRate::new(8).is_err());
//! # Ok::<(), cascabel::Error>(())
//! ```

use crate::error::{Error, Result};
use std::fmt;

/// A sample rate in Hz, known to lie within [`SampleRate::MIN`]..=[`SampleRate::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleRate(u32);

impl SampleRate {
    /// The lowest rate taken, in Hz.
    pub const MIN: u32 = 1_000;
    /// The highest rate taken, in Hz.
    pub const MAX: u32 = 768_000;

    /// A rate in Hz; refused outside the limits.
    pub fn new(hz: u32) -> Result<Self> {
        Self::of("sample rate", hz)
    }

    /// The same, naming the thing whose rate it is.
    pub fn of(what: &str, hz: u32) -> Result<Self> {
        if (Self::MIN..=Self::MAX).contains(&hz) {
            return Ok(Self(hz));
        }
        let expected = format!("a sample rate of {} to {} Hz", Self::MIN, Self::MAX);
        Err(Error::input(what, expected, format!("{hz} Hz")))
    }

    /// The rate in Hz.
    pub fn hz(self) -> u32 {
        self.0
    }

    /// How long so many frames last, in seconds.
    pub fn seconds(self, frames: usize) -> f64 {
        frames as f64 / f64::from(self.0)
    }

    /// The length at rate `to` of what is `frames` long here: round(frames · to / self), halves up, at least 1 unless
    /// `frames` is 0.
    pub fn frames_at(self, to: Self, frames: usize) -> usize {
        let (from, to, n) = (u128::from(self.0), u128::from(to.0), frames as u128);
        let scaled = (n * to + from / 2) / from;
        usize::try_from(scaled).unwrap_or(usize::MAX).max(frames.min(1))
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        for (hz, good) in
            [(0, false), (8, false), (999, false), (1_000, true), (768_000, true), (768_001, false)]
        {
            assert_eq!(SampleRate::new(hz).is_ok(), good, "{hz}");
        }
        let error = SampleRate::of("a.wav", 8).unwrap_err().to_string();
        assert_eq!(error, "a.wav: expected a sample rate of 1000 to 768000 Hz, got 8 Hz");
    }

    #[test]
    fn lengths_round_and_never_vanish() {
        let rate = |hz| SampleRate::new(hz).unwrap();
        assert_eq!(rate(44_100).frames_at(rate(16_000), 44_100), 16_000);
        assert_eq!(rate(44_100).frames_at(rate(16_000), 4), 1); // 1.45
        assert_eq!(rate(44_100).frames_at(rate(16_000), 7), 3); // 2.54
        assert_eq!(rate(48_000).frames_at(rate(16_000), 1), 1);
        assert_eq!(rate(48_000).frames_at(rate(16_000), 0), 0);
        assert_eq!(rate(1_000).frames_at(rate(768_000), usize::MAX), usize::MAX);
    }
}
