//! Sound played faster or slower: pitch and formants move with it, so that one voice, or one noise, stands for many.
//!
//! Windowed-sinc interpolation (Smith, "Digital Audio Resampling", §§ 2–3): 128 phases of 24 taps, neighbouring phases
//! interpolated; played faster, the sinc is as much wider, so that nothing folds back.

use std::f32::consts::PI;

use crate::wide::wide;

const PHASES: usize = 128;
const TAPS: usize = 24;
/// The sums of a dot product, so that plain loops vectorise.
const LANES: usize = 8;

/// The sample of a source that the first of what is made of it stands at.
pub const DELAY: usize = TAPS / 2 - 1;

/// How many samples of a source `out` samples at `speed` are made of.
pub fn needed(out: usize, speed: f32) -> usize {
    (out as f64 * f64::from(speed)).ceil() as usize + TAPS
}

/// Fills `out` with `source` played `speed` times as fast; `source` has [`needed`] samples.
pub fn play(source: &[f32], speed: f32, out: &mut [f32]) {
    let bank = bank(speed);
    wide(
        #[inline(always)]
        || interpolate(&bank, source, speed, out),
    );
}

#[inline(always)]
fn interpolate(bank: &[[f32; TAPS]], source: &[f32], speed: f32, out: &mut [f32]) {
    for (n, y) in out.iter_mut().enumerate() {
        let at = n as f64 * f64::from(speed);
        let (from, phase) = (at as usize, (at.fract() * PHASES as f64) as f32);
        let Some(x) = source.get(from..from + TAPS) else {
            *y = 0.0;
            continue;
        };
        let (k, between) = (phase as usize, phase.fract());
        let mut sums = [0f32; LANES];
        let (before, after, x) = (bank[k].as_chunks().0, bank[k + 1].as_chunks().0, x.as_chunks().0);
        for ((a, b), x) in before.iter().zip(after).zip(x) {
            let (a, b, x): (&[f32; LANES], &[f32; LANES], &[f32; LANES]) = (a, b, x);
            for i in 0..LANES {
                sums[i] += (a[i] + between * (b[i] - a[i])) * x[i];
            }
        }
        *y = sums.iter().sum();
    }
}

/// Row k answers a place k/128 of a sample past the middle of the taps.
fn bank(speed: f32) -> Vec<[f32; TAPS]> {
    let cutoff = 0.95 / speed.max(1.0);
    let half = TAPS as f32 / 2.0;
    let row = |k: usize| {
        let mut taps: [f32; TAPS] = std::array::from_fn(|i| {
            let x = i as f32 - (half - 1.0) - k as f32 / PHASES as f32;
            let window = (PI * x / (2.0 * half)).cos().powi(2);
            let turn = PI * cutoff * x;
            window * if turn.abs() < 1e-4 { 1.0 } else { turn.sin() / turn }
        });
        let sum: f32 = taps.iter().sum();
        taps.iter_mut().for_each(|t| *t /= sum);
        taps
    };
    (0..=PHASES).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_played_faster_is_a_higher_tone() {
        for speed in [0.6f32, 0.9, 1.0, 1.17, 1.8] {
            let source: Vec<f32> = (0..needed(4000, speed)).map(|t| (t as f32 * 0.2).sin()).collect();
            let mut out = vec![0.0; 4000];
            play(&source, speed, &mut out);
            let worst = out.iter().enumerate().fold(0f64, |worst, (n, y)| {
                let at = n as f64 * f64::from(speed) + DELAY as f64;
                worst.max((f64::from(*y) - (at * 0.2).sin()).abs())
            });
            assert!(worst < 2e-2, "{speed}: {worst}");
        }
    }

    #[test]
    fn what_would_fold_back_is_taken_away() {
        let (speed, hz) = (1.5, 0.85 * PI);
        let source: Vec<f32> = (0..needed(4000, speed)).map(|t| (t as f32 * hz).sin()).collect();
        let mut out = vec![0.0; 4000];
        play(&source, speed, &mut out);
        let power = out.iter().map(|y| y * y).sum::<f32>() / 4000.0;
        assert!(power < 0.02 * 0.5, "{power}");
    }
}
