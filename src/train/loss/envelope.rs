//! The envelope term: how well the bands' envelopes follow the target's within 384 ms, as STOI measures it.
//!
//! With X, Y the scaled STFTs of [`super::spectral`], bands j of a third of an octave from 150 Hz (15, or as many as lie
//! below half the rate) and stretches s of N frames that overlap by half:
//!
//! ```text
//! x_j[m] = √(Σ_{k∈j} |X_k[m]|² + ε²)        u = x_j[s] − mean, v = y_j[s] − mean
//! ρ_{j,s} = ⟨u, v⟩/(a·b),  a = √(‖u‖² + N·ε²),  b = √(‖v‖² + N·ε²)
//! envelope = Σ_{s active} Σ_j (1 − ρ_{j,s}) / (stretches·bands)
//! ∂ρ/∂x_j[m] = (v_m/b − ρ·u_m/a)/a           ∂x_j[m]/∂X_k[m] = X_k[m]/x_j[m]
//! ```
//!
//! A stretch is active while the target's power in it is within 40 dB of its loudest stretch; of a silent target none is.
//! STOI (Taal, Hendriks, Heusdens & Jensen 2011, "An Algorithm for Intelligibility Prediction of Time–Frequency Weighted
//! Noisy Speech", §II) has 10 kHz, frames of 25.6 ms, drops single silent frames and clips the estimate at −15 dB SDR;
//! frames here are those of the resolution, and nothing is clipped.

use std::ops::Range;

use realfft::num_complex::Complex32;

/// Lowest band's centre, Hz, and how many bands of a third of an octave there are at most.
const LOWEST_HZ: f64 = 150.0;
const BANDS: i32 = 15;
/// Length of a stretch, seconds.
const STRETCH: f64 = 0.384;
/// Least power of an active stretch beside the loudest.
pub(super) const ACTIVE: f32 = 1e-4;

/// The bands' bins in transforms of `n_fft` samples at `rate` Hz.
pub(super) fn bands(n_fft: usize, rate: u32) -> Vec<Range<usize>> {
    let per_bin = f64::from(rate) / n_fft as f64;
    let edge = |thirds: f64| (LOWEST_HZ * 2f64.powf(thirds / 3.0) / per_bin).round() as usize;
    (0..BANDS)
        .map(|j| edge(f64::from(j) - 0.5)..edge(f64::from(j) + 0.5))
        .filter(|band| !band.is_empty() && band.end <= n_fft / 2 + 1)
        .collect()
}

/// How many frames a stretch has.
pub(super) fn stretch(hop: usize, rate: u32) -> usize {
    ((STRETCH * f64::from(rate) / hop as f64).round() as usize).max(2)
}

/// The term at one resolution, with its memory.
pub(super) struct Envelope {
    bands: Vec<Range<usize>>,
    stretch: usize,
    floor: f32,
    x: Vec<f32>,
    y: Vec<f32>,
    /// ∂envelope/∂x_j[m], laid out as x: band by band.
    by_x: Vec<f32>,
}

impl Envelope {
    /// Plans for transforms of `n_fft` samples every `hop` at `rate` Hz and magnitudes down to `floor`.
    pub fn new(n_fft: usize, hop: usize, rate: u32, floor: f32) -> Self {
        let (bands, stretch) = (bands(n_fft, rate), stretch(hop, rate));
        Self { bands, stretch, floor, x: Vec::new(), y: Vec::new(), by_x: Vec::new() }
    }

    /// The term for spectra x and y [frames, bins]; adds `weight` times its gradient by X to `grad` [frames, bins].
    pub fn add(
        &mut self,
        x: &[Complex32],
        y: &[Complex32],
        bins: usize,
        weight: f32,
        grad: &mut [Complex32],
    ) -> f64 {
        let frames = x.len() / bins;
        self.fill(x, y, bins);
        let starts = self.active(frames);
        let count = starts.len() * self.bands.len();
        if count == 0 {
            return 0.0;
        }
        let each = weight / count as f32;
        let mut sum = 0.0;
        for j in 0..self.bands.len() {
            for start in &starts {
                let at = j * frames + start..j * frames + (start + self.stretch).min(frames);
                sum += self.stretch(at, each);
            }
        }
        for (m, (row, x)) in grad.chunks_exact_mut(bins).zip(x.chunks_exact(bins)).enumerate() {
            for (j, band) in self.bands.iter().enumerate() {
                let at = j * frames + m;
                let pull = self.by_x[at] / self.x[at];
                row[band.clone()].iter_mut().zip(&x[band.clone()]).for_each(|(g, x)| *g += x * pull);
            }
        }
        sum / count as f64
    }

    /// The envelopes of both, and no gradient yet.
    fn fill(&mut self, x: &[Complex32], y: &[Complex32], bins: usize) {
        let floor = self.floor * self.floor;
        for (from, to) in [(x, &mut self.x), (y, &mut self.y)] {
            to.clear();
            for band in &self.bands {
                let power =
                    |row: &[Complex32]| row[band.clone()].iter().map(Complex32::norm_sqr).sum::<f32>();
                to.extend(from.chunks_exact(bins).map(|row| (power(row) + floor).sqrt()));
            }
        }
        self.by_x.clear();
        self.by_x.resize(self.x.len(), 0.0);
    }

    /// First frames of the target's active stretches.
    fn active(&self, frames: usize) -> Vec<usize> {
        let starts = (0..frames.saturating_sub(self.stretch / 2).max(1)).step_by((self.stretch / 2).max(1));
        let silence = self.floor * self.floor * (2 * self.stretch * self.bands.len()) as f32;
        let power = |start: usize| -> f32 {
            let end = (start + self.stretch).min(frames);
            (0..self.bands.len())
                .flat_map(|j| &self.y[j * frames + start..j * frames + end])
                .map(|y| y * y)
                .sum()
        };
        let powers: Vec<_> = starts.map(|start| (start, power(start))).collect();
        let loudest = powers.iter().fold(0f32, |most, (_, power)| most.max(*power));
        let least = (ACTIVE * loudest).max(silence);
        powers.into_iter().filter(|(_, power)| *power > least).map(|(start, _)| start).collect()
    }

    /// 1 − ρ over the envelopes' entries `at`; adds `each` times its gradient.
    fn stretch(&mut self, at: Range<usize>, each: f32) -> f64 {
        let (x, y) = (&self.x[at.clone()], &self.y[at.clone()]);
        let n = x.len() as f32;
        let (mx, my) = (x.iter().sum::<f32>() / n, y.iter().sum::<f32>() / n);
        let (mut xx, mut yy, mut xy) = (0f32, 0f32, 0f32);
        for (x, y) in x.iter().zip(y) {
            let (u, v) = (x - mx, y - my);
            xx += u * u;
            yy += v * v;
            xy += u * v;
        }
        let floor = n * self.floor * self.floor;
        let (a, b) = ((xx + floor).sqrt(), (yy + floor).sqrt());
        let rho = xy / (a * b);
        for ((x, y), by_x) in x.iter().zip(y).zip(&mut self.by_x[at]) {
            *by_x -= each * ((y - my) / b - rho * (x - mx) / a) / a;
        }
        1.0 - f64::from(rho)
    }
}
