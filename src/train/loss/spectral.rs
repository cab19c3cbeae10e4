//! The spectral terms of the loss at one resolution.
//!
//! X, Y [frames, bins] are the [`Stft`] divided by √Σw², so that white noise of deviation σ has magnitude σ at every
//! resolution and `floor` means the same everywhere. With r = √(|X|² + ε²), q = √(|Y|² + ε²), K = frames·bins:
//!
//! ```text
//! convergence            D/Q, D = √Σ(r − q)², Q = √Σq²      ∂/∂X = (r − q)/(D·Q) · X/r
//! log_magnitude          (1/K)·Σ|ln r − ln q|                ∂/∂X = ±1/(K·r) · X/r
//! compressed_magnitude   (1/K)·Σ w·(r^c − q^c)²              ∂/∂X = (2c/K)·w·(r^c − q^c)·r^(c−1) · X/r
//! compressed_complex     (1/K)·Σ|r^(c−1)X − q^(c−1)Y|²       ∂/∂X = (2/K)·(r^(c−1)·E + (c−1)·r^(c−3)·(E·X)·X)
//! ```
//!
//! where w is `asymmetry` if r < q and 1 else, E = r^(c−1)X − q^(c−1)Y, E·X is the product of the pairs (Re, Im), and ∂/∂X is such a pair. The gradient of
//! the waveform is the transpose of the STFT applied to their weighted sum.

use realfft::num_complex::Complex32;

use super::envelope::Envelope;
use super::power::powers;
use super::{LossParts, LossSpec};
use crate::audio::stft::Stft;
use crate::error::Result;

/// The spectral terms at one resolution, with the transforms' memory.
pub struct Spectral {
    stft: Stft,
    scale: f32,
    spec: LossSpec,
    x: Vec<Complex32>,
    y: Vec<Complex32>,
    /// r^(c−1) and q^(c−1), where compressed spectra are asked for.
    a: Vec<f32>,
    b: Vec<f32>,
    envelope: Option<Envelope>,
    /// The envelope term's gradient by X.
    by_envelope: Vec<Complex32>,
    pull: Pull,
}

/// The window and the scale 1/√Σw² of transforms of `n_fft` samples every `hop`.
#[cfg(feature = "train-cuda")]
pub(super) fn unit(n_fft: usize, hop: usize) -> Result<(Vec<f32>, f32)> {
    let stft = Stft::new(n_fft, hop)?;
    Ok((stft.window().to_vec(), stft.power().sqrt().recip()))
}

/// Weights of the four gradients of one measurement, the resolution's share, 1/K and the constants of convergence included.
#[derive(Clone, Copy, Default)]
struct Pull {
    convergence: f32,
    log_magnitude: f32,
    magnitude: f32,
    complex: f32,
}

impl Spectral {
    /// Plans transforms of `n_fft` samples every `hop` at `rate` Hz.
    pub fn new(n_fft: usize, hop: usize, rate: u32, spec: &LossSpec) -> Result<Self> {
        let stft = Stft::new(n_fft, hop)?;
        let scale = stft.power().sqrt().recip();
        Ok(Self {
            stft,
            scale,
            spec: spec.clone(),
            x: Vec::new(),
            y: Vec::new(),
            a: Vec::new(),
            b: Vec::new(),
            envelope: (spec.envelope != 0.0).then(|| Envelope::new(n_fft, hop, rate, spec.floor)),
            by_envelope: Vec::new(),
            pull: Pull::default(),
        })
    }

    /// Adds `share` of each term to `parts`.
    pub fn measure(&mut self, x: &[f32], y: &[f32], share: f64, parts: &mut LossParts) {
        let cells = self.stft.frames(x.len()) * self.stft.bins();
        self.x.resize(cells, Complex32::default());
        self.y.resize(cells, Complex32::default());
        self.stft.forward(x, &mut self.x);
        self.stft.forward(y, &mut self.y);
        for cell in self.x.iter_mut().chain(&mut self.y) {
            *cell *= self.scale;
        }
        if self.spec.compressed_magnitude != 0.0 || self.spec.compressed_complex != 0.0 {
            let (power, floor) = (self.spec.power - 1.0, self.spec.floor);
            powers(power, self.x.iter().map(|x| magnitude(x, floor)), &mut self.a);
            powers(power, self.y.iter().map(|y| magnitude(y, floor)), &mut self.b);
        } else {
            self.a.resize(cells, 0.0);
            self.b.resize(cells, 0.0);
        }
        self.pull = self.sum(share, parts);
        if let Some(envelope) = &mut self.envelope {
            self.by_envelope.clear();
            self.by_envelope.resize(cells, Complex32::default());
            let weight = self.spec.envelope * share as f32;
            parts.envelope +=
                share * envelope.add(&self.x, &self.y, self.stft.bins(), weight, &mut self.by_envelope);
        }
    }

    /// Adds the weighted gradient of what was measured last to `grad`, that of all terms but the envelope's times `by`.
    pub fn pull(&mut self, by: f32, grad: &mut [f32]) {
        self.pull_spectrum(by);
        self.x.iter_mut().zip(&self.by_envelope).for_each(|(x, by)| *x += by * self.scale);
        self.stft.adjoint(&self.x, grad);
    }

    /// Adds the terms' values to `parts` and returns the weights of their gradients.
    fn sum(&self, share: f64, parts: &mut LossParts) -> Pull {
        let spec = &self.spec;
        let (mut off, mut size, mut logs, mut magnitudes, mut complexes) = (0f64, 0f64, 0f64, 0f64, 0f64);
        let weight = |off: f32| if off < 0.0 { spec.asymmetry } else { 1.0 };
        let compressed = spec.compressed_magnitude != 0.0 || spec.compressed_complex != 0.0;
        for ((x, y), (a, b)) in self.x.iter().zip(&self.y).zip(self.a.iter().zip(&self.b)) {
            let (r, q) = (magnitude(x, spec.floor), magnitude(y, spec.floor));
            off += f64::from((r - q) * (r - q));
            size += f64::from(q * q);
            if spec.log_magnitude != 0.0 {
                logs += f64::from((r / q).ln().abs());
            }
            if compressed {
                let off = r * a - q * b;
                magnitudes += f64::from(off * off * weight(off));
                complexes += f64::from((x * a - y * b).norm_sqr());
            }
        }
        let each = share / self.x.len() as f64;
        let (off, size) = (off.sqrt(), size.sqrt());
        let used = |weight: f32, value: f64| if weight != 0.0 { value } else { 0.0 };
        parts.convergence += used(spec.convergence, share * off / size);
        parts.log_magnitude += each * logs;
        parts.compressed_magnitude += used(spec.compressed_magnitude, each * magnitudes);
        parts.compressed_complex += used(spec.compressed_complex, each * complexes);
        // No estimate is closer than an equal one: there the slope of convergence is taken as 0.
        let convergence = if off > 0.0 { share / (off * size) } else { 0.0 };
        Pull {
            convergence: spec.convergence * convergence as f32,
            log_magnitude: spec.log_magnitude * each as f32,
            magnitude: spec.compressed_magnitude * 2.0 * spec.power * each as f32,
            complex: spec.compressed_complex * 2.0 * each as f32,
        }
    }

    /// Replaces X by `by` times the weighted gradient by the unscaled spectrum.
    fn pull_spectrum(&mut self, by: f32) {
        let all = self.pull;
        let pull = Pull {
            convergence: by * all.convergence,
            log_magnitude: by * all.log_magnitude,
            magnitude: by * all.magnitude,
            complex: by * all.complex,
        };
        let (c, scale, floor) = (self.spec.power, self.scale, self.spec.floor);
        let asymmetry = self.spec.asymmetry;
        let weight = |off: f32| if off < 0.0 { asymmetry } else { 1.0 };
        let compressed = pull.magnitude != 0.0 || pull.complex != 0.0;
        for ((x, y), (a, b)) in self.x.iter_mut().zip(&self.y).zip(self.a.iter().zip(&self.b)) {
            let (a, b) = (*a, *b);
            let (r, q) = (magnitude(x, floor), magnitude(y, floor));
            let mut radial = pull.convergence * (r - q);
            if r != q {
                radial += (pull.log_magnitude / r).copysign(r - q);
            }
            let mut g = Complex32::default();
            if compressed {
                let off = r * a - q * b;
                radial += pull.magnitude * weight(off) * off * a;
                let e = *x * a - *y * b;
                let along = (e.re * x.re + e.im * x.im) / (r * r);
                g = (e + *x * ((c - 1.0) * along)) * (a * pull.complex);
            }
            *x = (g + *x * (radial / r)) * scale;
        }
    }
}

/// √(|x|² + ε²).
fn magnitude(x: &Complex32, floor: f32) -> f32 {
    (x.norm_sqr() + floor * floor).sqrt()
}
