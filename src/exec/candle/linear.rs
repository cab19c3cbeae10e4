//! `y = x·Wᵀ` over rows, and the way back: `x̄ = ȳ·W`, `W̄ = ȳᵀ·x`; a row added to every row, `y = x + b`, and back: `b̄ = Σ ȳ`.
//!
//! Rows `[.., k]` are one matrix; W is `[n, k]` and read transposed in place by the matrix product, so no second copy of it is
//! kept. Weights, rows, sums and results are f32 (on the CPU also f64); [`Products`] says what of the factors a GPU multiplies.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::columns::packed;
#[cfg(feature = "train-cuda")]
use super::cuda;
use super::math::Real;
use super::tensors::{by_dtype, tensor, width, with_all};
use crate::wide::wide;

/// How exact a GPU multiplies matrices of f32; the CPU always does as f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// As f32.
    #[default]
    F32,
    /// Factors rounded to 11 significant bits, sums in f32: NVIDIA's TF32.
    Tf32,
    /// Factors rounded to 8 significant bits, sums in f32.
    Bf16,
}

impl Products {
    /// `a·b` of two matrices, either of which may be the transpose of one in memory.
    fn of(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "train-cuda")]
        if a.device().is_cuda() {
            return cuda::linear::product(self, a, b);
        }
        a.matmul(b)
    }
}

/// `x·Wᵀ` for rows `[.., k]`, `W [n, k]`.
pub(super) fn linear(products: Products, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let (last, outer) = (width(x), &x.dims()[..x.rank().saturating_sub(1)]);
    if last != k {
        candle_core::bail!("linear: expected rows of {k}, got {last}");
    }
    let y = products.of(&packed(x)?.reshape((x.elem_count() / k, k))?, &weight.t()?)?;
    y.reshape(outer.iter().copied().chain([n]).collect::<Vec<_>>())
}

/// x̄ of [`linear`].
pub(super) fn input_back(products: Products, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    products.of(&packed(g)?.reshape((x.elem_count() / k, n))?, weight)?.reshape(x.shape())
}

/// W̄ of [`linear`].
pub(super) fn weight_back(products: Products, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let rows = x.elem_count() / k;
    products.of(&packed(g)?.reshape((rows, n))?.t()?, &packed(x)?.reshape((rows, k))?)
}

/// The sum over rows: `[n]`.
pub(super) fn sum_rows(g: &Tensor) -> Result<Tensor> {
    let n = width(g);
    #[cfg(feature = "train-cuda")]
    if g.device().is_cuda() {
        return cuda::linear::sum_rows(g, n);
    }
    by_dtype!(g.dtype(), T => {
        tensor(with_all::<T, 1, _>([g], |[g]| wide(#[inline(always)] || sum_of_rows(g, n)))?, n)
    })
}

/// `x + b` for rows of b's length, on the CPU.
pub(super) fn add_row(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    by_dtype!(y.dtype(), T => {
        let sum = with_all::<T, 2, _>([y, bias], |[y, b]| {
            let mut y = y.to_vec();
            wide(#[inline(always)] || add_to_rows(&mut y, b));
            y
        })?;
        tensor(sum, y.shape())
    })
}

#[inline(always)]
fn add_to_rows<T: Real>(y: &mut [T], b: &[T]) {
    for y in y.chunks_exact_mut(b.len()) {
        for (y, b) in y.iter_mut().zip(b) {
            *y += *b;
        }
    }
}

#[inline(always)]
fn sum_of_rows<T: Real>(y: &[T], width: usize) -> Vec<T> {
    let mut sum = vec![T::zero(); width];
    for y in y.chunks_exact(width) {
        for (s, y) in sum.iter_mut().zip(y) {
            *s += *y;
        }
    }
    sum
}
