//! The ops that look back: conv, delay, frame and overlap, over one history.
//!
//! A history is the last `rows` rows before the call, oldest first. Every op reads `ext` = history, then the call's rows, and
//! hands on the last `rows` rows of `ext`:
//!
//! * conv: `y_t = b + Σ_j w_j·ext[t + j]`, depthwise;
//! * frame: row i = `ext[period − φ − 1 + i·period ..][..window]` side by side, φ the rows completed before modulo period;
//! * delay: `y_t = ext[t]`, the frame of window and period 1;
//! * overlap: `y_n = Σ_{k<K} ext[⌊n/p⌋ − m + K − 1 − k]` columns `(n mod p + k·p)·d ..`, m the coarse rows completed before.

use candle_core::{Result, Tensor};

use super::columns::packed;
#[cfg(feature = "train-cuda")]
use super::cuda;
use super::math::Real;
use super::tensors::{by_dtype, tensor, width, with_all};
use crate::wide::wide;

/// What an op that looks back reads.
pub(crate) struct History {
    /// The rows before the call: `[S, H, w]`.
    pub before: Tensor,
    /// The call's: `[S, T, w]`; none, if none fell due.
    pub x: Option<Tensor>,
}

/// The gradients of a [`History`].
pub(crate) struct HistoryGrad {
    pub before: Tensor,
    pub x: Option<Tensor>,
}

impl History {
    fn rows(&self) -> Result<usize> {
        self.before.dim(1)
    }

    /// T.
    pub fn new_rows(&self) -> Result<usize> {
        self.x.as_ref().map_or(Ok(0), |x| x.dim(1))
    }

    /// `ext [S, H + T, w]`.
    fn whole(&self) -> Result<Tensor> {
        match &self.x {
            None => packed(&self.before),
            Some(x) if self.rows()? == 0 => packed(x),
            Some(x) => Tensor::cat(&[&packed(&self.before)?, &packed(x)?], 1),
        }
    }

    /// The history after the call.
    pub fn next(&self) -> Result<Tensor> {
        let (rows, Some(x)) = (self.rows()?, &self.x) else { return Ok(self.before.clone()) };
        let new = x.dim(1)?;
        let last = match new.checked_sub(rows) {
            _ if rows == 0 => return Ok(self.before.clone()),
            Some(from) => x.narrow(1, from, rows)?,
            None => Tensor::cat(&[&self.before.narrow(1, new, rows - new)?, x], 1)?,
        };
        last.force_contiguous()
    }

    /// Of a history on which nothing depends.
    pub fn no_grad(&self) -> Result<HistoryGrad> {
        let x = self.x.as_ref().map(|x| Tensor::zeros(x.shape(), x.dtype(), x.device())).transpose()?;
        Ok(HistoryGrad { before: self.before.zeros_like()?, x })
    }

    /// The gradients from that of `ext`.
    fn parts(&self, grad: &Tensor) -> Result<HistoryGrad> {
        let (rows, new) = (self.rows()?, self.new_rows()?);
        let x = self.x.is_some().then(|| grad.narrow(1, rows, new)).transpose()?;
        Ok(HistoryGrad { before: grad.narrow(1, 0, rows)?, x })
    }
}

impl HistoryGrad {
    /// With the gradient of the history after the call.
    pub fn and_next(self, next: &Tensor) -> Result<Self> {
        let rows = self.before.dim(1)?;
        let Some(x) = &self.x else { return Ok(Self { before: (self.before + next)?, x: None }) };
        if rows == 0 {
            return Ok(self);
        }
        let (whole, new) = (Tensor::cat(&[&self.before, x], 1)?, x.dim(1)?);
        let whole = (whole + next.pad_with_zeros(1, new, 0)?)?;
        Ok(Self { before: whole.narrow(1, 0, rows)?, x: Some(whole.narrow(1, rows, new)?) })
    }
}

/// The depthwise convolution with taps `[d, k]` and bias `[d]`, over a history of k − 1 rows: `[S, T, d]`.
pub(super) fn conv(history: &History, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let shape = ConvShape::new(history, weight)?;
    #[cfg(feature = "train-cuda")]
    if weight.device().is_cuda() {
        return cuda::history::conv(history, weight, bias);
    }
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(shape.d, weight.dtype(), weight.device())?,
    };
    by_dtype!(weight.dtype(), T => {
        let y = with_all::<T, 3, _>([&history.whole()?, weight, &bias], |[ext, weight, bias]| {
            wide(#[inline(always)] || shape.forward::<T>(ext, weight, bias))
        })?;
        tensor(y, (history.before.dim(0)?, shape.rows(), shape.d))
    })
}

/// The gradients of history, taps and bias.
pub(super) fn conv_back(
    history: &History,
    weight: &Tensor,
    g: &Tensor,
) -> Result<(HistoryGrad, [Tensor; 2])> {
    let shape = ConvShape::new(history, weight)?;
    #[cfg(feature = "train-cuda")]
    if weight.device().is_cuda() {
        return cuda::history::conv_back(history, weight, g);
    }
    by_dtype!(weight.dtype(), T => {
        let ext = history.whole()?;
        let [ge, gw, gb] = with_all::<T, 3, _>([&ext, weight, g], |given| {
            wide(#[inline(always)] || shape.backward::<T>(given))
        })?;
        let gext = history.parts(&tensor(ge, ext.shape())?)?;
        Ok((gext, [tensor(gw, weight.shape())?, tensor(gb, shape.d)?]))
    })
}

/// The sizes of one convolution.
#[derive(Clone, Copy)]
struct ConvShape {
    ext_rows: usize,
    taps: usize,
    d: usize,
}

impl ConvShape {
    fn new(history: &History, weight: &Tensor) -> Result<Self> {
        let ((d, taps), ext_rows) = (weight.dims2()?, history.rows()? + history.new_rows()?);
        let width = width(&history.before);
        if width != d || taps == 0 || ext_rows < taps {
            candle_core::bail!("conv: expected at least {taps} rows of {d}, got {ext_rows} of {width}");
        }
        Ok(Self { ext_rows, taps, d })
    }

    fn rows(&self) -> usize {
        self.ext_rows + 1 - self.taps
    }

    /// Taps `[d, k]` as `[k, d]`, so that a tap's weights lie side by side.
    fn by_tap<T: Real>(&self, weight: &[T]) -> Vec<T> {
        (0..self.taps * self.d).map(|i| weight[i % self.d * self.taps + i / self.d]).collect()
    }

    #[inline(always)]
    fn forward<T: Real>(&self, ext: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let (d, weight) = (self.d, self.by_tap(weight));
        let mut out = vec![T::zero(); ext.len() / self.ext_rows * self.rows()];
        for (ext, y) in ext.chunks_exact(self.ext_rows * d).zip(out.chunks_exact_mut(self.rows() * d)) {
            for (t, y) in y.chunks_exact_mut(d).enumerate() {
                y.copy_from_slice(bias);
                for (w, x) in weight.chunks_exact(d).zip(ext[t * d..].chunks_exact(d)) {
                    for (y, (w, x)) in y.iter_mut().zip(w.iter().zip(x)) {
                        *y += *w * *x;
                    }
                }
            }
        }
        out
    }

    /// Gradients of ext, weight and bias.
    #[inline(always)]
    fn backward<T: Real>(&self, [ext, weight, grad]: [&[T]; 3]) -> [Vec<T>; 3] {
        let (d, by_tap) = (self.d, self.by_tap(weight));
        let zeros = |n: usize| vec![T::zero(); n];
        let (mut gext, mut gw, mut gb) = (zeros(ext.len()), zeros(by_tap.len()), zeros(d));
        let streams = ext.chunks_exact(self.ext_rows * d).zip(gext.chunks_exact_mut(self.ext_rows * d));
        for ((ext, gext), g) in streams.zip(grad.chunks_exact(self.rows() * d)) {
            for (t, g) in g.chunks_exact(d).enumerate() {
                let rows = ext[t * d..].chunks_exact(d).zip(gext[t * d..].chunks_exact_mut(d));
                let taps = by_tap.chunks_exact(d).zip(gw.chunks_exact_mut(d));
                for ((w, gw), (x, gx)) in taps.zip(rows) {
                    for (((gw, gx), g), (w, x)) in gw.iter_mut().zip(gx).zip(g).zip(w.iter().zip(x)) {
                        *gw += *g * *x;
                        *gx += *g * *w;
                    }
                }
                for (gb, g) in gb.iter_mut().zip(g) {
                    *gb += *g;
                }
            }
        }
        let gw = (0..gw.len()).map(|i| gw[i % self.taps * d + i / self.taps]).collect();
        [gext, gw, gb]
    }
}

/// Runs of `ext` added into rows of the result: how frame and overlap move numbers, and backward the same in reverse.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moves {
    /// Row i of the result is `window` rows of `ext` from `start + i·period`.
    Frame { start: usize, period: usize, window: usize, rows: usize },
    /// Fine rows `first ..` of the result, numbered from the first fine row of the call's first coarse period.
    Overlap { first: usize, period: usize, overlap: usize, rows: usize },
}

impl Moves {
    /// Applies the moves.
    pub fn of(self, history: &History) -> Result<Tensor> {
        let (s, rows, width) = self.check(history)?;
        #[cfg(feature = "train-cuda")]
        if history.before.device().is_cuda() {
            return cuda::history::Moved::new(self, width).forward(history);
        }
        by_dtype!(history.before.dtype(), T => {
            let y = with_all::<T, 1, _>([&history.whole()?], |[ext]| self.forward::<T>(ext, rows, width))?;
            tensor(y, (s, self.rows(), self.width(width)))
        })
    }

    /// The gradients of the history.
    pub fn back(self, history: &History, g: &Tensor) -> Result<HistoryGrad> {
        let (s, rows, width) = self.check(history)?;
        #[cfg(feature = "train-cuda")]
        if g.device().is_cuda() {
            return cuda::history::Moved::new(self, width).backward(history, g);
        }
        by_dtype!(g.dtype(), T => {
            let gext = with_all::<T, 1, _>([g], |[g]| self.backward::<T>(g, s, rows, width))?;
            history.parts(&tensor(gext, (s, rows, width))?)
        })
    }

    /// Rows of the result.
    pub fn rows(&self) -> usize {
        match self {
            Self::Frame { rows, .. } | Self::Overlap { rows, .. } => *rows,
        }
    }

    /// Numbers in a row of the result, from those in a row of `ext`.
    pub fn width(&self, ext_width: usize) -> usize {
        match self {
            Self::Frame { window, .. } => ext_width * window,
            Self::Overlap { period, overlap, .. } => ext_width / (period * overlap),
        }
    }

    /// Calls `f(from, to, len)` for every run, with offsets into one stream's `ext` and result.
    #[inline(always)]
    fn runs(&self, ext_width: usize, mut f: impl FnMut(usize, usize, usize)) {
        let width = self.width(ext_width);
        match *self {
            Self::Frame { start, period, rows, .. } => {
                for i in 0..rows {
                    f((start + i * period) * ext_width, i * width, width);
                }
            }
            Self::Overlap { first, period, overlap, rows } => {
                for i in 0..rows {
                    let (coarse, r) = ((first + i) / period, (first + i) % period);
                    for k in 0..overlap {
                        let from = (coarse + overlap - 1 - k) * ext_width + (r + k * period) * width;
                        f(from, i * width, width);
                    }
                }
            }
        }
    }

    /// (S, rows, width) of `ext`.
    fn check(&self, history: &History) -> Result<(usize, usize, usize)> {
        let (s, before, width) = history.before.dims3()?;
        let rows = before + history.new_rows()?;
        let end = match *self {
            _ if self.rows() == 0 => 0,
            Self::Frame { start, period, window, rows } => start + (rows - 1) * period + window,
            Self::Overlap { first, period, overlap, rows } => (first + rows - 1) / period + overlap,
        };
        if end > rows || self.width(width) == 0 {
            candle_core::bail!("{self:?}: expected {end} rows of history and call, got {rows} of {width}");
        }
        Ok((s, rows, width))
    }

    fn forward<T: Real>(&self, ext: &[T], ext_rows: usize, ext_width: usize) -> Vec<T> {
        let len = self.rows() * self.width(ext_width);
        let mut out = vec![T::zero(); ext.len() / (ext_rows * ext_width) * len];
        for (ext, out) in ext.chunks_exact(ext_rows * ext_width).zip(out.chunks_exact_mut(len)) {
            self.runs(ext_width, |from, to, len| add(&mut out[to..to + len], &ext[from..from + len]));
        }
        out
    }

    fn backward<T: Real>(&self, grad: &[T], streams: usize, ext_rows: usize, ext_width: usize) -> Vec<T> {
        let len = self.rows() * self.width(ext_width);
        let mut out = vec![T::zero(); streams * ext_rows * ext_width];
        for (out, grad) in out.chunks_exact_mut(ext_rows * ext_width).zip(grad.chunks_exact(len)) {
            self.runs(ext_width, |to, from, len| add(&mut out[to..to + len], &grad[from..from + len]));
        }
        out
    }
}

fn add<T: Real>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
}
