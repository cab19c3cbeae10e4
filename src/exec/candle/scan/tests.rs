//! Every variant's gradients against f64 finite differences, and f32 against f64.

use candle_core::{DType, Device, Result, Tensor};

use super::{ScanShape, Scanned, scan, scan_back};

/// Numbers in −1..1 that look random: a function of the seed.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub(in super::super) fn variants(d: usize, n: usize) -> impl Iterator<Item = ScanShape> {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    flags.into_iter().map(move |(complex, selective)| ScanShape { d, n, complex, selective })
}

/// (rows, params, h₀) of sizes at which the recurrence is stable.
pub(in super::super) fn inputs(shape: &ScanShape, s: usize, t: usize) -> Result<[Tensor; 3]> {
    let (d, len) = (shape.d, shape.state_rows() * shape.d);
    let mut rows = noise(s * t * shape.row_width(), 1);
    if shape.selective {
        for row in rows.chunks_exact_mut(shape.row_width()) {
            row[d..2 * d].iter_mut().for_each(|dt| *dt = 0.01 + 0.2 * dt.abs());
        }
    }
    let mut params = noise(shape.params_len(), 2);
    let real = shape.n * d;
    if shape.selective {
        params[..real].iter_mut().for_each(|a| *a = -0.1 - a.abs());
        params[real..len].iter_mut().for_each(|a| *a *= 3.0);
    } else {
        params[..len].iter_mut().for_each(|a| *a = 0.65 * *a + 0.03);
        // Every second state forgets slowly.
        for i in (0..shape.n).skip(1).step_by(2).flat_map(|k| k * d..(k + 1) * d) {
            let (size, turn) = (0.98 + 0.0199 * params[i].abs(), 3.0 * params[i]);
            params[len + i] *= 0.1;
            params[i] = if shape.complex { size * turn.cos() } else { size };
            if shape.complex {
                params[len + real + i] *= 0.1;
                params[real + i] = size * turn.sin();
            }
        }
    }
    let tensor = |data: Vec<f64>, shape: Vec<usize>| Tensor::from_vec(data, shape, &Device::Cpu);
    let h0 = noise(s * len, 3);
    Ok([
        tensor(rows, vec![s, t, shape.row_width()])?,
        tensor(params, vec![shape.params_len()])?,
        tensor(h0, vec![s, shape.state_rows(), d])?,
    ])
}

/// The gradients of [`loss`] by y and by the final state.
fn seeds(found: &Scanned) -> Result<[Tensor; 2]> {
    let seed = |x: &Tensor, seed| {
        Tensor::from_vec(noise(x.elem_count(), seed), x.shape(), x.device())?.to_dtype(x.dtype())
    };
    Ok([seed(&found.y, 4)?, seed(&found.h, 5)?])
}

/// A loss that sees every output and the final state with different weights.
fn loss(shape: ScanShape, [rows, params, h0]: &[Tensor; 3]) -> Result<f64> {
    let found = scan(shape, rows, params, h0)?;
    let [gy, gh] = seeds(&found)?;
    ((found.y * gy)?.sum_all()? + (found.h * gh)?.sum_all()?)?.to_scalar::<f64>()
}

/// y, the final state, and the gradients of [`loss`] by rows, parameters and initial state.
pub(in super::super) fn there_and_back(shape: ScanShape, given: &[Tensor; 3]) -> Result<[Tensor; 5]> {
    let [rows, params, h0] = given;
    let found = scan(shape, rows, params, h0)?;
    let [gy, gh] = seeds(&found)?;
    let [a, b, c] = scan_back(shape, [rows, params, h0], &found, &gy, Some(&gh))?;
    Ok([found.y, found.h, a, b, c])
}

#[test]
fn gradients_agree_with_finite_differences() -> Result<()> {
    for shape in variants(3, 2) {
        let given = inputs(&shape, 2, 150)?;
        let grads = there_and_back(shape, &given)?;
        for (i, found) in grads[2..].iter().enumerate() {
            let found = found.flatten_all()?.to_vec1::<f64>()?;
            let scale = found.iter().fold(0f64, |m, g| m.max(g.abs()));
            assert!(scale > 0.0, "{shape:?} argument {i}");
            for at in (0..found.len()).step_by(1 + found.len() / 60) {
                let shifted = |by: f64| {
                    let mut moved = given.clone();
                    let mut data = given[i].flatten_all()?.to_vec1::<f64>()?;
                    data[at] += by;
                    moved[i] = Tensor::from_vec(data, given[i].shape(), &Device::Cpu)?;
                    loss(shape, &moved)
                };
                let expected = (shifted(1e-5)? - shifted(-1e-5)?) / 2e-5;
                let error = (found[at] - expected).abs() / (expected.abs() + 1e-3 * scale);
                assert!(error < 1e-4, "{shape:?} argument {i} at {at}: {} for {expected}", found[at]);
            }
        }
    }
    Ok(())
}

#[test]
fn single_precision_stays_close_to_double() -> Result<()> {
    for (d, n, t) in [(1, 1, 1), (5, 16, 65), (100, 4, 300), (192, 3, 129)] {
        for shape in variants(d, n) {
            let wide = inputs(&shape, 1, t)?;
            let narrow = |i: usize| wide[i].to_dtype(DType::F32);
            let double = scan(shape, &wide[0], &wide[1], &wide[2])?;
            let single = scan(shape, &narrow(0)?, &narrow(1)?, &narrow(2)?)?;
            for (a, b) in [(double.y, single.y), (double.h, single.h)] {
                let most = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
                let error = most(&(&a - b.to_dtype(DType::F64)?)?)? / most(&a)?;
                assert!(error < 1e-5, "{shape:?} T {t}: {error}");
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_of_a_cut_signal_equal_the_whole() -> Result<()> {
    for shape in variants(20, 3) {
        let given = inputs(&shape, 2, 200)?;
        let [rows, params, h0] = &given;
        let [_, _, whole @ ..] = there_and_back(shape, &given)?;
        let [gy, mut gh] = seeds(&scan(shape, rows, params, h0)?)?;
        let (mut parts, mut h) = (Vec::new(), h0.clone());
        for (from, len) in [(0, 1), (1, 63), (64, 70), (134, 66)] {
            let found = scan(shape, &rows.narrow(1, from, len)?, params, &h)?;
            let next = found.h.clone();
            parts.push((from, len, h, found));
            h = next;
        }
        let (mut grows, mut gparams) = (Vec::new(), params.zeros_like()?);
        while let Some((from, len, h, found)) = parts.pop() {
            let (rows, gy) = (rows.narrow(1, from, len)?, gy.narrow(1, from, len)?);
            let [a, b, c] = scan_back(shape, [&rows, params, &h], &found, &gy, Some(&gh))?;
            grows.insert(0, a);
            gparams = (gparams + b)?;
            gh = c;
        }
        for (a, b) in whole.iter().zip([Tensor::cat(&grows, 1)?, gparams, gh]) {
            let most = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
            assert!(most(&(a - b)?)? < 1e-10 * most(a)?, "{shape:?}");
        }
    }
    Ok(())
}
