//! How close an estimate x is to its reference y: the figures of an evaluation.
//!
//! ```text
//! si_sdr    10·log₁₀ ‖αy‖²/‖x − αy‖², α = ⟨x, y⟩/‖y‖²      dB   Le Roux et al. 2019, "SDR – half-baked or well done?", eq. 3
//! snr       10·log₁₀ ‖y‖²/‖x − y‖²                          dB   ibid., eq. 1
//! lsd       mean_f √(mean_k (20·log₁₀ |X|/|Y|)²)             dB   Gray & Markel 1976, the L₂ distance; 2,048 by 512
//! stft      mean over resolutions of convergence + log_magnitude  Yamamoto et al. 2020; as in `super::loss`
//! ```
//!
//! Means are not removed. Magnitudes have the floor of [`LossSpec`]'s default (−90 dB). SI-SDR and SNR are held within
//! ±120 dB, beyond which f32 says nothing, and are absent where the reference is silent.
//!
//! ```
//! use cascabel::train::metrics::Meter;
//! let reference: Vec<f32> = (0..4000).map(|t| (t as f32 * 0.1).sin()).collect();
//! let louder: Vec<f32> = reference.iter().map(|y| 1.1 * y).collect();
//! let figures = Meter::new()?.measure(&louder, &reference)?;
//! assert!((figures.snr.unwrap() - 20.0).abs() < 1e-3 && figures.si_sdr.unwrap() > 100.0);
//! # Ok::<(), cascabel::Error>(())
//! ```

use realfft::num_complex::Complex32;
use serde::Serialize;

use crate::audio::stft::Stft;
use crate::error::{Error, Result};
use crate::train::loss::{Loss, LossSpec};

/// The bound of SI-SDR and SNR, dB.
const MOST_DB: f64 = 120.0;

/// The figures of one estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Scale-invariant signal-to-distortion ratio, dB; higher is better.
    pub si_sdr: Option<f64>,
    /// Signal-to-noise ratio, dB; higher is better.
    pub snr: Option<f64>,
    /// Log-spectral distance, dB; lower is better.
    pub lsd: f64,
    /// Multi-resolution STFT distance; lower is better.
    pub stft: f64,
}

/// The plans and memory behind [`Figures`].
pub struct Meter {
    stft: Stft,
    floor: f32,
    distance: Loss,
    grad: Vec<f32>,
    rows: [Vec<Complex32>; 2],
}

impl Meter {
    /// Plans the transforms.
    pub fn new() -> Result<Self> {
        let spec = LossSpec { convergence: 1.0, log_magnitude: 1.0, ..LossSpec::none() };
        // Only the envelope term, which is off, asks for the rate.
        let distance = Loss::new(&spec, 16000)?;
        let stft = Stft::new(2048, 512)?;
        let floor = spec.floor * stft.power().sqrt();
        Ok(Self { stft, floor, distance, grad: Vec::new(), rows: Default::default() })
    }

    /// The figures of `estimate` against `reference`, of one length, 1 or more.
    pub fn measure(&mut self, estimate: &[f32], reference: &[f32]) -> Result<Figures> {
        if estimate.is_empty() || estimate.len() != reference.len() {
            let got = format!("{} and {}", estimate.len(), reference.len());
            return Err(Error::input("estimate and reference", "one length, 1 sample or more", got));
        }
        self.grad.resize(estimate.len(), 0.0);
        let distance = self.distance.value_and_grad(estimate, reference, &mut self.grad)?;
        Ok(Figures {
            si_sdr: si_sdr(estimate, reference),
            snr: snr(estimate, reference),
            lsd: self.lsd(estimate, reference),
            stft: distance.total,
        })
    }

    fn lsd(&mut self, estimate: &[f32], reference: &[f32]) -> f64 {
        for (rows, signal) in self.rows.iter_mut().zip([estimate, reference]) {
            rows.resize(self.stft.frames(signal.len()) * self.stft.bins(), Complex32::default());
            self.stft.forward(signal, rows);
        }
        let bins = self.stft.bins();
        let floor = f64::from(self.floor * self.floor);
        let power = |x: &Complex32| f64::from(x.norm_sqr()) + floor;
        let [x, y] = &self.rows;
        let frame = |(x, y): (&[Complex32], &[Complex32])| {
            let squares = x.iter().zip(y).map(|(x, y)| (10.0 * (power(x) / power(y)).log10()).powi(2));
            (squares.sum::<f64>() / bins as f64).sqrt()
        };
        let sum: f64 = x.chunks(bins).zip(y.chunks(bins)).map(frame).sum();
        sum / self.stft.frames(estimate.len()) as f64
    }
}

/// Scale-invariant signal-to-distortion ratio in dB; none if the reference is silent.
pub fn si_sdr(estimate: &[f32], reference: &[f32]) -> Option<f64> {
    let power = dot(reference, reference);
    let alpha = dot(estimate, reference) / power;
    (power > 0.0).then(|| ratio_db(alpha * alpha * power, off(estimate, reference, alpha)))
}

/// Signal-to-noise ratio in dB; none if the reference is silent.
pub fn snr(estimate: &[f32], reference: &[f32]) -> Option<f64> {
    let power = dot(reference, reference);
    (power > 0.0).then(|| ratio_db(power, off(estimate, reference, 1.0)))
}

/// 10·log₁₀ of a/b, within ±120 dB.
fn ratio_db(a: f64, b: f64) -> f64 {
    if a <= 0.0 {
        return -MOST_DB;
    }
    (10.0 * (a / b).log10()).clamp(-MOST_DB, MOST_DB)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// ‖x − αy‖².
fn off(x: &[f32], y: &[f32], alpha: f64) -> f64 {
    x.iter().zip(y).map(|(x, y)| (f64::from(*x) - alpha * f64::from(*y)).powi(2)).sum()
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::train::random::Dice;

    fn noise(len: usize, level: f32, index: u64) -> Vec<f32> {
        let mut dice = Dice::new(5, index);
        (0..len).map(|_| level * dice.normal()).collect()
    }

    #[test]
    fn known_ratios() {
        // y ⟂ n with ‖y‖ = 10‖n‖: 20 dB; scaling the estimate moves SNR, not SI-SDR.
        let y = [10.0, 10.0, -10.0, -10.0];
        let n = [1.0, -1.0, 1.0, -1.0];
        let x: Vec<f32> = y.iter().zip(n).map(|(y, n)| y + n).collect();
        let half: Vec<f32> = x.iter().map(|x| 0.5 * x).collect();
        for (got, want) in [
            (si_sdr(&x, &y), 20.0),
            (snr(&x, &y), 20.0),
            (si_sdr(&half, &y), 20.0),
            (snr(&half, &y), 10.0 * (400.0f64 / 101.0).log10()),
            (si_sdr(&y, &y), MOST_DB),
            (snr(&[0.0; 4], &y), 0.0),
            (si_sdr(&[0.0; 4], &y), -MOST_DB),
            (si_sdr(&n, &y), -MOST_DB),
        ] {
            assert!((got.unwrap() - want).abs() < 1e-9, "{got:?} for {want}");
        }
        assert_eq!((si_sdr(&x, &[0.0; 4]), snr(&x, &[0.0; 4])), (None, None));
    }

    #[test]
    fn spectral_distances() {
        let mut meter = Meter::new().unwrap();
        let y = noise(9001, 0.1, 1);
        let same = meter.measure(&y, &y).unwrap();
        assert!(same.lsd == 0.0 && same.stft == 0.0);
        // Every bin 6 dB down: 6.02 dB, and (1 − ½) + ln 2.
        let half: Vec<f32> = y.iter().map(|y| 0.5 * y).collect();
        let got = meter.measure(&half, &y).unwrap();
        assert!((got.lsd - 20.0 * 2f64.log10()).abs() < 0.01, "{got:?}");
        assert!((got.stft - 0.5 - 2f64.ln()).abs() < 0.01, "{got:?}");
        let mixed: Vec<f32> = y.iter().zip(noise(9001, 0.05, 2)).map(|(y, n)| y + n).collect();
        let got = meter.measure(&mixed, &y).unwrap();
        assert!((got.snr.unwrap() - 6.02).abs() < 0.2 && got.lsd > 1.0 && got.stft > 0.1, "{got:?}");
        let silent = meter.measure(&y, &vec![0.0; 9001]).unwrap();
        assert!(silent.si_sdr.is_none() && silent.lsd.is_finite() && silent.stft.is_finite());
        assert!(meter.measure(&y, &y[1..]).is_err() && meter.measure(&[], &[]).is_err());
    }
}
