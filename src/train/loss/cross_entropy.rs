//! Cross-entropy of logits against classes, in nats: `log Σ_c exp(x_c) − x_target`, the mean over rows, and its gradient
//! `(softmax(x) − [target])/rows`. A row whose target is [`NOTHING`] counts nothing, and is none of the rows.
//!
//! ```
//! use cascabel::train::loss::cross_entropy::cross_entropy;
//! let mut grad = [0.0; 4];
//! let loss = cross_entropy(&[0.0; 4], &[1, 0], &mut grad)?; // two rows, two classes, nothing known
//! assert!((loss - 2f64.ln()).abs() < 1e-7 && grad == [0.25, -0.25, -0.25, 0.25]);
//! # Ok::<(), cascabel::Error>(())
//! ```

use crate::{Error, Result};

/// The target of a row that counts nothing.
pub const NOTHING: u32 = u32::MAX;

/// The mean loss of logits `[rows, classes]`, row-major; writes its gradient by the logits to `grad`.
pub fn cross_entropy(logits: &[f32], targets: &[u32], grad: &mut [f32]) -> Result<f64> {
    let classes = logits.len() / targets.len().max(1);
    if classes == 0 || classes * targets.len() != logits.len() || grad.len() != logits.len() {
        let got = format!("{}, {} and {}", logits.len(), targets.len(), grad.len());
        return Err(Error::input("cross-entropy", "rows of logits, a target each, a gradient each", got));
    }
    if let Some(target) = targets.iter().find(|target| **target as usize >= classes && **target != NOTHING) {
        let expected = format!("targets below the {classes} classes");
        return Err(Error::input("cross-entropy", expected, target.to_string()));
    }
    let share = 1.0 / targets.iter().filter(|target| **target != NOTHING).count().max(1) as f64;
    let (mut sum, mut shares) = (0.0, vec![0.0; classes]);
    let rows = logits.chunks_exact(classes).zip(grad.chunks_exact_mut(classes)).zip(targets);
    for ((x, grad), target) in rows {
        if *target == NOTHING {
            grad.fill(0.0);
            continue;
        }
        let most = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        shares.iter_mut().zip(x).for_each(|(s, x)| *s = (f64::from(*x) - most).exp());
        let total: f64 = shares.iter().sum();
        for (c, (g, s)) in grad.iter_mut().zip(&shares).enumerate() {
            let hit = f64::from(u8::from(c == *target as usize));
            *g = ((s / total - hit) * share) as f32;
        }
        sum += total.ln() + most - f64::from(x[*target as usize]);
    }
    Ok(sum * share)
}

/// The same where the logits lie, a GPU.
#[cfg(feature = "train-cuda")]
pub mod device {
    use candle_core::{D, Result, Tensor};

    use crate::exec::candle::cuda::call::{Kernels, kernels, launch, room, tensor, with_all};

    const KERNELS: Kernels = kernels!("cross_entropy");

    /// (the mean loss `[]`, its gradient) of logits `[.., classes]` against classes `[..]`, f32 numbers that are whole. A target
    /// beyond the classes makes the loss NaN; below 0 it counts nothing.
    pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<(Tensor, Tensor)> {
        let (losses, grad) = by_rows(logits, targets, 1.0 / targets.elem_count() as f32)?;
        Ok((losses.mean_all()?, grad))
    }

    /// (each row's loss `[rows]`, the gradient of `share` times their sum).
    pub fn by_rows(logits: &Tensor, targets: &Tensor, share: f32) -> Result<(Tensor, Tensor)> {
        let classes = logits.dim(D::Minus1)?;
        let rows = logits.elem_count() / classes.max(1);
        if targets.elem_count() != rows {
            candle_core::bail!("cross-entropy: expected {rows} targets, got {:?}", targets.dims());
        }
        with_all([logits, targets], |device, [x, t]| {
            let (mut losses, mut grad) = (room(device, rows)?, room(device, rows * classes)?);
            let (grid, results) = (((rows.div_ceil(8), 1), (32, 8)), &mut [&mut losses, &mut grad]);
            let sizes = [rows, classes, share.to_bits() as usize];
            launch(device, (&KERNELS, "cross_entropy"), grid, &[&x, &t], results, &sizes)?;
            Ok((tensor(losses, device, rows), tensor(grad, device, logits.shape())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_differences_and_large_logits_are_safe() -> Result<()> {
        let mut grad = [0.0; 6];
        let targets = [2, 1];
        let large = cross_entropy(&[0.0, 0.0, 0.0, 300.0, 299.0, -300.0], &targets, &mut grad)?;
        assert!((large - (3f64.ln() + (1.0 + 1f64.exp()).ln()) / 2.0).abs() < 1e-6, "{large}");
        let logits = [1.0f32, -2.0, 0.5, 0.0, -1.0, 2.0];
        let loss = cross_entropy(&logits, &targets, &mut grad)?;
        let sum = |x: [f64; 3]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
        let rows = [sum([1.0, -2.0, 0.5]) - 0.5, sum([0.0, -1.0, 2.0]) + 1.0];
        assert!((loss - (rows[0] + rows[1]) / 2.0).abs() < 1e-6, "{loss}");
        for (i, found) in grad.iter().enumerate() {
            let at = |by: f32| {
                let mut moved = logits;
                moved[i] += by;
                cross_entropy(&moved, &targets, &mut [0.0; 6])
            };
            let expected = (at(0.01)? - at(-0.01)?) / 0.02;
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{i}: {found} for {expected}");
        }
        for (logits, targets) in [(&[0.0; 3][..], &[0, 1][..]), (&[0.0; 4], &[0, 2]), (&[], &[])] {
            let mut grad = vec![0.0; logits.len()];
            assert!(cross_entropy(logits, targets, &mut grad).is_err());
        }
        Ok(())
    }

    #[cfg(feature = "train-cuda")]
    #[test]
    #[ignore = "needs an NVIDIA GPU: make gpu-test"]
    fn gpu_cross_entropy_agrees() -> Result<()> {
        use crate::exec::candle::train_error;
        use candle_core::Tensor;
        let gpu = crate::exec::candle::device("cuda")?;
        for (rows, classes) in [(1, 1), (7, 33), (1000, 256)] {
            let mut dice = crate::train::random::Dice::new(5, rows as u64);
            let logits: Vec<f32> = (0..rows * classes).map(|_| 4.0 * dice.normal()).collect();
            let targets: Vec<u32> = (0..rows).map(|_| dice.below(classes) as u32).collect();
            let mut grad = vec![0.0; logits.len()];
            let want = cross_entropy(&logits, &targets, &mut grad)?;
            let run = || {
                let x = Tensor::from_slice(&logits, (rows, classes), &gpu)?;
                let t: Vec<f32> = targets.iter().map(|t| *t as f32).collect();
                let (loss, found) = device::cross_entropy(&x, &Tensor::from_vec(t, rows, &gpu)?)?;
                Ok((loss.to_scalar::<f32>()?, found.flatten_all()?.to_vec1::<f32>()?))
            };
            let (loss, found) = run().map_err(train_error)?;
            assert!((f64::from(loss) - want).abs() < 1e-5 * want.max(1.0), "{loss} for {want}");
            let most = grad.iter().fold(0f32, |m, g| m.max(g.abs())).max(1e-9);
            assert!(grad.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5 * most));
        }
        Ok(())
    }
}
