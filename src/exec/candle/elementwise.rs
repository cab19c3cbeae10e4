//! Activations, gates and FiLM: each forward, and backward from what it read.
//!
//! `y = o + act(x + b)` (GLU: first half of the columns times the sigmoid of the second), `y = o + x·act(z)`,
//! `y = o + x·(1 + s) + t` with (s, t) the halves of the second argument; o and b where they are given.

use candle_core::{Result, Tensor};

use super::columns::packed;
#[cfg(feature = "train-cuda")]
use super::cuda;
use super::linear::add_row;
use super::math::Real;
use super::tensors::{by_dtype, tensor, width, with_all};
use crate::plan::Act;
use crate::wide::wide;

/// `onto + act(x + b)`.
pub(super) fn activate(act: Act, x: &Tensor, bias: Option<&Tensor>, onto: Option<&Tensor>) -> Result<Tensor> {
    if act == Act::None && bias.is_none() && onto.is_none() {
        return Ok(x.clone());
    }
    #[cfg(feature = "train-cuda")]
    if x.device().is_cuda() {
        return cuda::elementwise::activate(act, x, bias, onto);
    }
    if let Some(onto) = onto {
        return packed(onto)? + activate(act, x, bias, None)?;
    }
    let x = &biased(x, bias)?;
    if act == Act::None {
        return Ok(x.clone());
    }
    let (width, mut dims) = (width(x), x.dims().to_vec());
    if let (Act::Glu, Some(last)) = (act, dims.last_mut()) {
        *last /= 2;
    }
    by_dtype!(x.dtype(), T => {
        let y = with_all::<T, 1, _>([x], |[x]| {
            wide(#[inline(always)] || activate_forward::<T>(act, x, width))
        })?;
        tensor(y, dims)
    })
}

fn biased(x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    bias.map_or(Ok(x.clone()), |bias| add_row(x, bias))
}

/// x̄ of [`activate`]; that of `onto` is g.
pub(super) fn activate_back(act: Act, x: &Tensor, bias: Option<&Tensor>, g: &Tensor) -> Result<Tensor> {
    if act == Act::None {
        return Ok(g.clone());
    }
    #[cfg(feature = "train-cuda")]
    if g.device().is_cuda() {
        return cuda::elementwise::activate_back(act, x, bias, g);
    }
    let x = &biased(x, bias)?;
    let width = width(x);
    by_dtype!(x.dtype(), T => {
        let gx = with_all::<T, 2, _>([x, g], |[x, g]| {
            wide(#[inline(always)] || activate_backward::<T>(act, x, g, width))
        })?;
        tensor(gx, x.shape())
    })
}

/// `onto + x·act(z)`.
pub(super) fn gate(act: Act, x: &Tensor, z: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
    #[cfg(feature = "train-cuda")]
    if x.device().is_cuda() {
        return cuda::elementwise::two(Some(act), x, z, onto);
    }
    if let Some(onto) = onto {
        return packed(onto)? + gate(act, x, z, None)?;
    }
    by_dtype!(x.dtype(), T => {
        let y = with_all::<T, 2, _>([x, z], |[x, z]| wide(#[inline(always)] || gate_forward::<T>(act, x, z)))?;
        tensor(y, x.shape())
    })
}

/// (x̄, z̄) of [`gate`].
pub(super) fn gate_back(act: Act, x: &Tensor, z: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "train-cuda")]
    if g.device().is_cuda() {
        return cuda::elementwise::two_back(Some(act), x, z, g);
    }
    by_dtype!(x.dtype(), T => {
        let (gx, gz) = with_all::<T, 3, _>([x, z, g], |[x, z, g]| {
            wide(#[inline(always)] || gate_backward::<T>(act, x, z, g))
        })?;
        Ok((tensor(gx, x.shape())?, tensor(gz, z.shape())?))
    })
}

/// `onto + x·(1 + s) + t`.
pub(super) fn film(x: &Tensor, st: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
    #[cfg(feature = "train-cuda")]
    if x.device().is_cuda() {
        return cuda::elementwise::two(None, x, st, onto);
    }
    if let Some(onto) = onto {
        return packed(onto)? + film(x, st, None)?;
    }
    let d = width(x);
    by_dtype!(x.dtype(), T => {
        let y = with_all::<T, 2, _>([x, st], |[x, st]| wide(#[inline(always)] || film_forward::<T>(x, st, d)))?;
        tensor(y, x.shape())
    })
}

/// The gradients of x and of (s, t) of [`film`].
pub(super) fn film_back(x: &Tensor, st: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "train-cuda")]
    if g.device().is_cuda() {
        return cuda::elementwise::two_back(None, x, st, g);
    }
    let d = width(x);
    by_dtype!(x.dtype(), T => {
        let (gx, gst) = with_all::<T, 3, _>([x, st, g], |[x, st, g]| {
            wide(#[inline(always)] || film_backward::<T>(x, st, g, d))
        })?;
        Ok((tensor(gx, x.shape())?, tensor(gst, st.shape())?))
    })
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

#[inline(always)]
fn activate_forward<T: Real>(act: Act, x: &[T], width: usize) -> Vec<T> {
    if act == Act::Glu {
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
    by_act!(act, T, f => for (y, x) in y.iter_mut().zip(x) {
        *y = f(*x).0;
    });
    y
}

#[inline(always)]
fn activate_backward<T: Real>(act: Act, x: &[T], g: &[T], width: usize) -> Vec<T> {
    let mut gx = vec![T::zero(); x.len()];
    if act == Act::Glu {
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
    by_act!(act, T, f => for ((gx, x), g) in gx.iter_mut().zip(x).zip(g) {
        *gx = *g * f(*x).1;
    });
    gx
}

#[inline(always)]
fn gate_forward<T: Real>(act: Act, x: &[T], z: &[T]) -> Vec<T> {
    let mut y = vec![T::zero(); x.len()];
    by_act!(act, T, f => for ((y, x), z) in y.iter_mut().zip(x).zip(z) {
        *y = *x * f(*z).0;
    });
    y
}

#[inline(always)]
fn gate_backward<T: Real>(act: Act, x: &[T], z: &[T], g: &[T]) -> (Vec<T>, Vec<T>) {
    let (mut gx, mut gz) = (vec![T::zero(); x.len()], vec![T::zero(); x.len()]);
    by_act!(act, T, f => {
        for (((gx, gz), g), (x, z)) in gx.iter_mut().zip(&mut gz).zip(g).zip(x.iter().zip(z)) {
            let (value, slope) = f(*z);
            *gx = *g * value;
            *gz = *g * *x * slope;
        }
    });
    (gx, gz)
}

#[inline(always)]
fn film_forward<T: Real>(x: &[T], st: &[T], d: usize) -> Vec<T> {
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
fn film_backward<T: Real>(x: &[T], st: &[T], g: &[T], d: usize) -> (Vec<T>, Vec<T>) {
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
