//! Losses between an estimate x and a target y (waveforms of n samples), each with its gradient ∂L/∂x.
//!
//! ```text
//! l1                    (1/n)·Σ |x − y|
//! si_sdr                −10·log₁₀ (‖αy‖² + e)/(‖x − αy‖² + e),   α = ⟨x, y⟩/(‖y‖² + e),   e = n·10⁻¹⁰
//! ```
//!
//! and, over spectra X, Y scaled by 1/√Σw² (see [`spectral`]) and averaged over the resolutions,
//!
//! ```text
//! convergence           ‖|Y| − |X|‖_F / ‖|Y|‖_F
//! log_magnitude         mean |ln |Y| − ln |X||
//! compressed_magnitude  mean (|Y|^c − |X|^c)²
//! compressed_complex    mean ||Y|^c·e^{i∠Y} − |X|^c·e^{i∠X}|²
//! envelope              mean (1 − correlation of the bands' envelopes over 384 ms), see [`envelope`]
//! ```
//!
//! Where |X| < |Y|, compressed_magnitude counts `asymmetry` times: too little speech is worse than some noise.
//!
//! The total is the sum with the recipe's weights. With `relative` r > 0, the weighted sum S of the terms that measure differences
//! (all but si_sdr and envelope, which are ratios already) enters as r·ln(1 + S/0.01): an example then counts by the share of its
//! error that goes, so that those with loud noise do not say most of what is learned. Magnitudes are √(|X|² + ε²), ε = `floor`: every term and gradient
//! is finite for any finite input, digital silence included. Where a term has a corner (x = y), its gradient is 0.
//!
//! Sources: multi-resolution STFT, Yamamoto, Song & Kim 2020, "Parallel WaveGAN", eq. 3–6 (after Arık, Jun & Diamos
//! 2018); L1 beside it for denoising, Défossez, Synnaeve & Adi 2020, "Real Time Speech Enhancement in the Waveform
//! Domain", §2.2; compressed spectra, Ephrat et al. 2018 (c = 0.3), Braun & Tashev 2021, Schröter et al. 2022
//! ("DeepFilterNet", eq. 10, c = 0.6); asymmetry, Wang et al. 2020, "VoiceFilter-Lite", §2.3; SI-SDR, Le Roux et al. 2019, eq. 3 (without removing the mean; e is ours).
//!
//! ```
//! use cascabel::train::loss::{Loss, LossSpec};
//! let spec: LossSpec = toml::from_str("l1 = 1.0\nconvergence = 0.5\nresolutions = [[64, 16]]").unwrap();
//! let mut loss = Loss::new(&spec, 16000)?;
//! let (estimate, target) = (vec![0.1f32; 500], vec![0.2f32; 500]);
//! let mut grad = vec![0.0; 500];
//! let values = loss.value_and_grad(&estimate, &target, &mut grad)?;
//! assert!((values.parts.l1 - 0.1).abs() < 1e-6 && grad[250] < 0.0);
//! # Ok::<(), cascabel::Error>(())
//! ```

pub mod cross_entropy;
#[cfg(feature = "train-cuda")]
pub mod device;
mod envelope;
mod power;
pub mod spectral;
#[cfg(all(test, feature = "train"))]
mod tests;

use serde::{Deserialize, Serialize};

use self::spectral::Spectral;
use crate::error::{Error, Result};

/// S below which an example counts little more.
const RELATIVE_FLOOR: f64 = 0.01;

/// Power added to both sides of the SI-SDR's fraction, for each sample: −100 dB of full scale.
const SI_SDR_FLOOR: f64 = 1e-10;

/// The loss of a recipe: a weight for each term (0 leaves it out) and the spectra's sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossSpec {
    /// Weight of the mean absolute error of the waveform.
    pub l1: f32,
    /// Weight of the negative SI-SDR, in dB.
    pub si_sdr: f32,
    /// Weight of the spectral convergence.
    pub convergence: f32,
    /// Weight of the mean absolute difference of the log magnitudes, in nepers.
    pub log_magnitude: f32,
    /// Weight of the mean squared difference of the compressed magnitudes.
    pub compressed_magnitude: f32,
    /// Weight of the mean squared difference of the compressed complex spectra.
    pub compressed_complex: f32,
    /// Weight of the mean of 1 − correlation of the bands' envelopes.
    pub envelope: f32,
    /// r, the weight of the logarithm of an example's differences in place of the differences; 0 leaves them as they are.
    pub relative: f32,
    /// How many times compressed_magnitude counts where the estimate is below the target; 1 or more.
    pub asymmetry: f32,
    /// c, the exponent of the compressed terms.
    pub power: f32,
    /// ε, the least magnitude told apart, as the deviation of white noise of full scale 1 (3·10⁻⁵ is −90 dB).
    pub floor: f32,
    /// [length, hop] of each spectrum, in samples.
    pub resolutions: Vec<[usize; 2]>,
}

impl Default for LossSpec {
    /// L1 and multi-resolution STFT with windows of 16, 32 and 64 ms at 16 kHz.
    fn default() -> Self {
        Self {
            l1: 1.0,
            si_sdr: 0.0,
            convergence: 0.5,
            log_magnitude: 0.5,
            compressed_magnitude: 0.0,
            compressed_complex: 0.0,
            envelope: 0.0,
            relative: 0.0,
            asymmetry: 1.0,
            power: 0.3,
            floor: 3e-5,
            resolutions: vec![[256, 64], [512, 128], [1024, 256]],
        }
    }
}

impl LossSpec {
    /// Nothing but zero weights, to switch single terms on.
    pub fn none() -> Self {
        Self { l1: 0.0, convergence: 0.0, log_magnitude: 0.0, ..Self::default() }
    }

    /// Whether any term needs spectra.
    fn is_spectral(&self) -> bool {
        let weights = [
            self.convergence,
            self.log_magnitude,
            self.compressed_magnitude,
            self.compressed_complex,
            self.envelope,
        ];
        weights.iter().any(|w| *w != 0.0)
    }

    /// S, the weighted sum of the terms that measure differences.
    fn differences(&self, parts: &LossParts) -> f64 {
        f64::from(self.l1) * parts.l1
            + f64::from(self.convergence) * parts.convergence
            + f64::from(self.log_magnitude) * parts.log_magnitude
            + f64::from(self.compressed_magnitude) * parts.compressed_magnitude
            + f64::from(self.compressed_complex) * parts.compressed_complex
    }

    /// The weighted sum of the terms, or of the logarithm of some.
    fn total(&self, parts: &LossParts) -> f64 {
        let (relative, differences) = (f64::from(self.relative), self.differences(parts));
        let counted =
            if relative > 0.0 { relative * (differences / RELATIVE_FLOOR).ln_1p() } else { differences };
        counted + f64::from(self.si_sdr) * parts.si_sdr + f64::from(self.envelope) * parts.envelope
    }

    /// What the gradient of S is multiplied by.
    fn share(&self, parts: &LossParts) -> f32 {
        match self.relative {
            0.0 => 1.0,
            relative => (f64::from(relative) / (RELATIVE_FLOOR + self.differences(parts))) as f32,
        }
    }

    fn check(&self) -> Result<()> {
        let weights = [
            ("l1", self.l1),
            ("si_sdr", self.si_sdr),
            ("convergence", self.convergence),
            ("log_magnitude", self.log_magnitude),
            ("compressed_magnitude", self.compressed_magnitude),
            ("compressed_complex", self.compressed_complex),
            ("envelope", self.envelope),
            ("relative", self.relative),
        ];
        for (name, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::input(format!("loss weight {name}"), "0 or more", weight.to_string()));
            }
        }
        if weights.iter().all(|(name, weight)| *weight == 0.0 || *name == "relative") {
            return Err(Error::input("loss", "at least one weight above 0", "none"));
        }
        if !(self.power > 0.0 && self.power <= 1.0) {
            return Err(Error::input("loss power", "above 0, at most 1", self.power.to_string()));
        }
        if !(1.0..=100.0).contains(&self.asymmetry) {
            return Err(Error::input("loss asymmetry", "1 to 100", self.asymmetry.to_string()));
        }
        if !(1e-9..=1.0).contains(&self.floor) {
            return Err(Error::input("loss floor", "1e-9 to 1", self.floor.to_string()));
        }
        if self.is_spectral() && self.resolutions.is_empty() {
            return Err(Error::input("loss resolutions", "at least one [length, hop]", "none"));
        }
        Ok(())
    }
}

/// The terms of a loss before weighting; 0 where a term is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LossParts {
    /// Mean absolute error.
    pub l1: f64,
    /// Negative SI-SDR, dB.
    pub si_sdr: f64,
    /// Spectral convergence.
    pub convergence: f64,
    /// Mean absolute difference of log magnitudes, nepers.
    pub log_magnitude: f64,
    /// Mean squared difference of compressed magnitudes.
    pub compressed_magnitude: f64,
    /// Mean squared difference of compressed spectra.
    pub compressed_complex: f64,
    /// Mean of 1 − correlation of the bands' envelopes.
    pub envelope: f64,
}

/// What one evaluation gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LossValues {
    /// The weighted sum, whose gradient is given.
    pub total: f64,
    /// The terms, unweighted.
    pub parts: LossParts,
}

/// A loss with its plans and memory, made once.
pub struct Loss {
    spec: LossSpec,
    spectra: Vec<Spectral>,
}

impl Loss {
    /// Checks `spec` and plans its transforms for sound at `rate` Hz.
    pub fn new(spec: &LossSpec, rate: u32) -> Result<Self> {
        spec.check()?;
        let sizes: &[[usize; 2]] = if spec.is_spectral() { &spec.resolutions } else { &[] };
        let spectra =
            sizes.iter().map(|[n, hop]| Spectral::new(*n, *hop, rate, spec)).collect::<Result<_>>()?;
        Ok(Self { spec: spec.clone(), spectra })
    }

    /// The loss of `estimate` against `target`; writes its gradient by the estimate to `grad`.
    ///
    /// All three have the same length, 1 or more. Allocates only when that length is greater than any before.
    pub fn value_and_grad(
        &mut self,
        estimate: &[f32],
        target: &[f32],
        grad: &mut [f32],
    ) -> Result<LossValues> {
        if estimate.is_empty() || target.len() != estimate.len() || grad.len() != estimate.len() {
            return Err(Error::input(
                "loss of an estimate",
                "estimate, target and gradient of one length, 1 or more",
                format!("{}, {} and {}", estimate.len(), target.len(), grad.len()),
            ));
        }
        grad.fill(0.0);
        let spec = &self.spec;
        let mut parts = LossParts::default();
        if spec.l1 != 0.0 {
            parts.l1 = estimate.iter().zip(target).map(|(x, y)| f64::from((x - y).abs())).sum::<f64>()
                / estimate.len() as f64;
        }
        if spec.si_sdr != 0.0 {
            parts.si_sdr = negative_si_sdr(estimate, target, spec.si_sdr, grad);
        }
        let share = 1.0 / self.spectra.len().max(1) as f64;
        for spectrum in &mut self.spectra {
            spectrum.measure(estimate, target, share, &mut parts);
        }
        let by = spec.share(&parts);
        pull_l1(estimate, target, spec.l1 * by, grad);
        for spectrum in &mut self.spectra {
            spectrum.pull(by, grad);
        }
        let total = spec.total(&parts);
        Ok(LossValues { total, parts })
    }
}

/// Adds the gradient of the mean absolute error times `weight`.
fn pull_l1(x: &[f32], y: &[f32], weight: f32, grad: &mut [f32]) {
    let step = weight / x.len() as f32;
    for ((x, y), g) in x.iter().zip(y).zip(grad) {
        if x != y {
            *g += step.copysign(x - y);
        }
    }
}

/// Negative SI-SDR in dB; adds its gradient times `weight`.
///
/// With p = ⟨x, y⟩, s = ‖y‖², A = α²s + e, B = ‖x − αy‖² + e, ∂α/∂x = y/(s + e):
/// ∂A = 2αs·∂α and ∂B = 2(x − αy) + 2(αs − p)·∂α.
fn negative_si_sdr(x: &[f32], y: &[f32], weight: f32, grad: &mut [f32]) -> f64 {
    let wide = |x: &f32, y: &f32| (f64::from(*x), f64::from(*y));
    let e = SI_SDR_FLOOR * x.len() as f64;
    let (mut p, mut s) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y).map(|(x, y)| wide(x, y)) {
        p += x * y;
        s += y * y;
    }
    let alpha = p / (s + e);
    let off: f64 = x.iter().zip(y).map(|(x, y)| wide(x, y)).map(|(x, y)| (x - alpha * y).powi(2)).sum();
    let (a, b) = (alpha * alpha * s + e, off + e);
    let scale = 10.0 / std::f64::consts::LN_10;
    let by_x = f64::from(weight) * scale * 2.0 / b;
    let by_y = f64::from(weight) * scale * 2.0 / (s + e) * ((alpha * s - p) / b - alpha * s / a);
    for ((x, y), g) in x.iter().zip(y).zip(grad) {
        let (x, y) = wide(x, y);
        *g += (by_x * (x - alpha * y) + by_y * y) as f32;
    }
    scale * (b / a).ln()
}
