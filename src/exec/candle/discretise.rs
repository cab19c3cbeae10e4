//! The scan's flat parameters from the model's, differentiably.
//!
//! Selective: `A = −exp(A_log)` (+ i·A_imag), then D. Time-invariant: Ā, B̄, C, then D, with `Δ = exp(log_dt)` and the rule of
//! [`coefficients`](crate::plan::coefficients), whose values these equal: computed in f64, rounded once. All tables are `[R, d]`.

use candle_core::{DType, Result, Tensor};

use crate::plan::Rule;

/// A scan's parameters as the model holds them: `[d, N]` each, log Δ and D `[d]`, C `[d, N]` or `[d, N, 2]`.
pub(super) struct Continuous<'a> {
    pub a_log: &'a Tensor,
    pub a_imag: Option<&'a Tensor>,
    pub skip: &'a Tensor,
}

impl Continuous<'_> {
    /// A and D of a selective scan: `[R·d + d]`.
    pub fn selective(&self) -> Result<Tensor> {
        let real = self.a_log.t()?.exp()?.neg()?.flatten_all()?;
        match self.a_imag {
            Some(imag) => Tensor::cat(&[&real, &imag.t()?.flatten_all()?, self.skip], 0),
            None => Tensor::cat(&[&real, self.skip], 0),
        }
    }

    /// Ā, B̄, C and D of a time-invariant scan: `[3·R·d + d]`.
    pub fn invariant(&self, log_dt: &Tensor, c: &Tensor, rule: Rule) -> Result<Tensor> {
        let dtype = self.a_log.dtype();
        let wide = |x: &Tensor| x.to_dtype(DType::F64);
        let dt = wide(log_dt)?.exp()?.unsqueeze(0)?;
        let real = wide(self.a_log)?.t()?.contiguous()?.exp()?.neg()?;
        let a = Complex(real, self.a_imag.map(|a| wide(a)?.t()?.contiguous()).transpose()?);
        let (a_bar, b_bar) = match rule {
            Rule::Zoh => {
                let a_bar = a.times_rows(&dt)?.exp()?;
                let b_bar = a_bar.plus(-1.0)?.over(&a)?;
                (a_bar, b_bar)
            }
            Rule::Bilinear => {
                let half = a.times_rows(&(&dt * 0.5)?)?;
                let below = half.scaled(-1.0)?.plus(1.0)?;
                let dt = Complex(dt.broadcast_as(half.0.shape())?.contiguous()?, None);
                (half.plus(1.0)?.over(&below)?, dt.over(&below)?)
            }
        };
        // [d, N] to [N, d]; [d, N, 2] to [2, N, d], which is N real rows, then N imaginary rows.
        let c = if c.rank() == 3 { c.permute((2, 1, 0))? } else { c.t()? };
        let (a_bar, b_bar) = (a_bar.flat()?.to_dtype(dtype)?, b_bar.flat()?.to_dtype(dtype)?);
        Tensor::cat(&[&a_bar, &b_bar, &c.contiguous()?.flatten_all()?, self.skip], 0)
    }
}

/// Real and, unless all are 0, imaginary parts.
struct Complex(Tensor, Option<Tensor>);

impl Complex {
    fn each(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self(f(&self.0)?, self.1.as_ref().map(f).transpose()?))
    }

    fn scaled(&self, by: f64) -> Result<Self> {
        self.each(|x| x * by)
    }

    fn times_rows(&self, row: &Tensor) -> Result<Self> {
        self.each(|x| x.broadcast_mul(row))
    }

    fn plus(&self, x: f64) -> Result<Self> {
        Ok(Self((&self.0 + x)?, self.1.clone()))
    }

    fn exp(&self) -> Result<Self> {
        let size = self.0.exp()?;
        match &self.1 {
            Some(angle) => Ok(Self((&size * angle.cos()?)?, Some((&size * angle.sin()?)?))),
            None => Ok(Self(size, None)),
        }
    }

    fn over(&self, below: &Self) -> Result<Self> {
        let Some(imag) = &below.1 else {
            return self.each(|x| x / &below.0);
        };
        let norm = (below.0.sqr()? + imag.sqr()?)?;
        let (real, cross) = ((&self.0 * &below.0)?, (&self.0 * imag)?);
        let (real, cross) = match &self.1 {
            Some(x) => ((real + (x * imag)?)?, ((x * &below.0)? - cross)?),
            None => (real, cross.neg()?),
        };
        Ok(Self((real / &norm)?, Some((cross / &norm)?)))
    }

    fn flat(&self) -> Result<Tensor> {
        match &self.1 {
            Some(imag) => Tensor::cat(&[&self.0, imag], 0)?.flatten_all(),
            None => self.0.flatten_all(),
        }
    }
}
