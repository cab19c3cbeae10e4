//! LayerNorm and RMSNorm over rows, fused: `y = (x − μ)·r·w + b`, `r = 1/√(mean((x − μ)²) + ε)`; μ = 0 and no b for RMSNorm.
//!
//! Backward, with `x̂ = (x − μ)·r` and `ĝ = ȳ·w`: `x̄ = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂))` (without mean(ĝ) for RMSNorm),
//! `w̄ = Σ ȳ·x̂`, `b̄ = Σ ȳ` (Ba et al. 2016; Zhang & Sennrich 2019).

use candle_core::{Result, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda;
use super::math::{Real, dot, sum};
use super::tensors::{by_dtype, tensor, with_all};
use crate::wide::wide;

/// Which norm.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    /// ε.
    pub eps: f32,
    /// LayerNorm, which takes the mean away; RMSNorm otherwise.
    pub centred: bool,
}

impl Norm {
    /// The norm of each row; no bias for RMSNorm.
    pub fn of(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        #[cfg(feature = "train-cuda")]
        if x.device().is_cuda() {
            return cuda::norm::forward(x, weight, bias, self.eps, self.centred);
        }
        by_dtype!(x.dtype(), T => {
            let y = match bias {
                Some(bias) => with_all::<T, 3, _>([x, weight, bias], |[x, w, b]| {
                    wide(#[inline(always)] || self.forward::<T>(x, w, b))
                })?,
                None => with_all::<T, 2, _>([x, weight], |[x, w]| {
                    wide(#[inline(always)] || self.forward::<T>(x, w, &[]))
                })?,
            };
            tensor(y, x.shape())
        })
    }

    /// (x̄, w̄, b̄), x̄ added to what other readers of x gave.
    pub fn back(self, x: &Tensor, w: &Tensor, g: &Tensor, others: Option<Tensor>) -> Result<[Tensor; 3]> {
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            return cuda::norm::backward([x, w, g], others.as_ref(), self.eps, self.centred);
        }
        by_dtype!(x.dtype(), T => {
            let [gx, gw, gb] =
                with_all::<T, 3, _>([x, w, g], |given| wide(#[inline(always)] || self.backward::<T>(given)))?;
            let gx = tensor(gx, x.shape())?;
            let gx = others.map_or(Ok(gx.clone()), |others| others + gx)?;
            Ok([gx, tensor(gw, w.shape())?, tensor(gb, w.shape())?])
        })
    }

    /// (μ, r) of a row.
    #[inline(always)]
    fn moments<T: Real>(&self, x: &[T], room: &mut [T]) -> (T, T) {
        let count = T::from_f64(x.len() as f64);
        let mean = if self.centred { sum(x) / count } else { T::zero() };
        for (r, x) in room.iter_mut().zip(x) {
            *r = *x - mean;
        }
        (mean, (dot(room, room) / count + T::of(self.eps)).rsqrt())
    }

    #[inline(always)]
    fn forward<T: Real>(&self, x: &[T], w: &[T], b: &[T]) -> Vec<T> {
        let (d, mut y) = (w.len(), vec![T::zero(); x.len()]);
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let (_, r) = self.moments(x, y);
            for (y, w) in y.iter_mut().zip(w) {
                *y = *y * r * *w;
            }
            for (y, b) in y.iter_mut().zip(b) {
                *y += *b;
            }
        }
        y
    }

    /// (x̄, w̄, b̄).
    #[inline(always)]
    fn backward<T: Real>(&self, [x, w, g]: [&[T]; 3]) -> [Vec<T>; 3] {
        let (d, count) = (w.len(), T::from_f64(w.len() as f64));
        let zeros = |n: usize| vec![T::zero(); n];
        let (mut gx, mut gw, mut gb, mut hat) = (zeros(x.len()), zeros(d), zeros(d), zeros(d));
        for ((gx, x), g) in gx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(g.chunks_exact(d)) {
            let (_, r) = self.moments(x, &mut hat);
            for (((hat, gx), (gw, gb)), (g, w)) in
                hat.iter_mut().zip(gx.iter_mut()).zip(gw.iter_mut().zip(&mut gb)).zip(g.iter().zip(w))
            {
                *hat *= r;
                *gx = *g * *w;
                *gw += *g * *hat;
                *gb += *g;
            }
            let mean = if self.centred { sum(gx) / count } else { T::zero() };
            let along = dot(gx, &hat) / count;
            for (gx, hat) in gx.iter_mut().zip(&hat) {
                *gx = r * (*gx - mean - *hat * along);
            }
        }
        [gx, gw, gb]
    }
}
