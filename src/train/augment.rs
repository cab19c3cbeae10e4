//! Random changes of a sound: tone filters, band limits, synthetic noise; and its level while it is active.
//!
//! Filters are second-order sections, in the letters of Bristow-Johnson's "Audio EQ Cookbook" with a₀ = 1:
//!
//! ```text
//! y[t] = b₀x[t] + b₁x[t−1] + b₂x[t−2] − a₁y[t−1] − a₂y[t−2]
//! ```
//!
//! ```
//! use cascabel::train::augment::{Biquad, Shape};
//! let mut impulse = vec![0.0f32; 4000];
//! impulse[0] = 1.0;
//! Biquad::new(Shape::LowShelf, 300.0, 16000.0, 0.7, 6.0).run(&mut impulse);
//! let at_zero: f32 = impulse.iter().sum();
//! assert!((20.0 * at_zero.log10() - 6.0).abs() < 0.01);
//! ```

use super::random::Dice;

/// The cookbook's shapes used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Passes below the frequency; the gain is unused.
    LowPass,
    /// Raises or lowers what is below.
    LowShelf,
    /// Raises or lowers what is above.
    HighShelf,
    /// Raises or lowers what is around.
    Peak,
}

/// A second-order section, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

impl Biquad {
    /// A section at `hz` (held to 0.49 of `rate`) with quality `q` and `gain_db`.
    pub fn new(shape: Shape, hz: f32, rate: f32, q: f32, gain_db: f32) -> Self {
        let turn = std::f64::consts::TAU * f64::from((hz / rate).clamp(1e-5, 0.49));
        let (sin, cos) = turn.sin_cos();
        let alpha = sin / (2.0 * f64::from(q));
        let a = 10f64.powf(f64::from(gain_db) / 40.0);
        let (up, down, root) = (a + 1.0, a - 1.0, 2.0 * a.sqrt() * alpha);
        let (b, a) = match shape {
            Shape::LowPass => {
                ([(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
            }
            Shape::Peak => (
                [1.0 + alpha * a, -2.0 * cos, 1.0 - alpha * a],
                [1.0 + alpha / a, -2.0 * cos, 1.0 - alpha / a],
            ),
            Shape::LowShelf => (
                [a * (up - down * cos + root), 2.0 * a * (down - up * cos), a * (up - down * cos - root)],
                [up + down * cos + root, -2.0 * (down + up * cos), up + down * cos - root],
            ),
            Shape::HighShelf => (
                [a * (up + down * cos + root), -2.0 * a * (down + up * cos), a * (up + down * cos - root)],
                [up - down * cos + root, 2.0 * (down - up * cos), up - down * cos - root],
            ),
        };
        Self { b: b.map(|b| b / a[0]), a: [a[1] / a[0], a[2] / a[0]] }
    }

    /// Filters `sound` in place, from silence.
    pub fn run(&self, sound: &mut [f32]) {
        cascade(&[*self], sound);
    }
}

/// Filters `sound` in place, from silence, with one section after the other (transposed direct form II).
///
/// All sections take a sample before the next: each waits for itself alone, so a processor works on several at once.
pub fn cascade<const N: usize>(sections: &[Biquad; N], sound: &mut [f32]) {
    let mut states = [[0f64; 2]; N];
    for x in sound {
        let mut u = f64::from(*x);
        for (Biquad { b: [b0, b1, b2], a: [a1, a2] }, [s1, s2]) in sections.iter().zip(&mut states) {
            let y = b0 * u + *s1;
            *s1 = b1 * u - a1 * y + *s2;
            *s2 = b2 * u - a2 * y;
            u = y;
        }
        *x = u as f32;
    }
}

/// A microphone's or room's tone: a low shelf, a peak and a high shelf, each by up to ±`most` dB.
pub fn tone(dice: &mut Dice, rate: f32, most: f32) -> [Biquad; 3] {
    let mut section = |shape, low: f32, high: f32| {
        let hz = dice.log_uniform(low, high.min(0.45 * rate));
        let (q, gain) = (dice.uniform(0.5, 1.2), dice.uniform(-most, most));
        Biquad::new(shape, hz, rate, q, gain)
    };
    [
        section(Shape::LowShelf, 60.0, 500.0),
        section(Shape::Peak, 200.0, 5000.0),
        section(Shape::HighShelf, 1500.0, 7000.0),
    ]
}

/// Butterworth's low-pass of order 8 at `hz`: a telephone, a codec, an old recording.
pub fn band_limit(hz: f32, rate: f32) -> [Biquad; 4] {
    let quality = |k: usize| 0.5 / (std::f32::consts::PI * (2 * k + 1) as f32 / 16.0).cos();
    std::array::from_fn(|k| Biquad::new(Shape::LowPass, hz, rate, quality(k), 0.0))
}

/// Synthetic noise by the slope of its power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Flat.
    White,
    /// −3 dB an octave.
    Pink,
    /// −6 dB an octave above 20 Hz.
    Brown,
}

impl Colour {
    /// One of the three.
    pub fn any(dice: &mut Dice) -> Self {
        [Self::White, Self::Pink, Self::Brown][dice.below(3)]
    }

    /// Fills `out`; the level is not defined.
    ///
    /// Pink is a sum of first-order low-passes of one white noise, their corners an octave and a half apart and each
    /// with the gain 1/√corner: at any frequency the corners near it weigh most, so the power falls as 1/f. Brown is
    /// one such filter.
    pub fn fill(self, dice: &mut Dice, rate: f32, out: &mut [f32]) {
        let poles: &[f32] = match self {
            Self::White => &[],
            Self::Pink => &[10.0, 28.0, 80.0, 226.0, 640.0, 1810.0, 5120.0, 14480.0],
            Self::Brown => &[20.0],
        };
        // (pole, input gain, state)
        let mut bands: Vec<(f32, f32, f32)> = poles
            .iter()
            .filter(|hz| **hz < 0.5 * rate)
            .map(|hz| {
                let pole = (-std::f32::consts::TAU * hz / rate).exp();
                (pole, (1.0 - pole) / hz.sqrt(), 0.0)
            })
            .collect();
        for out in out {
            let white = dice.normal();
            *out = if bands.is_empty() { white } else { 0.0 };
            for (pole, gain, state) in &mut bands {
                *state = *pole * *state + *gain * white;
                *out += *state;
            }
        }
    }
}

/// Lets the level wander: between points 0.1 to 2 s apart it goes in a straight line (dB) from one draw of 0 to −20 to the next.
pub fn swell(dice: &mut Dice, rate: f32, sound: &mut [f32]) {
    let pace = dice.log_uniform(0.1, 2.0);
    let mut level = dice.uniform(-20.0, 0.0);
    let mut at = 0;
    while at < sound.len() {
        let count = ((dice.uniform(0.5, 1.5) * pace * rate) as usize).max(1);
        let next = dice.uniform(-20.0, 0.0);
        let step = 10f32.powf((next - level) / (20.0 * count as f32));
        let mut gain = 10f32.powf(level / 20.0);
        for x in sound.iter_mut().skip(at).take(count) {
            *x *= gain;
            gain *= step;
        }
        (at, level) = (at + count, next);
    }
}

/// Mean power of `sound`.
pub fn power(sound: &[f32]) -> f64 {
    // Sums side by side, so that none waits for the last.
    let (whole, rest) = sound.as_chunks::<8>();
    let mut sums = [0f64; 8];
    let mut add = |(sum, x): (&mut f64, &f32)| *sum += f64::from(*x) * f64::from(*x);
    whole.iter().for_each(|chunk| sums.iter_mut().zip(chunk).for_each(&mut add));
    sums.iter_mut().zip(rest).for_each(&mut add);
    sums.iter().sum::<f64>() / sound.len().max(1) as f64
}

/// Mean power of the frames of 20 ms that are within 40 dB of the loudest: speech without its pauses.
pub fn active_power(sound: &[f32], rate: f32) -> f64 {
    let frame = ((0.02 * rate) as usize).max(1);
    let powers: Vec<f64> = sound.chunks(frame).map(power).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    let active = powers.iter().filter(|p| **p > 0.0 && **p >= 1e-4 * loudest);
    let (sum, count) = active.fold((0.0, 0usize), |(sum, count), p| (sum + p, count + 1));
    sum / count.max(1) as f64
}

/// Fades both ends of `sound` linearly over `len` samples, at most half of it.
pub fn fade(sound: &mut [f32], len: usize) {
    let (total, len) = (sound.len(), len.min(sound.len() / 2));
    for i in 0..len {
        let gain = (i as f32 + 0.5) / len as f32;
        sound[i] *= gain;
        sound[total - 1 - i] *= gain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::stft::Stft;

    const RATE: f32 = 16000.0;

    /// Gain in dB at `hz`, by the Fourier sum of the impulse response.
    fn gain_db(sections: &[Biquad], hz: f32) -> f64 {
        let mut h = vec![0.0f32; 8000];
        h[0] = 1.0;
        sections.iter().for_each(|s| s.run(&mut h));
        let turn = std::f64::consts::TAU * f64::from(hz / RATE);
        let sum = h.iter().enumerate().fold((0.0, 0.0), |(re, im), (t, h)| {
            let (sin, cos) = (turn * t as f64).sin_cos();
            (re + f64::from(*h) * cos, im - f64::from(*h) * sin)
        });
        20.0 * f64::hypot(sum.0, sum.1).log10()
    }

    #[test]
    fn sections_have_their_gains() {
        let at = |shape, hz| gain_db(&[Biquad::new(shape, 1000.0, RATE, 0.707, 6.0)], hz);
        for (shape, hz, want) in [
            (Shape::LowShelf, 10.0, 6.0),
            (Shape::LowShelf, 1000.0, 3.0),
            (Shape::LowShelf, 7900.0, 0.0),
            (Shape::HighShelf, 10.0, 0.0),
            (Shape::HighShelf, 1000.0, 3.0),
            (Shape::HighShelf, 7900.0, 6.0),
            (Shape::Peak, 1000.0, 6.0),
            (Shape::Peak, 10.0, 0.0),
            (Shape::LowPass, 10.0, 0.0),
            (Shape::LowPass, 1000.0, -3.01),
        ] {
            assert!((at(shape, hz) - want).abs() < 0.05, "{shape:?} at {hz} Hz: {} dB", at(shape, hz));
        }
        let limit = band_limit(3400.0, RATE);
        assert!((gain_db(&limit, 3400.0) + 3.01).abs() < 0.05);
        assert!(gain_db(&limit, 2500.0) > -0.5 && gain_db(&limit, 5500.0) < -40.0);
    }

    #[test]
    fn tones_stay_within_bounds() {
        for index in 0..30 {
            let sections = tone(&mut Dice::new(3, index), RATE, 6.0);
            for hz in [50.0, 300.0, 1000.0, 3000.0, 7500.0] {
                let gain = gain_db(&sections, hz);
                assert!(gain.abs() < 18.5, "{gain} dB at {hz} Hz");
            }
        }
    }

    #[test]
    fn colours_have_their_slopes() {
        for (colour, want) in [(Colour::White, 0.0), (Colour::Pink, -3.01), (Colour::Brown, -6.02)] {
            let mut sound = vec![0.0; 400_000];
            colour.fill(&mut Dice::new(1, 2), RATE, &mut sound);
            let mut stft = Stft::new(1024, 512).unwrap();
            let mut rows = stft.rows(sound.len());
            stft.forward(&sound, &mut rows);
            let band = |low: usize| {
                let bins = low..2 * low;
                let sum: f64 = rows
                    .chunks(513)
                    .map(|row| row[bins.clone()].iter().map(|x| f64::from(x.norm_sqr())).sum::<f64>())
                    .sum();
                10.0 * (sum / low as f64).log10()
            };
            // Octaves from 125 Hz to 4 kHz.
            let slope = (band(128) - band(8)) / 4.0;
            assert!((slope - want).abs() < 0.4, "{colour:?}: {slope} dB an octave");
        }
    }

    #[test]
    fn pauses_do_not_count_as_active() {
        let mut sound = vec![0.0; 16000];
        sound[4000..8000].fill(0.5);
        assert!((active_power(&sound, RATE) - 0.25).abs() < 0.01);
        assert!((power(&sound) - 0.0625).abs() < 1e-6);
        assert_eq!((active_power(&[0.0; 500], RATE), power(&[])), (0.0, 0.0));
    }

    #[test]
    fn fades_meet_in_the_middle_at_most() {
        let mut sound = [1.0; 5];
        fade(&mut sound, 100);
        assert_eq!(sound, [0.25, 0.75, 1.0, 0.75, 0.25]);
    }
}
