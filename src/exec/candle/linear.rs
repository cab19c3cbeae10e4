//! `y = W x + b` over rows, as one op with its own backward.
//!
//! Rows `[S, T, k]` are one `[S·T, k]` matrix; W is `[n, k]` and read transposed in place by the matrix product, so no
//! second copy of it is kept. Backward: `x̄ = ȳ W`, `W̄ = ȳᵀ x`, `b̄ = Σ ȳ`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda::{self, view};
use super::math::{Real, vectorised};
use super::tensors::{by_dtype, slice, tensor, with_all};

/// `x·Wᵀ + b` for rows `[.., k]`, `W [n, k]`, `b [n]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.contiguous()?;
    match bias {
        Some(bias) => x.apply_op3(weight, bias, Linear),
        None => x.apply_op2(weight, Linear),
    }
}

struct Linear;

impl Linear {
    fn product<B: BackendStorage>(x: &B, x_layout: &Layout, w: &B, w_layout: &Layout) -> Result<(B, Shape)> {
        let (n, k) = w_layout.shape().dims2()?;
        let Some((last, outer)) = x_layout.dims().split_last() else {
            candle_core::bail!("linear: expected rows, got a scalar")
        };
        if *last != k || !x_layout.is_contiguous() || !w_layout.is_contiguous() {
            candle_core::bail!("linear: expected contiguous rows of {k}, got {x_layout:?} and {w_layout:?}");
        }
        let rows: usize = outer.iter().product();
        let flat = Layout::contiguous_with_offset((rows, k), x_layout.start_offset());
        let y = x.matmul(w, (1, rows, n, k), &flat, &w_layout.transpose(0, 1)?)?;
        let dims: Vec<usize> = outer.iter().copied().chain([n]).collect();
        Ok((y, dims.into()))
    }

    fn back(x: &Tensor, w: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, k) = w.dims2()?;
        let rows = x.elem_count() / k;
        let (flat, grad) = (x.detach().reshape((rows, k))?, grad.reshape((rows, n))?);
        let gx = grad.matmul(&w.detach())?.reshape(x.shape())?;
        Ok((gx, grad.t()?.matmul(&flat)?))
    }
}

#[inline(always)]
fn add_rows<T: Real>(y: &mut [T], b: &[T]) {
    for y in y.chunks_exact_mut(b.len()) {
        for (y, b) in y.iter_mut().zip(b) {
            *y += *b;
        }
    }
}

/// The sum over rows.
#[inline(always)]
pub(super) fn sum_rows<T: Real>(y: &[T], width: usize) -> Vec<T> {
    let mut sum = vec![T::zero(); width];
    for y in y.chunks_exact(width) {
        for (s, y) in sum.iter_mut().zip(y) {
            *s += *y;
        }
    }
    sum
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::product(x, xl, w, wl)
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        w: &candle_core::CudaStorage,
        wl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        Self::product(x, xl, w, wl)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gw) = Self::back(x, w, g)?;
        Ok((Some(gx), Some(gw)))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = Self::product(x, xl, w, wl)?;
        let y = match y {
            CpuStorage::F32(mut y) => {
                let b = slice::<f32>(b, bl)?;
                vectorised(
                    #[inline(always)]
                    || add_rows(&mut y, b),
                );
                CpuStorage::F32(y)
            }
            CpuStorage::F64(mut y) => {
                let b = slice::<f64>(b, bl)?;
                vectorised(
                    #[inline(always)]
                    || add_rows(&mut y, b),
                );
                CpuStorage::F64(y)
            }
            other => candle_core::bail!("linear: expected f32 or f64, got {:?}", other.dtype()),
        };
        Ok((y, shape))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        w: &candle_core::CudaStorage,
        wl: &Layout,
        b: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (y, shape) = Self::product(x, xl, w, wl)?;
        let flat = Layout::contiguous(&shape);
        Ok((cuda::linear::add_row(&x.device, &view(&y, &flat)?, &view(b, bl)?)?, shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gx, gw) = Self::back(x, w, g)?;
        let n = b.elem_count();
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            return Ok((Some(gx), Some(gw), Some(cuda::linear::sum_rows(g, n)?)));
        }
        let gb = by_dtype!(g.dtype(), T => {
            tensor(with_all::<T, 1, _>([g], |[g]| vectorised(#[inline(always)] || sum_rows(g, n)))?, n)?
        });
        Ok((Some(gx), Some(gw), Some(gb)))
    }
}
