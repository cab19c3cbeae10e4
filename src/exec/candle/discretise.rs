//! The scan's flat parameters from the model's, and the way back.
//!
//! Selective: `A = −exp(A_log)` (+ i·A_imag), then D. Time-invariant: Ā, B̄, C, then D, with `Δ = exp(log_dt)`, by the plan's own
//! rule ([`coefficients`](crate::plan::coefficients)). Computed in f64, rounded once. All tables are `[R, d]`.

use candle_core::{Result, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda;
use super::math::Real;
use super::tensors::{by_dtype, tensor, with_all};
use crate::plan::{Complex, Rule, discretise, discretise_back};

/// A scan's parameters as the model holds them.
pub(super) struct Continuous<'a> {
    /// `[d, N]`.
    pub a_log: &'a Tensor,
    /// `[d, N]`, for complex A.
    pub a_imag: Option<&'a Tensor>,
    /// D, `[d]`.
    pub skip: &'a Tensor,
    /// What a time-invariant scan has beside.
    pub fixed: Option<Fixed<'a>>,
}

/// Of a time-invariant scan.
pub(super) struct Fixed<'a> {
    /// `[d]`.
    pub log_dt: &'a Tensor,
    /// `[d, N]`, or `[d, N, 2]` for complex A.
    pub c: &'a Tensor,
    pub rule: Rule,
}

/// Gradients of [`Continuous`], in its order.
pub(super) struct ContinuousGrad {
    pub a_log: Tensor,
    pub a_imag: Option<Tensor>,
    pub skip: Tensor,
    /// log Δ and C.
    pub fixed: Option<[Tensor; 2]>,
}

/// The sizes of a table and what is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub d: usize,
    pub n: usize,
    pub complex: bool,
    pub rule: Option<Rule>,
}

impl Tables {
    /// Numbers of one table.
    pub fn len(self) -> usize {
        self.d * self.n * if self.complex { 2 } else { 1 }
    }

    /// Numbers of all, D left out.
    pub fn total(self) -> usize {
        self.len() * if self.rule.is_some() { 3 } else { 1 }
    }
}

impl Continuous<'_> {
    pub fn tables(&self) -> Result<Tables> {
        let (d, n) = self.a_log.dims2()?;
        Ok(Tables { d, n, complex: self.a_imag.is_some(), rule: self.fixed.as_ref().map(|f| f.rule) })
    }

    /// (A_log, A_imag, log Δ, C), D for what there is not.
    pub fn given(&self) -> [&Tensor; 4] {
        let fixed = self.fixed.as_ref();
        let or_skip = |t: Option<_>| t.unwrap_or(self.skip);
        [self.a_log, or_skip(self.a_imag), or_skip(fixed.map(|f| f.log_dt)), or_skip(fixed.map(|f| f.c))]
    }

    /// The flat parameters.
    pub fn flat(&self) -> Result<Tensor> {
        let tables = self.tables()?;
        let flat = match self.skip.device() {
            #[cfg(feature = "train-cuda")]
            device if device.is_cuda() => cuda::discretise::forward(tables, self.given())?,
            _ => by_dtype!(self.skip.dtype(), T => {
                tensor(with_all::<T, 4, _>(self.given(), |given| forward(tables, given))?, tables.total())?
            }),
        };
        Tensor::cat(&[&flat, self.skip], 0)
    }

    /// The gradients from that of the flat parameters.
    pub fn back(&self, grad: &Tensor) -> Result<ContinuousGrad> {
        let tables = self.tables()?;
        let of = grad.narrow(0, 0, tables.total())?;
        let [a_log, a_imag, log_dt, c] = match grad.device() {
            #[cfg(feature = "train-cuda")]
            device if device.is_cuda() => cuda::discretise::backward(tables, self.given(), &of)?,
            _ => by_dtype!(grad.dtype(), T => {
                let [a, b, c, e] = self.given();
                let grads = with_all::<T, 5, _>([a, b, c, e, &of], |given| backward(tables, given))?;
                let lens = grads.each_ref().map(Vec::len);
                let [a, b, c, e] = grads;
                [tensor(a, lens[0])?, tensor(b, lens[1])?, tensor(c, lens[2])?, tensor(e, lens[3])?]
            }),
        };
        let like = |g: Tensor, of: &Tensor| g.reshape(of.shape());
        Ok(ContinuousGrad {
            a_log: like(a_log, self.a_log)?,
            a_imag: self.a_imag.map(|of| like(a_imag, of)).transpose()?,
            skip: grad.narrow(0, tables.total(), tables.d)?,
            fixed: match &self.fixed {
                Some(fixed) => Some([like(log_dt, fixed.log_dt)?, like(c, fixed.c)?]),
                None => None,
            },
        })
    }
}

/// A of one channel and state.
fn pole<T: Real>(tables: Tables, [a_log, a_imag]: [&[T]; 2], i: usize) -> Complex {
    (-a_log[i].to_f64().exp(), if tables.complex { a_imag[i].to_f64() } else { 0.0 })
}

fn forward<T: Real>(tables: Tables, [a_log, a_imag, log_dt, c]: [&[T]; 4]) -> Vec<T> {
    let (Tables { d, n, complex, rule }, len) = (tables, tables.len());
    let mut out = vec![T::zero(); tables.total()];
    for i in 0..d * n {
        let (channel, k) = (i / n, i % n);
        let (real, imag) = (k * d + channel, (n + k) * d + channel);
        let a = pole(tables, [a_log, a_imag], i);
        let mut put = |table: usize, z: Complex| {
            out[table * len + real] = T::from_f64(z.0);
            if complex {
                out[table * len + imag] = T::from_f64(z.1);
            }
        };
        let Some(rule) = rule else {
            put(0, a);
            continue;
        };
        let (a_bar, b_bar) = discretise(a, log_dt[channel].to_f64().exp(), rule);
        let c = if complex { (c[2 * i].to_f64(), c[2 * i + 1].to_f64()) } else { (c[i].to_f64(), 0.0) };
        [a_bar, b_bar, c].into_iter().enumerate().for_each(|(table, z)| put(table, z));
    }
    out
}

/// The gradients of A_log, A_imag, log Δ and C; empty for what there is not.
fn backward<T: Real>(tables: Tables, [a_log, a_imag, log_dt, _, grad]: [&[T]; 5]) -> [Vec<T>; 4] {
    let (Tables { d, n, complex, rule }, len) = (tables, tables.len());
    let zeros = |there: bool, len: usize| vec![T::zero(); if there { len } else { 0 }];
    let mut ga_log = zeros(true, d * n);
    let (mut ga_imag, mut gdt, mut gc) =
        (zeros(complex, d * n), zeros(rule.is_some(), d), zeros(rule.is_some(), len));
    for channel in 0..d {
        let mut by_dt = 0.0;
        for k in 0..n {
            let (i, real, imag) = (channel * n + k, k * d + channel, (n + k) * d + channel);
            let a = pole(tables, [a_log, a_imag], i);
            let get = |table: usize| -> Complex {
                let imag = if complex { grad[table * len + imag].to_f64() } else { 0.0 };
                (grad[table * len + real].to_f64(), imag)
            };
            let ga = match rule {
                None => get(0),
                Some(rule) => {
                    let dt = log_dt[channel].to_f64().exp();
                    let (ga, g) = discretise_back(a, dt, rule, (get(0), get(1)));
                    by_dt += g * dt;
                    let at = if complex { 2 * i } else { i };
                    gc[at] = T::from_f64(get(2).0);
                    if complex {
                        gc[at + 1] = T::from_f64(get(2).1);
                    }
                    ga
                }
            };
            ga_log[i] = T::from_f64(ga.0 * a.0);
            if complex {
                ga_imag[i] = T::from_f64(ga.1);
            }
        }
        if rule.is_some() {
            gdt[channel] = T::from_f64(by_dt);
        }
    }
    [ga_log, ga_imag, gdt, gc]
}
