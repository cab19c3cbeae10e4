//! Synthetic rooms: a direct sound, a few early reflections, and a tail of decaying noise.
//!
//! ```text
//! h[t] = δ[t] + Σ_i g_i·δ[t − t_i] + c·lowpass(noise)[t]·10^(−3t/T60)      t_i in 1 … 50 ms
//! ```
//!
//! T60 is the time in which the tail falls by 60 dB; c sets the ratio of direct to tail energy (0 … 15 dB). Decaying
//! noise is Moorer 1979, "About this reverberation business"; separate early reflections, Schroeder 1962.
//!
//! The dry sound is turned into two: the *wet* one with all of h, and the *target* with the part of h up to `early`
//! (50 ms, faded out over 10 ms more). Reflections within 50 ms fuse with the direct sound and help intelligibility
//! (the measure C50, ISO 3382-1; the Deep Noise Suppression challenges train towards the same); a causal filter of a
//! few ms could not undo them without damage, while the late tail is what masks words. `early` = 0 asks for the dry
//! sound.

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::random::Dice;

/// The last of the early reflections, seconds.
const EARLY: f32 = 0.05;
/// Over which the target's response fades out, seconds.
const FADE: f32 = 0.01;

/// A random room's response.
pub struct Room {
    /// h, the whole response.
    pub wet: Vec<f32>,
    /// Its early part.
    pub target: Vec<f32>,
}

impl Room {
    /// A room of the given T60; the target keeps `early` seconds.
    pub fn random(dice: &mut Dice, rate: f32, t60: f32, early: f32) -> Self {
        let len = ((t60 * rate) as usize).max(1);
        let decay = |t: usize| 10f32.powf(-3.0 * t as f32 / (t60 * rate));
        let start = ((dice.uniform(0.005, 0.02) * rate) as usize).min(len);
        let pole = (-std::f32::consts::TAU * dice.log_uniform(1500.0, 0.45 * rate.max(8000.0)) / rate).exp();
        let (mut wet, mut state) = (vec![0.0; len], 0.0);
        for (t, h) in wet.iter_mut().enumerate().skip(start) {
            state = pole * state + (1.0 - pole) * dice.normal();
            *h = state * decay(t);
        }
        let energy: f32 = wet.iter().map(|h| h * h).sum();
        let ratio = 10f32.powf(-dice.uniform(0.0, 15.0) / 10.0);
        let gain = if energy > 0.0 { (ratio / energy).sqrt() } else { 0.0 };
        wet.iter_mut().for_each(|h| *h *= gain);
        for _ in 0..4 + dice.below(12) {
            let at = ((dice.uniform(0.001, EARLY) * rate) as usize).min(len - 1);
            let sign = if dice.chance(0.5) { 1.0 } else { -1.0 };
            wet[at] += sign * dice.uniform(0.05, 0.5) * decay(at);
        }
        wet[0] = 1.0;
        let fade = (FADE * rate).max(1.0);
        let keep = |t: usize| {
            if early > 0.0 { (1.0 - (t as f32 - early * rate) / fade).clamp(0.0, 1.0) } else { 0.0 }
        };
        let target = wet.iter().enumerate().map(|(t, h)| if t == 0 { *h } else { h * keep(t) }).collect();
        Self { wet, target }
    }
}

/// Convolution of segments of one length with responses up to a longest one, by one Fourier transform.
#[derive(Clone)]
pub struct Convolver {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    time: Vec<f32>,
    sound: Vec<Complex32>,
    room: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Convolver {
    /// For segments of `segment` samples and responses of up to `response`.
    pub fn new(segment: usize, response: usize) -> Self {
        // A multiple of 2048 has small factors but for a quotient that stays below a hundred or so.
        let size = (segment + response).next_multiple_of(2048);
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
        let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Self {
            time: forward.make_input_vec(),
            sound: forward.make_output_vec(),
            room: forward.make_output_vec(),
            scratch: vec![Complex32::default(); scratch],
            forward,
            inverse,
        }
    }

    /// The sound's samples as they sound through each response, from the first sample on and of the same length.
    ///
    /// # Panics
    /// If the sound or a response is longer than planned for.
    pub fn run<const N: usize>(&mut self, sound: &[f32], responses: [&[f32]; N]) -> [Vec<f32>; N] {
        self.load(sound);
        let done = self.forward.process_with_scratch(&mut self.time, &mut self.sound, &mut self.scratch);
        debug_assert!(done.is_ok(), "buffers have the planned lengths");
        responses.map(|response| {
            assert!(sound.len() + response.len() <= self.time.len(), "longer than planned for");
            self.load(response);
            let done = self.forward.process_with_scratch(&mut self.time, &mut self.room, &mut self.scratch);
            debug_assert!(done.is_ok(), "buffers have the planned lengths");
            let scale = 1.0 / self.time.len() as f32;
            for (room, sound) in self.room.iter_mut().zip(&self.sound) {
                *room *= sound * scale;
            }
            // The product of two real bins is real; rounding must not say otherwise to the inverse.
            let last = self.room.len() - 1;
            self.room[0].im = 0.0;
            self.room[last].im = 0.0;
            let done = self.inverse.process_with_scratch(&mut self.room, &mut self.time, &mut self.scratch);
            debug_assert!(done.is_ok(), "buffers have the planned lengths");
            self.time[..sound.len()].to_vec()
        })
    }

    fn load(&mut self, samples: &[f32]) {
        self.time[..samples.len()].copy_from_slice(samples);
        self.time[samples.len()..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolution_equals_its_sum() {
        let mut dice = Dice::new(1, 1);
        let mut noise = |len: usize| (0..len).map(|_| dice.normal()).collect::<Vec<f32>>();
        let (x, g, h) = (noise(701), noise(93), noise(1));
        let got = Convolver::new(701, 93).run(&x, [&g, &h]);
        for (got, h) in got.iter().zip([&g, &h]) {
            for (t, got) in got.iter().enumerate() {
                let want: f32 = (0..h.len().min(t + 1)).map(|k| h[k] * x[t - k]).sum();
                assert!((got - want).abs() < 1e-3, "{t}: {got}, {want}");
            }
            assert_eq!(got.len(), x.len());
        }
    }

    #[test]
    fn rooms_decay_as_asked() {
        let rate = 16000.0;
        for index in 0..20 {
            let room = Room::random(&mut Dice::new(2, index), rate, 0.6, 0.05);
            assert_eq!((room.wet[0], room.target[0]), (1.0, 1.0));
            let level = |from: f32| {
                let from = (from * rate) as usize;
                10.0 * room.wet[from..from + 800].iter().map(|h| f64::from(h * h)).sum::<f64>().log10()
            };
            // 60 dB in 0.6 s: 40 dB from 0.1 to 0.5 s, to the accuracy of 800 random samples.
            let fall = level(0.1) - level(0.5);
            assert!((fall - 40.0).abs() < 2.5, "{fall} dB");
            let tail: f32 = room.wet[1..].iter().map(|h| h * h).sum();
            assert!(tail < 3.0, "tail {tail}");
            assert_eq!(room.target[..800], room.wet[..800]);
            assert!(room.target[960..].iter().all(|h| *h == 0.0));
        }
    }

    #[test]
    fn no_early_part_is_the_dry_sound() {
        let room = Room::random(&mut Dice::new(2, 0), 16000.0, 0.3, 0.0);
        assert!(room.target[0] == 1.0 && room.target[1..].iter().all(|h| *h == 0.0));
    }
}
