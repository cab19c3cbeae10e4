//! Synthetic noises: an endless supply of kinds that no recording covers.
//!
//! ```text
//! coloured   white, pink or brown ([`Colour`])
//! hits       strokes now and then on things that ring: wood, stone, metal, a keyboard
//! drops      many small strokes: rain, fire, gravel, frying
//! motor      a pulse train of wandering rate through a body: engines, hum, buzzing
//! chirps     gliding tones in phrases: birds, crickets, beeps
//! gusts      noise through a band that wanders: wind, water, passing cars
//! ```
//!
//! All but the first and the chirps are an excitation through a bank of resonances (modal synthesis: Adrien 1991, "The
//! Missing Link"), each with r from its T60:
//!
//! ```text
//! y[t] = x[t] + 2r·cos θ·y[t−1] − r²·y[t−2]
//! ```
//!
//! Gusts have a band whose centre moves instead. Levels are not defined; nothing here is silence, and everything is finite.
//!
//! ```
//! use cascabel::train::{noises::Kind, random::Dice};
//! let mut rain = vec![0.0; 16000];
//! Kind::Drops.fill(&mut Dice::new(1, 2), 16000.0, &mut rain);
//! assert!(rain.iter().any(|x| *x != 0.0));
//! ```

use std::f32::consts::TAU;

use super::augment::Colour;
use super::random::Dice;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Steady noise with a slope.
    Coloured,
    /// Strokes on ringing things.
    Hits,
    /// Many small strokes.
    Drops,
    /// A pulse train through a body.
    Motor,
    /// Gliding tones.
    Chirps,
    /// Noise through a wandering band.
    Gusts,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Coloured, Self::Hits, Self::Drops, Self::Motor, Self::Chirps, Self::Gusts];

    /// One of them.
    pub fn any(dice: &mut Dice) -> Self {
        Self::ALL[dice.below(Self::ALL.len())]
    }

    /// Fills `out`, sound at `rate` Hz.
    pub fn fill(self, dice: &mut Dice, rate: f32, out: &mut [f32]) {
        match self {
            Self::Coloured => Colour::any(dice).fill(dice, rate, out),
            Self::Hits => hits(dice, rate, out),
            Self::Drops => drops(dice, rate, out),
            Self::Motor => motor(dice, rate, out),
            Self::Chirps => chirps(dice, rate, out),
            Self::Gusts => gusts(dice, rate, out),
        }
    }
}

/// A resonance: its pole's coefficients, how much of the excitation it gets, and what it last gave.
struct Mode {
    by_one: f32,
    by_two: f32,
    gain: f32,
    last: [f32; 2],
}

impl Mode {
    /// A resonance at `hz` (held below 0.47 of `rate`) that falls by 60 dB in `t60` seconds; the peak of its ringing is
    /// about `gain`.
    fn new(hz: f32, rate: f32, t60: f32, gain: f32) -> Self {
        let turn = TAU * (hz / rate).min(0.47);
        let r = 0.001f32.powf(1.0 / (t60 * rate).max(2.0));
        Self { by_one: 2.0 * r * turn.cos(), by_two: -r * r, gain: gain * turn.sin(), last: [0.0; 2] }
    }

    fn next(&mut self, x: f32) -> f32 {
        let y = self.gain * x + self.by_one * self.last[0] + self.by_two * self.last[1];
        self.last = [y, self.last[0]];
        y
    }

    /// Adds its answer to `excitation`.
    fn ring(&mut self, excitation: &[f32], out: &mut [f32]) {
        for (x, out) in excitation.iter().zip(out) {
            *out += self.next(*x);
        }
    }
}

fn decibels(dice: &mut Dice, least: f32, most: f32) -> f32 {
    10f32.powf(dice.uniform(least, most) / 20.0)
}

/// A burst of noise that dies away within `len` samples, added to `out`.
fn burst(dice: &mut Dice, out: &mut [f32], gain: f32) {
    let fall = 0.01f32.powf(1.0 / out.len().max(1) as f32);
    let mut level = gain;
    for x in out {
        *x += level * dice.normal();
        level *= fall;
    }
}

/// One to three things, each struck at its own pace.
fn hits(dice: &mut Dice, rate: f32, out: &mut [f32]) {
    out.fill(0.0);
    let mut strokes = vec![0.0; out.len()];
    for _ in 0..=dice.below(3) {
        strokes.fill(0.0);
        let (pace, loose) = (dice.log_uniform(0.06, 1.2), dice.uniform(0.0, 0.9));
        let hard = ((dice.log_uniform(0.0003, 0.03) * rate) as usize).max(1);
        let mut at = (dice.uniform(0.0, pace) * rate) as usize;
        while at < out.len() {
            let end = (at + hard).min(out.len());
            let gain = decibels(dice, -20.0, 0.0);
            burst(dice, &mut strokes[at..end], gain);
            at += ((pace * dice.uniform(1.0 - loose, 1.0 + loose)) * rate) as usize + 1;
        }
        let (lowest, t60) = (dice.log_uniform(80.0, 2500.0), dice.log_uniform(0.01, 0.6));
        for _ in 0..2 + dice.below(7) {
            let up = dice.log_uniform(1.0, 12.0);
            let gain = decibels(dice, -24.0, 0.0);
            // What is higher dies sooner.
            let mut mode = Mode::new(lowest * up, rate, t60 * up.powf(-0.6), gain);
            mode.ring(&strokes, out);
        }
        let direct = decibels(dice, -40.0, -6.0);
        out.iter_mut().zip(&strokes).for_each(|(out, x)| *out += direct * x);
    }
}

/// Drops fall on a few resonances at random, 10 to 1500 a second.
fn drops(dice: &mut Dice, rate: f32, out: &mut [f32]) {
    const KINDS: usize = 6;
    out.fill(0.0);
    let often = dice.log_uniform(10.0, 1500.0) / rate / KINDS as f32;
    let spread = dice.uniform(6.0, 40.0);
    let bed = decibels(dice, -60.0, -20.0);
    let [low, high] = [dice.log_uniform(200.0, 1500.0), dice.log_uniform(1500.0, 7500.0)];
    for _ in 0..KINDS {
        let (hz, t60) = (dice.log_uniform(low, high), dice.log_uniform(0.002, 0.06));
        let mut mode = Mode::new(hz, rate, t60, 1.0);
        // Gaps between drops are exponential.
        let mut wait = gap(dice, often);
        for out in out.iter_mut() {
            let mut x = 0.0;
            wait -= 1.0;
            if wait < 0.0 {
                x = decibels(dice, -spread, 0.0);
                wait += gap(dice, often);
            }
            *out += mode.next(x);
        }
    }
    out.iter_mut().for_each(|x| *x += bed * dice.normal());
}

/// An exponential draw with mean 1/`often`, samples.
fn gap(dice: &mut Dice, often: f32) -> f32 {
    -(1.0 - dice.unit() as f32).max(1e-7).ln() / often
}

/// Pulses at a rate that wanders by up to half an octave, some noise, through a body of resonances.
fn motor(dice: &mut Dice, rate: f32, out: &mut [f32]) {
    out.fill(0.0);
    let mut pulses = vec![0.0; out.len()];
    let (base, rough) = (dice.log_uniform(20.0, 500.0), dice.log_uniform(0.001, 0.3));
    let (depth, uneven) = (dice.uniform(0.0, 0.4), dice.uniform(0.0, 6.0));
    let mut drift = Drift::new(dice, rate);
    let mut phase = dice.unit() as f32;
    for x in &mut pulses {
        phase += base * (1.0 + depth * drift.next(dice)) / rate;
        *x = 0.1 * rough * dice.normal();
        if phase >= 1.0 {
            phase -= 1.0;
            *x += decibels(dice, -uneven, 0.0);
        }
    }
    for _ in 0..3 + dice.below(6) {
        let hz = dice.log_uniform(base.max(40.0), 6000.0);
        let gain = decibels(dice, -18.0, 0.0) * (200.0 / hz).sqrt().min(1.0);
        Mode::new(hz, rate, dice.log_uniform(0.002, 0.08), gain).ring(&pulses, out);
    }
}

/// Phrases of tones that glide, with pauses.
fn chirps(dice: &mut Dice, rate: f32, out: &mut [f32]) {
    let hiss = decibels(dice, -70.0, -30.0);
    out.iter_mut().for_each(|x| *x = hiss * dice.normal());
    let (centre, width) = (dice.log_uniform(400.0, 6000.0), dice.log_uniform(1.0, 1.8));
    let (length, pause) = (dice.log_uniform(0.015, 0.5), dice.log_uniform(0.02, 1.0));
    let third = decibels(dice, -40.0, 12.0);
    let mut at = (dice.uniform(0.0, pause) * rate) as usize;
    while at < out.len() {
        let count = ((length * dice.uniform(0.5, 1.5) * rate) as usize).max(8);
        let mut pitch = || (centre * dice.log_uniform(1.0 / width, width)).min(0.45 * rate);
        let (from, to) = (pitch(), pitch());
        let (trill, by) = (dice.log_uniform(5.0, 60.0), dice.uniform(0.0, 0.1));
        let gain = decibels(dice, -18.0, 0.0);
        let mut phase = 0f32;
        for (i, x) in out.iter_mut().skip(at).take(count).enumerate() {
            let done = i as f32 / count as f32;
            let wave = (TAU * trill * i as f32 / rate).sin();
            phase = (phase + (from + (to - from) * done) * (1.0 + by * wave) / rate).fract();
            let tone = (TAU * phase).sin();
            // The cube holds the third partial.
            *x += gain * 4.0 * done * (1.0 - done) * (tone + third * tone.powi(3));
        }
        at += count + (pause * dice.uniform(0.2, 1.8) * rate) as usize;
    }
}

/// White noise through one to three bands whose centre wanders by an octave or two.
fn gusts(dice: &mut Dice, rate: f32, out: &mut [f32]) {
    const HOLD: usize = 32;
    let bed = decibels(dice, -50.0, -20.0);
    let white: Vec<f32> = (0..out.len()).map(|_| dice.normal()).collect();
    out.iter_mut().zip(&white).for_each(|(out, x)| *out = bed * x);
    for _ in 0..=dice.below(3) {
        let (centre, octaves) = (dice.log_uniform(80.0, 4000.0), dice.uniform(0.2, 2.0));
        let (q, swing) = (dice.log_uniform(0.7, 12.0), dice.uniform(0.0, 20.0));
        let (mut drift, mut level) =
            (Drift::new(dice, rate / HOLD as f32), Drift::new(dice, rate / HOLD as f32));
        // Chamberlin's state-variable filter: stable for the frequencies let in here.
        let (mut low, mut band) = (0f32, 0f32);
        for (out, white) in out.chunks_mut(HOLD).zip(white.chunks(HOLD)) {
            let hz = (centre * 2f32.powf(octaves * drift.next(dice))).clamp(20.0, 0.15 * rate);
            let f = 2.0 * (0.5 * TAU * hz / rate).sin();
            let gain = 10f32.powf(swing * level.next(dice) / 20.0) / (f.sqrt() * q.sqrt());
            for (out, x) in out.iter_mut().zip(white) {
                low += f * band;
                band += f * (x - low - band / q);
                *out += gain * f * band;
            }
        }
    }
}

/// A value that wanders smoothly within ±1: straight lines between draws.
struct Drift {
    value: f32,
    step: f32,
    left: usize,
    pace: f32,
    rate: f32,
}

impl Drift {
    fn new(dice: &mut Dice, rate: f32) -> Self {
        let pace = dice.log_uniform(0.03, 2.0);
        Self { value: dice.uniform(-1.0, 1.0), step: 0.0, left: 0, pace, rate }
    }

    fn next(&mut self, dice: &mut Dice) -> f32 {
        if self.left == 0 {
            self.left = ((self.pace * dice.uniform(0.5, 1.5) * self.rate) as usize).max(1);
            self.step = (dice.uniform(-1.0, 1.0) - self.value) / self.left as f32;
        }
        self.left -= 1;
        self.value += self.step;
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::augment::power;

    const RATE: f32 = 16000.0;

    #[test]
    fn every_kind_is_finite_and_heard_and_its_own() {
        for kind in Kind::ALL {
            let mut before = vec![0.0; 48000];
            for index in 0..40 {
                let mut out = vec![9.0; 48000];
                kind.fill(&mut Dice::new(5, index), RATE, &mut out);
                assert!(out.iter().all(|x| x.is_finite()), "{kind:?} {index}");
                let level = power(&out);
                assert!((1e-10..1e8).contains(&level), "{kind:?} {index}: power {level:e}");
                assert_ne!(out, before, "{kind:?} {index}");
                before = out;
            }
        }
    }

    #[test]
    fn a_mode_rings_at_its_frequency_and_dies_in_its_time() {
        for (hz, t60) in [(200.0f32, 0.1f32), (1000.0, 0.5), (5000.0, 0.05)] {
            let mut mode = Mode::new(hz, RATE, t60, 1.0);
            let out: Vec<f32> = (0..16000).map(|t| mode.next(if t == 0 { 1.0 } else { 0.0 })).collect();
            let peak = |from: usize, to: usize| out[from..to].iter().fold(0f32, |m, x| m.max(x.abs()));
            let near = (RATE / hz * 2.0) as usize;
            let late = (t60 * RATE) as usize;
            let fall = 20.0 * (peak(late, late + near) / peak(0, near)).log10();
            assert!((fall + 60.0).abs() < 6.0, "{hz} Hz: {fall} dB after {t60} s");
            let crossings = out[..near * 2].windows(2).filter(|w| (w[0] < 0.0) != (w[1] < 0.0)).count();
            assert!((6..=9).contains(&crossings), "{hz} Hz: {crossings} crossings in four periods");
            assert!((0.5..1.1).contains(&peak(0, near)), "{hz} Hz: peak {}", peak(0, near));
        }
    }

    #[test]
    fn short_lengths_are_filled() {
        for kind in Kind::ALL {
            for len in [0, 1, 31] {
                let mut out = vec![f32::NAN; len];
                kind.fill(&mut Dice::new(3, 1), RATE, &mut out);
                assert!(out.iter().all(|x| x.is_finite()), "{kind:?}, {len}");
            }
        }
    }
}
