//! The short-time Fourier transform, and its transpose for gradients.
//!
//! Row f of the transform of x[0..len] is, for k = 0 … n/2 with n = `n_fft`,
//!
//! ```text
//! X[f, k] = Σ_j w[j] · x[f·hop − n/2 + j] · exp(−2πi·k·j/n)        w[j] = ½ − ½·cos(2πj/n)   (periodic Hann)
//! ```
//!
//! with x = 0 outside the signal, for f = 0 … ⌊len/hop⌋: the frames and the phase of `torch.stft(center=True)`,
//! whose only difference is that it may reflect the signal at its ends. Nothing is scaled; [`Stft::power`] is Σw².
//!
//! The transpose takes G[f, k] = ∂L/∂Re X + i·∂L/∂Im X of a real L to ∂L/∂x, exactly (to rounding).
//!
//! ```
//! use cascabel::audio::stft::Stft;
//! let mut stft = Stft::new(256, 64)?;
//! let tone: Vec<f32> = (0..1000).map(|t| (t as f32 * 0.3).sin()).collect();
//! let mut rows = stft.rows(tone.len());
//! stft.forward(&tone, &mut rows);
//! assert_eq!(rows.len(), stft.frames(tone.len()) * stft.bins());
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::error::{Error, Result};

/// The largest transform accepted: 2²⁰ samples.
const MAX_N_FFT: usize = 1 << 20;

/// A planned transform with its window and scratch memory; only [`Stft::rows`] and `new` allocate.
pub struct Stft {
    n_fft: usize,
    hop: usize,
    window: Vec<f32>,
    to_bins: Arc<dyn RealToComplex<f32>>,
    to_time: Arc<dyn ComplexToReal<f32>>,
    time: Vec<f32>,
    row: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Stft {
    /// Plans transforms of `n_fft` samples (even, 2 … 2²⁰), one every `hop` samples (1 … `n_fft`).
    pub fn new(n_fft: usize, hop: usize) -> Result<Self> {
        if !n_fft.is_multiple_of(2) || !(2..=MAX_N_FFT).contains(&n_fft) {
            return Err(Error::input("STFT length", "an even number, 2 to 1048576", n_fft.to_string()));
        }
        if hop == 0 || hop > n_fft {
            return Err(Error::input("STFT hop", format!("1 to {n_fft}, the STFT length"), hop.to_string()));
        }
        let mut planner = RealFftPlanner::<f32>::new();
        let (to_bins, to_time) = (planner.plan_fft_forward(n_fft), planner.plan_fft_inverse(n_fft));
        let scratch = to_bins.get_scratch_len().max(to_time.get_scratch_len());
        let turn = std::f64::consts::TAU / n_fft as f64;
        Ok(Self {
            n_fft,
            hop,
            window: (0..n_fft).map(|j| (0.5 - 0.5 * (turn * j as f64).cos()) as f32).collect(),
            time: to_bins.make_input_vec(),
            row: to_bins.make_output_vec(),
            scratch: vec![Complex32::default(); scratch],
            to_bins,
            to_time,
        })
    }

    /// Samples in one transform.
    pub fn n_fft(&self) -> usize {
        self.n_fft
    }

    /// Samples from one frame to the next.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// The window w.
    pub fn window(&self) -> &[f32] {
        &self.window
    }

    /// Bins in a row: `n_fft`/2 + 1, from 0 to half the sample rate.
    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Rows of a signal of `len` samples: ⌊len/hop⌋ + 1.
    pub fn frames(&self, len: usize) -> usize {
        len / self.hop + 1
    }

    /// Σ w²: white noise of variance σ² has E|X|² = σ²·Σw² in every bin.
    pub fn power(&self) -> f32 {
        self.window.iter().map(|w| w * w).sum()
    }

    /// Σ w: a sine of amplitude a has |X| = a·Σw/2 in its bin.
    pub fn gain(&self) -> f32 {
        self.window.iter().sum()
    }

    /// Zeroed memory for the transform of `len` samples: [frames, bins].
    pub fn rows(&self, len: usize) -> Vec<Complex32> {
        vec![Complex32::default(); self.frames(len) * self.bins()]
    }

    /// Writes the transform of `signal` to `rows` [frames, bins].
    ///
    /// # Panics
    /// If `rows` is not as long as `self.rows(signal.len())`.
    pub fn forward(&mut self, signal: &[f32], rows: &mut [Complex32]) {
        assert_eq!(rows.len(), self.frames(signal.len()) * self.bins(), "rows of the STFT");
        let bins = self.bins();
        for (f, row) in rows.chunks_exact_mut(bins).enumerate() {
            let (from, skip, count) = self.span(f, signal.len());
            self.time.fill(0.0);
            let inside = self.time.iter_mut().zip(&self.window).skip(skip);
            for ((t, w), x) in inside.zip(&signal[from..from + count]) {
                *t = w * x;
            }
            let done = self.to_bins.process_with_scratch(&mut self.time, row, &mut self.scratch);
            debug_assert!(done.is_ok(), "buffers have the planned lengths");
        }
    }

    /// Adds to `signal` the transpose of [`Stft::forward`] applied to `rows` [frames, bins].
    ///
    /// # Panics
    /// If `rows` is not as long as `self.rows(signal.len())`.
    pub fn adjoint(&mut self, rows: &[Complex32], signal: &mut [f32]) {
        assert_eq!(rows.len(), self.frames(signal.len()) * self.bins(), "rows of the STFT");
        let bins = self.bins();
        for (f, row) in rows.chunks_exact(bins).enumerate() {
            // The inverse real transform counts each inner bin twice (it stands for its mirror image too), the
            // outer two once, and takes those as real.
            for (to, g) in self.row.iter_mut().zip(row) {
                *to = g * 0.5;
            }
            for end in [0, bins - 1] {
                self.row[end] = Complex32::new(row[end].re, 0.0);
            }
            let done = self.to_time.process_with_scratch(&mut self.row, &mut self.time, &mut self.scratch);
            debug_assert!(done.is_ok(), "buffers have the planned lengths");
            let (from, skip, count) = self.span(f, signal.len());
            let inside = self.time.iter().zip(&self.window).skip(skip);
            for ((t, w), x) in inside.zip(&mut signal[from..from + count]) {
                *x += w * t;
            }
        }
    }

    /// The part of frame `f` inside a signal of `len` samples: its first sample, the window's samples before it, and
    /// its length.
    fn span(&self, f: usize, len: usize) -> (usize, usize, usize) {
        let centre = f * self.hop;
        let from = centre.saturating_sub(self.n_fft / 2);
        let to = (centre + self.n_fft / 2).min(len);
        (from, (self.n_fft / 2).saturating_sub(centre), to.saturating_sub(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut seed: u64) -> Vec<f32> {
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((seed >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// The definition, term by term, in f64.
    fn by_definition(x: &[f32], n: usize, hop: usize) -> Vec<(f64, f64)> {
        let turn = std::f64::consts::TAU / n as f64;
        let mut rows = Vec::new();
        for f in 0..=x.len() / hop {
            for k in 0..=n / 2 {
                let mut sum = (0.0, 0.0);
                for j in 0..n {
                    let at = (f * hop + j) as i64 - (n / 2) as i64;
                    let Some(v) = usize::try_from(at).ok().and_then(|at| x.get(at)) else { continue };
                    let v = f64::from(*v) * (0.5 - 0.5 * (turn * j as f64).cos());
                    let angle = turn * ((k * j) % n) as f64;
                    sum = (sum.0 + v * angle.cos(), sum.1 - v * angle.sin());
                }
                rows.push(sum);
            }
        }
        rows
    }

    #[test]
    fn equals_its_definition() {
        for (len, n, hop) in [(1, 16, 4), (97, 16, 16), (200, 32, 7), (5, 64, 16), (129, 30, 10)] {
            let x = noise(len, 3);
            let mut stft = Stft::new(n, hop).unwrap();
            let mut rows = stft.rows(len);
            stft.forward(&x, &mut rows);
            for (got, want) in rows.iter().zip(by_definition(&x, n, hop)) {
                let off = (f64::from(got.re) - want.0).hypot(f64::from(got.im) - want.1);
                assert!(off < 1e-5, "len {len} n {n} hop {hop}: off by {off}");
            }
        }
    }

    #[test]
    fn the_adjoint_is_the_transpose() {
        for (len, n, hop) in [(1, 16, 4), (97, 16, 16), (200, 32, 7), (5, 64, 16), (1001, 30, 10)] {
            let mut stft = Stft::new(n, hop).unwrap();
            let x = noise(len, 5);
            let mut rows = stft.rows(len);
            stft.forward(&x, &mut rows);
            let g: Vec<_> = noise(2 * rows.len(), 7).chunks(2).map(|c| Complex32::new(c[0], c[1])).collect();
            let mut back = vec![0.0; len];
            stft.adjoint(&g, &mut back);
            let dot = |a: f32, b: f32| f64::from(a) * f64::from(b);
            let above: f64 = rows.iter().zip(&g).map(|(r, g)| dot(r.re, g.re) + dot(r.im, g.im)).sum();
            let below: f64 = x.iter().zip(&back).map(|(x, b)| dot(*x, *b)).sum();
            let size = rows.iter().map(|r| f64::from(r.norm())).sum::<f64>().max(1e-9);
            assert!((above - below).abs() < 1e-5 * size, "⟨Fx, g⟩ = {above}, ⟨x, Fᵀg⟩ = {below}");
        }
    }

    #[test]
    fn bad_sizes_are_errors() {
        for (n, hop) in [(0, 1), (15, 4), (16, 0), (16, 17), (MAX_N_FFT + 2, 4)] {
            assert!(Stft::new(n, hop).is_err(), "n {n} hop {hop}");
        }
    }
}
