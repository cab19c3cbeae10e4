//! Every variant's gradients against f64 finite differences, and f32 against f64.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{ScanShape, scan};

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
    }
    let tensor = |data: Vec<f64>, shape: Vec<usize>| Tensor::from_vec(data, shape, &Device::Cpu);
    let h0 = noise(s * len, 3);
    Ok([
        tensor(rows, vec![s, t, shape.row_width()])?,
        tensor(params, vec![shape.params_len()])?,
        tensor(h0, vec![s, shape.state_rows(), d])?,
    ])
}

/// A loss that sees every output and the final state with different weights.
pub(in super::super) fn loss(shape: ScanShape, [rows, params, h0]: &[Tensor; 3]) -> Result<Tensor> {
    let (y, h) = scan(shape, rows, params, h0)?;
    let weights = |x: &Tensor, seed| {
        Tensor::from_vec(noise(x.elem_count(), seed), x.shape(), x.device())?.to_dtype(x.dtype())
    };
    y.mul(&weights(&y, 4)?)?.sum_all()? + h.mul(&weights(&h, 5)?)?.sum_all()?
}

#[test]
fn gradients_agree_with_finite_differences() -> Result<()> {
    for shape in variants(3, 2) {
        let given = inputs(&shape, 2, 150)?;
        let vars = given.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tracked = [0, 1, 2].map(|i| vars[i].as_tensor().clone());
        let grads = loss(shape, &tracked)?.backward()?;
        for (i, var) in vars.iter().enumerate() {
            let Some(found) = grads.get(var) else { candle_core::bail!("no gradient for argument {i}") };
            let found = found.flatten_all()?.to_vec1::<f64>()?;
            let scale = found.iter().fold(0f64, |m, g| m.max(g.abs()));
            assert!(scale > 0.0, "{shape:?} argument {i}");
            for at in (0..found.len()).step_by(1 + found.len() / 60) {
                let shifted = |by: f64| {
                    let mut moved = given.clone();
                    let mut data = given[i].flatten_all()?.to_vec1::<f64>()?;
                    data[at] += by;
                    moved[i] = Tensor::from_vec(data, given[i].shape(), &Device::Cpu)?;
                    loss(shape, &moved)?.to_scalar::<f64>()
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
            let (y64, h64) = scan(shape, &wide[0], &wide[1], &wide[2])?;
            let (y32, h32) = {
                let narrow = |i: usize| wide[i].to_dtype(DType::F32);
                scan(shape, &narrow(0)?, &narrow(1)?, &narrow(2)?)?
            };
            for (a, b) in [(y64, y32), (h64, h32)] {
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
        let vars = inputs(&shape, 2, 200)?;
        let vars = vars.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let (y, h) = scan(shape, &vars[0], &vars[1], &vars[2])?;
        let weights = Tensor::from_vec(noise(y.elem_count(), 6), y.shape(), &Device::Cpu)?;
        let whole = (y.mul(&weights)?.sum_all()? + h.sqr()?.sum_all()?)?.backward()?;
        let (mut parts, mut h) = (Vec::new(), vars[2].as_tensor().clone());
        for (from, len) in [(0, 1), (1, 63), (64, 70), (134, 66)] {
            let (y, next) = scan(shape, &vars[0].narrow(1, from, len)?, &vars[1], &h)?;
            parts.push(y);
            h = next;
        }
        let y = Tensor::cat(&parts, 1)?;
        let cut = (y.mul(&weights)?.sum_all()? + h.sqr()?.sum_all()?)?.backward()?;
        for var in &vars {
            let (Some(a), Some(b)) = (whole.get(var), cut.get(var)) else {
                candle_core::bail!("no gradient")
            };
            let most = |x: &Tensor| x.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>();
            assert!(most(&(a - b)?)? < 1e-10 * most(a)?, "{shape:?}");
        }
    }
    Ok(())
}
