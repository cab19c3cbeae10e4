//! A stream of samples at another rate, in real time: any number in, as many out as are ready, nothing allocated after `new`.
//!
//! ```text
//! y[j] = Σ_k x[k] · h(t_j − k)      t_j = t_0 + j · from/to
//! h(u) = 2 f · sinc(2 f u) · Kaiser(u / half)      |u| < half frames of the input
//! half = 32 · max(1, from/to)      f = 0.477 · min(1, to/from)
//! ```
//!
//! A windowed sinc (Smith, Digital Audio Resampling, CCRMA): −6 dB at 95% of the lower Nyquist rate, straight below 86% and more than 85 dB down from
//! 105% on. It needs `half` frames of the input after t_j: 32 of the lower rate's, 2 ms at 16 kHz, where [`resample`](super::resample) needs 32. Whole files take that one.
//!
//! Positions are whole numbers of frames and of fractions of one, so outputs depend on nothing but t_j: cutting a stream into other
//! pieces changes no bit, and nothing adds up over days. [`set_drift`](Converter::set_drift) makes `from` faster or slower by parts in a million, for clocks that
//! are not quite what they say.
//!
//! ```
//! use cascabel::audio::{Converter, SampleRate};
//! let (from, to) = (SampleRate::new(48_000)?, SampleRate::new(16_000)?);
//! let mut down = Converter::new(from, to, 0, 64);
//! let mut out = [0.0; 64];
//! assert_eq!(down.pull(&mut out), 0);
//! down.push(&[0.5; 64]);
//! down.push(&[0.5; 64]);
//! assert_eq!(down.pull(&mut out), 11); // t_10 = 30, and 96 frames more
//! # Ok::<(), cascabel::Error>(())
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

use std::sync::Arc;

use super::SampleRate;
use super::resample::gcd;

/// Frames of the lower rate on either side of an output.
const HALF: usize = 32;
/// Between two of so many phases of a frame, h is a straight line: an error of −107 dB at most.
const PHASES: usize = 512;
/// The cutoff as a share of the lower rate, and the window's shape: 90 dB over the 64 frames of the filter.
const CUTOFF: f64 = 0.4775;
const BETA: f64 = 8.96;
/// Parts of a step of `from/to`, in which a drift is counted.
const FINE: i64 = 1 << 24;
/// Partial sums of a product.
const LANES: usize = 16;

/// One channel's way from a rate to another. Its clones share the filter.
#[derive(Clone)]
pub struct Converter {
    /// [`PHASES`] + 1 rows of 2·half; none where the rates are equal and samples pass as they are.
    table: Arc<[f32]>,
    half: usize,
    /// Samples that are known: x[begin..begin + len].
    line: Box<[f32]>,
    begin: i64,
    len: usize,
    /// t_j: whole frames, and a fraction in units of 1/unit.
    at: i64,
    fraction: i64,
    unit: i64,
    /// from/to in the same units; as it stands and as the drift makes it.
    nominal: i64,
    step: i64,
}

impl Converter {
    /// From a rate to another, for pieces of at most `block` frames; output 0 lies at `start` parts of 1/L frame, where L/M is `to/from`
    /// in lowest terms. Equal rates pass samples on as they are, with no frame of delay but what `start` says.
    pub fn new(from: SampleRate, to: SampleRate, start: i64, block: usize) -> Self {
        let table = if from == to { Arc::default() } else { kernel(from, to) };
        Self::with(table, from, to, start, block)
    }

    /// The same, ready to follow a drift: equal rates are filtered too.
    pub fn drifting(from: SampleRate, to: SampleRate, start: i64, block: usize) -> Self {
        Self::with(kernel(from, to), from, to, start, block)
    }

    fn with(table: Arc<[f32]>, from: SampleRate, to: SampleRate, start: i64, block: usize) -> Self {
        let divisor = gcd(from.hz() as usize, to.hz() as usize) as i64;
        let (m, l) = (i64::from(from.hz()) / divisor, i64::from(to.hz()) / divisor);
        let half = if table.is_empty() { 0 } else { half(from, to) };
        let (at, fraction) = (start.div_euclid(l), start.rem_euclid(l) * FINE);
        // What lies before the first sample is silence, and known.
        let before = usize::try_from(half as i64 - at).unwrap_or(0);
        let (begin, len) = (-(before as i64), before);
        let line = vec![0.0; 2 * (before + 2 * half + block + 1)].into();
        Self {
            table,
            half,
            line,
            begin,
            len,
            at,
            fraction,
            unit: l * FINE,
            nominal: m * FINE,
            step: m * FINE,
        }
    }

    /// Frames of the input, after an output's place, that the output needs.
    pub fn lookahead(from: SampleRate, to: SampleRate, drifting: bool) -> usize {
        if from == to && !drifting { 0 } else { half(from, to) }
    }

    /// Makes the input's rate so many parts in a million more than it says, from the next output on.
    /// Of what is no number, and beyond 1% either way, as much as is credible; equal rates that are passed on follow none.
    pub fn set_drift(&mut self, parts: f64) {
        let parts = if parts.is_finite() && self.half > 0 { parts.clamp(-1e4, 1e4) } else { 0.0 };
        self.step = self.nominal + (self.nominal as f64 * parts * 1e-6) as i64;
    }

    /// Takes the next samples. Those for which there is no room, as nobody pulled for long, push the oldest out.
    pub fn push(&mut self, samples: &[f32]) {
        self.make_room(samples.len());
        let skipped = samples.len().saturating_sub(self.line.len() - self.len);
        self.begin += if skipped > 0 { (skipped + self.len) as i64 } else { 0 };
        if skipped > 0 {
            self.len = 0;
        }
        let fresh = samples.get(skipped..).unwrap_or_default();
        if let Some(place) = self.line.get_mut(self.len..self.len + fresh.len()) {
            place.copy_from_slice(fresh);
            self.len += fresh.len();
        }
    }

    /// Writes the next outputs, as many as are ready and fit, and says how many.
    pub fn pull(&mut self, out: &mut [f32]) -> usize {
        for (n, y) in out.iter_mut().enumerate() {
            if self.at + self.half as i64 >= self.begin + self.len as i64 {
                return n;
            }
            *y = self.here();
            self.advance(1);
        }
        out.len()
    }

    /// How many outputs are ready.
    pub fn ready(&self) -> usize {
        let last = self.begin + self.len as i64 - self.half as i64;
        // t_j < last, so j·step < (last − at)·unit − fraction.
        let room = i128::from(last - self.at) * i128::from(self.unit) - i128::from(self.fraction);
        usize::try_from((room + i128::from(self.step) - 1).div_euclid(i128::from(self.step))).unwrap_or(0)
    }

    /// Leaves out the next outputs, known or not; below 0, goes back by so many.
    pub fn advance(&mut self, outputs: i64) {
        let moved = i128::from(self.fraction) + i128::from(outputs) * i128::from(self.step);
        self.at += moved.div_euclid(i128::from(self.unit)) as i64;
        self.fraction = moved.rem_euclid(i128::from(self.unit)) as i64;
    }

    /// Frames of the input between the next output's place and the last known sample.
    pub fn ahead(&self) -> f64 {
        (self.begin + self.len as i64 - self.at) as f64 - self.fraction as f64 / self.unit as f64
    }

    fn here(&self) -> f32 {
        let first = self.at - self.begin + if self.half > 0 { 1 - self.half as i64 } else { 0 };
        // What was pushed out before it was asked for is silence.
        let Ok(first) = usize::try_from(first) else { return 0.0 };
        let taps = 2 * self.half;
        if taps == 0 {
            return self.line.get(first).copied().unwrap_or(0.0);
        }
        let x = self.line.get(first..first + taps).unwrap_or_default();
        let phase = self.fraction as f64 / self.unit as f64 * PHASES as f64;
        let (row, share) = (phase as usize, phase.fract() as f32);
        let h = self.table.get(row * taps..(row + 2) * taps).unwrap_or_default();
        let (a, b) = h.split_at(taps.min(h.len()));
        (1.0 - share) * product(x, a) + share * product(x, b)
    }

    /// Forgets samples that no output needs any more, if there is too little room.
    fn make_room(&mut self, samples: usize) {
        if self.len + samples <= self.line.len() {
            return;
        }
        let needed = self.at + 1 - self.half as i64 - i64::from(self.half == 0);
        let gone = usize::try_from(needed - self.begin).unwrap_or(0).min(self.len);
        self.line.copy_within(gone..self.len, 0);
        self.begin += gone as i64;
        self.len -= gone;
    }
}

fn half(from: SampleRate, to: SampleRate) -> usize {
    let (from, to) = (from.hz() as usize, to.hz() as usize);
    // A multiple of 8, so that 2·half fills the lanes.
    (HALF * from.max(to)).div_ceil(to).next_multiple_of(LANES / 2)
}

/// Row p holds h(p/PHASES + half − 1 − i) for tap i, scaled so that its sum is 1.
fn kernel(from: SampleRate, to: SampleRate) -> Arc<[f32]> {
    let half = half(from, to);
    let lower = f64::from(to.hz().min(from.hz())) / f64::from(from.hz());
    let row = |p: usize| {
        let taps: Vec<f64> = (0..2 * half)
            .map(|i| {
                let u = p as f64 / PHASES as f64 + half as f64 - 1.0 - i as f64;
                sinc(2.0 * CUTOFF * lower * u) * kaiser(u / half as f64)
            })
            .collect();
        let sum: f64 = taps.iter().sum();
        taps.into_iter().map(move |h| (h / sum) as f32).collect::<Vec<_>>()
    };
    (0..=PHASES).flat_map(row).collect()
}

fn sinc(x: f64) -> f64 {
    let x = std::f64::consts::PI * x;
    if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
}

/// Kaiser's window over −1..1, by the Bessel function I₀, whose series ends where a term adds nothing.
fn kaiser(u: f64) -> f64 {
    let bessel = |x: f64| {
        let mut term = 1.0;
        (1..100).fold(1.0, |sum, k| {
            term *= (x / 2.0 / f64::from(k)).powi(2);
            sum + term
        })
    };
    if u.abs() >= 1.0 { 0.0 } else { bessel(BETA * (1.0 - u * u).sqrt()) / bessel(BETA) }
}

/// Σ x·h in a fixed order: [`LANES`] sums side by side.
fn product(x: &[f32], h: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (x, h) in x.chunks_exact(LANES).zip(h.chunks_exact(LANES)) {
        sums.iter_mut().zip(x.iter().zip(h)).for_each(|(sum, (x, h))| *sum += x * h);
    }
    sums.iter().sum()
}

#[cfg(test)]
#[path = "converter_tests.rs"]
mod tests;
