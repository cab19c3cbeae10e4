//! Activations, gates and FiLM as fused ops with their own backward.
//!
//! `y = act(x)` (GLU: first half of the columns times the sigmoid of the second), `y = x·act(z)`, `y = x·(1 + s) + t` with
//! (s, t) the halves of the second argument.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda::{self, view};
use super::math::{Real, vectorised};
use super::tensors::{by_dtype, slice, tensor, with_all};
use crate::plan::Act;

/// `act(x)`.
pub(super) fn activate(act: Act, x: Tensor) -> Result<Tensor> {
    if act == Act::None { Ok(x) } else { x.contiguous()?.apply_op1(Activate(act)) }
}

/// `x·act(z)`.
pub(super) fn gate(act: Act, x: &Tensor, z: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&z.contiguous()?, Gate(act))
}

/// `x·(1 + s) + t`.
pub(super) fn film(x: &Tensor, st: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&st.contiguous()?, Film)
}

/// Runs `$body` with `$f` bound to the function x ↦ (act(x), act′(x)) of type `$T`, one instance for each activation.
macro_rules! by_act {
    ($act:expr, $T:ty, $f:ident => $body:expr) => {{
        let (zero, one) = (<$T>::of(0.0), <$T>::of(1.0));
        match $act {
            Act::None | Act::Glu => {
                let $f = |x: $T| (x, one);
                $body
            }
            Act::Silu => {
                let $f = |x: $T| {
                    let s = Real::sigmoid(x);
                    (x * s, s * (one + x * (one - s)))
                };
                $body
            }
            Act::Gelu => {
                let root = <$T>::from_f64(std::f64::consts::FRAC_1_SQRT_2);
                let height = <$T>::from_f64(0.398_942_280_401_432_7);
                let $f = |x: $T| {
                    let below = <$T>::of(0.5) * (one + Real::erf(x * root));
                    (x * below, below + x * height * Real::exp(<$T>::of(-0.5) * x * x))
                };
                $body
            }
            Act::Relu => {
                let $f = |x: $T| if x > zero { (x, one) } else { (zero, zero) };
                $body
            }
            Act::Sigmoid => {
                let $f = |x: $T| {
                    let s = Real::sigmoid(x);
                    (s, s * (one - s))
                };
                $body
            }
            Act::Tanh => {
                let $f = |x: $T| {
                    let y = Real::tanh(x);
                    (y, one - y * y)
                };
                $body
            }
            Act::Softplus => {
                let $f = |x: $T| (Real::softplus(x), if x > <$T>::of(20.0) { one } else { Real::sigmoid(x) });
                $body
            }
        }
    }};
}

struct Activate(Act);

impl Activate {
    #[inline(always)]
    fn forward<T: Real>(&self, x: &[T], width: usize) -> Vec<T> {
        if self.0 == Act::Glu {
            let mut y = vec![T::zero(); x.len() / 2];
            for (y, x) in y.chunks_exact_mut(width / 2).zip(x.chunks_exact(width)) {
                let (x, z) = x.split_at(width / 2);
                for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
                    *y = *x * z.sigmoid();
                }
            }
            return y;
        }
        let mut y = vec![T::zero(); x.len()];
        by_act!(self.0, T, f => for (y, x) in y.iter_mut().zip(x) {
            *y = f(*x).0;
        });
        y
    }

    #[inline(always)]
    fn backward<T: Real>(&self, x: &[T], g: &[T], width: usize) -> Vec<T> {
        let mut gx = vec![T::zero(); x.len()];
        if self.0 == Act::Glu {
            let rows = gx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(g.chunks_exact(width / 2));
            for ((gx, x), g) in rows {
                let ((gx, gz), (x, z)) = (gx.split_at_mut(width / 2), x.split_at(width / 2));
                for (((gx, gz), g), (x, z)) in gx.iter_mut().zip(gz).zip(g).zip(x.iter().zip(z)) {
                    let s = z.sigmoid();
                    *gx = *g * s;
                    *gz = *g * *x * s * (T::one() - s);
                }
            }
            return gx;
        }
        by_act!(self.0, T, f => for ((gx, x), g) in gx.iter_mut().zip(x).zip(g) {
            *gx = *g * f(*x).1;
        });
        gx
    }
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let width = dims.last().copied().unwrap_or(1);
        if let (Act::Glu, Some(last)) = (self.0, dims.last_mut()) {
            *last /= 2;
        }
        let y = by_dtype!(x.dtype(), T => {
            let x = slice::<T>(x, layout)?;
            T::storage(vectorised(#[inline(always)] || self.forward::<T>(x, width)))
        });
        Ok((y, dims.into()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let width = dims.last().copied().unwrap_or(1);
        if let (Act::Glu, Some(last)) = (self.0, dims.last_mut()) {
            *last /= 2;
        }
        Ok((cuda::elementwise::activate(&x.device, self.0, &view(x, layout)?, width)?, dims.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            return cuda::elementwise::activate_back(self.0, x, g).map(Some);
        }
        let width = x.dims().last().copied().unwrap_or(1);
        let back = |x: &Tensor, g: &Tensor| {
            by_dtype!(x.dtype(), T => {
                let gx = with_all::<T, 2, _>([x, g], |[x, g]| vectorised(#[inline(always)] || self.backward::<T>(x, g, width)))?;
                tensor(gx, x.shape())
            })
        };
        back(x, g).map(Some)
    }
}

struct Gate(Act);

impl Gate {
    #[inline(always)]
    fn forward<T: Real>(&self, x: &[T], z: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        by_act!(self.0, T, f => for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
            *y = *x * f(*z).0;
        });
        y
    }

    #[inline(always)]
    fn backward<T: Real>(&self, x: &[T], z: &[T], g: &[T]) -> (Vec<T>, Vec<T>) {
        let (mut gx, mut gz) = (vec![T::zero(); x.len()], vec![T::zero(); x.len()]);
        by_act!(self.0, T, f => {
            for (((gx, gz), g), (x, z)) in gx.iter_mut().zip(&mut gz).zip(g).zip(x.iter().zip(z)) {
                let (value, slope) = f(*z);
                *gx = *g * value;
                *gz = *g * *x * slope;
            }
        });
        (gx, gz)
    }
}

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        z: &CpuStorage,
        z_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = by_dtype!(x.dtype(), T => {
            let (x, z) = (slice::<T>(x, x_layout)?, slice::<T>(z, z_layout)?);
            T::storage(vectorised(#[inline(always)] || self.forward::<T>(x, z)))
        });
        Ok((y, x_layout.shape().clone()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        z: &candle_core::CudaStorage,
        z_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (xs, zs) = (view(x, x_layout)?, view(z, z_layout)?);
        let width = x_layout.dims().last().copied().unwrap_or(1);
        Ok((cuda::elementwise::two(&x.device, Some(self.0), &xs, &zs, width)?, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        z: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            let (gx, gz) = cuda::elementwise::two_back(Some(self.0), x, z, g)?;
            return Ok((Some(gx), Some(gz)));
        }
        by_dtype!(x.dtype(), T => {
            let (gx, gz) =
                with_all::<T, 3, _>([x, z, g], |[x, z, g]| vectorised(#[inline(always)] || self.backward::<T>(x, z, g)))?;
            Ok((Some(tensor(gx, x.shape())?), Some(tensor(gz, z.shape())?)))
        })
    }
}

struct Film;

impl Film {
    #[inline(always)]
    fn forward<T: Real>(x: &[T], st: &[T], d: usize) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        for ((y, x), st) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(st.chunks_exact(2 * d)) {
            let (s, t) = st.split_at(d);
            for ((y, x), (s, t)) in y.iter_mut().zip(x).zip(s.iter().zip(t)) {
                *y = *x * (T::one() + *s) + *t;
            }
        }
        y
    }

    #[inline(always)]
    fn backward<T: Real>(x: &[T], st: &[T], g: &[T], d: usize) -> (Vec<T>, Vec<T>) {
        let (mut gx, mut gst) = (vec![T::zero(); x.len()], vec![T::zero(); st.len()]);
        let grads = gx.chunks_exact_mut(d).zip(gst.chunks_exact_mut(2 * d));
        let given = x.chunks_exact(d).zip(st.chunks_exact(2 * d)).zip(g.chunks_exact(d));
        for ((gx, gst), ((x, st), g)) in grads.zip(given) {
            let (gs, gt) = gst.split_at_mut(d);
            gt.copy_from_slice(g);
            for (((gx, gs), g), (x, s)) in gx.iter_mut().zip(gs).zip(g).zip(x.iter().zip(st)) {
                *gx = *g * (T::one() + *s);
                *gs = *g * *x;
            }
        }
        (gx, gst)
    }
}

impl CustomOp2 for Film {
    fn name(&self) -> &'static str {
        "film"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        st: &CpuStorage,
        st_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let d = x_layout.dims().last().copied().unwrap_or(1);
        let y = by_dtype!(x.dtype(), T => {
            let (x, st) = (slice::<T>(x, x_layout)?, slice::<T>(st, st_layout)?);
            T::storage(vectorised(#[inline(always)] || Self::forward::<T>(x, st, d)))
        });
        Ok((y, x_layout.shape().clone()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        x: &candle_core::CudaStorage,
        x_layout: &Layout,
        st: &candle_core::CudaStorage,
        st_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (xs, sts) = (view(x, x_layout)?, view(st, st_layout)?);
        let width = x_layout.dims().last().copied().unwrap_or(1);
        Ok((cuda::elementwise::two(&x.device, None, &xs, &sts, width)?, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        st: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            let (gx, gst) = cuda::elementwise::two_back(None, x, st, g)?;
            return Ok((Some(gx), Some(gst)));
        }
        let d = x.dims().last().copied().unwrap_or(1);
        by_dtype!(x.dtype(), T => {
            let (gx, gst) =
                with_all::<T, 3, _>([x, st, g], |[x, st, g]| vectorised(#[inline(always)] || Self::backward::<T>(x, st, g, d)))?;
            Ok((Some(tensor(gx, x.shape())?), Some(tensor(gst, st.shape())?)))
        })
    }
}
