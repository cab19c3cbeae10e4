//! The ops that look back: conv, delay, frame and overlap, over one history.
//!
//! A history is the last `rows` rows before the call, oldest first. Every op reads `ext` = history, then the call's rows, and
//! hands on the last `rows` rows of `ext`:
//!
//! * conv: `y_t = b + Σ_j w_j·ext[t + j]`, depthwise;
//! * delay: `y_t = ext[t]`;
//! * frame: row i = `ext[period − φ − 1 + i·period ..][..window]` side by side, φ the rows completed before modulo period;
//! * overlap: `y_n = Σ_{k<K} ext[⌊n/p⌋ − m + K − 1 − k]` columns `(n mod p + k·p)·d ..`, m the coarse rows completed before.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda::{self, view};
use super::math::{Real, vectorised};
use super::tensors::{by_dtype, slice, tensor, with_all};

/// (`ext`, the history after it): history `[S, rows, w]` and, if any fell due, the call's rows `[S, T, w]`.
pub(super) fn extend(history: &Tensor, x: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let rows = history.dim(1)?;
    let Some(x) = x else { return Ok((history.clone(), history.clone())) };
    if rows == 0 {
        return Ok((x.clone(), history.clone()));
    }
    let ext = Tensor::cat(&[&history.contiguous()?, &x.contiguous()?], 1)?;
    let next = ext.narrow(1, ext.dim(1)? - rows, rows)?;
    Ok((ext, next))
}

/// The depthwise convolution of `ext [S, T + k − 1, d]` with taps `[d, k]` and bias `[d]`: `[S, T, d]`.
pub(super) fn conv(ext: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let bias = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?,
    };
    ext.contiguous()?.apply_op3(weight, &bias, Conv)
}

struct Conv;

/// The sizes of one convolution.
#[derive(Clone, Copy)]
struct ConvShape {
    ext_rows: usize,
    taps: usize,
    d: usize,
}

impl ConvShape {
    fn new(ext: &Shape, weight: &Shape) -> Result<(usize, Self)> {
        let ((s, ext_rows, width), (d, taps)) = (ext.dims3()?, weight.dims2()?);
        if width != d || taps == 0 || ext_rows < taps {
            candle_core::bail!("conv: expected at least {taps} rows of {d}, got {ext_rows} of {width}");
        }
        Ok((s, Self { ext_rows, taps, d }))
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

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        ext: &CpuStorage,
        el: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (s, shape) = ConvShape::new(el.shape(), wl.shape())?;
        let y = by_dtype!(ext.dtype(), T => {
            let (ext, weight, bias) = (slice::<T>(ext, el)?, slice::<T>(weight, wl)?, slice::<T>(bias, bl)?);
            T::storage(vectorised(#[inline(always)] || shape.forward::<T>(ext, weight, bias)))
        });
        Ok((y, (s, shape.rows(), shape.d).into()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        ext: &candle_core::CudaStorage,
        el: &Layout,
        weight: &candle_core::CudaStorage,
        wl: &Layout,
        bias: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (s, shape) = ConvShape::new(el.shape(), wl.shape())?;
        let given = [&view(ext, el)?, &view(weight, wl)?, &view(bias, bl)?];
        let y = cuda::history::conv(&ext.device, given, (s, shape.rows(), shape.taps, shape.d))?;
        Ok((y, (s, shape.rows(), shape.d).into()))
    }

    fn bwd(
        &self,
        ext: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, shape) = ConvShape::new(ext.shape(), weight.shape())?;
        #[cfg(feature = "train-cuda")]
        if grad.device().is_cuda() {
            let sizes = (ext.dim(0)?, shape.rows(), shape.taps, shape.d);
            let [gext, gw, gb] = cuda::history::conv_back([ext, weight, grad], sizes)?;
            return Ok((Some(gext), Some(gw), Some(gb)));
        }
        by_dtype!(ext.dtype(), T => {
            let given = [ext, weight, grad];
            let [ge, gw, gb] =
                with_all::<T, 3, _>(given, |given| vectorised(#[inline(always)] || shape.backward::<T>(given)))?;
            let ge = tensor(ge, ext.shape())?;
            Ok((Some(ge), Some(tensor(gw, weight.shape())?), Some(tensor(gb, bias.shape())?)))
        })
    }
}

/// Runs of `ext` added into rows of the result: how frame and overlap move numbers, and backward the same in reverse.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moves {
    /// Row i of the result is `window` rows of `ext` from `start + i·period`.
    Frame { start: usize, period: usize, window: usize, rows: usize },
    /// Fine rows `first ..` of the result, numbered from the first fine row of the call's first coarse period.
    Overlap { first: usize, period: usize, overlap: usize, rows: usize },
}

impl Moves {
    /// Applies the moves to `ext [S, E, w]`.
    pub fn of(self, ext: &Tensor) -> Result<Tensor> {
        ext.contiguous()?.apply_op1(self)
    }

    fn rows(&self) -> usize {
        match self {
            Self::Frame { rows, .. } | Self::Overlap { rows, .. } => *rows,
        }
    }

    /// Numbers in a row of the result, from those in a row of `ext`.
    fn width(&self, ext_width: usize) -> usize {
        match self {
            Self::Frame { window, .. } => ext_width * window,
            Self::Overlap { period, overlap, .. } => ext_width / (period * overlap),
        }
    }

    /// This, as the GPU's kernels take it.
    #[cfg(feature = "train-cuda")]
    fn on_gpu(&self, ext_rows: usize, ext_width: usize) -> cuda::history::Moved {
        let rows = self.rows();
        match *self {
            Self::Frame { start, period, window, .. } => {
                let by = [start, period, window];
                cuda::history::Moved { frame: true, ext_rows, fine: ext_width, by, rows }
            }
            Self::Overlap { first, period, overlap, .. } => {
                let (fine, by) = (self.width(ext_width), [first, period, overlap]);
                cuda::history::Moved { frame: false, ext_rows, fine, by, rows }
            }
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

    fn check(&self, ext: &Shape) -> Result<(usize, usize, usize)> {
        let (s, rows, width) = ext.dims3()?;
        let mut end = 0;
        self.runs(width, |from, _, len| end = end.max(from + len));
        if end > rows * width || self.width(width) == 0 {
            candle_core::bail!("{self:?}: expected {end} numbers of history and rows, got {rows}·{width}");
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

impl CustomOp1 for Moves {
    fn name(&self) -> &'static str {
        match self {
            Self::Frame { .. } => "frame",
            Self::Overlap { .. } => "overlap",
        }
    }

    fn cpu_fwd(&self, ext: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (s, rows, width) = self.check(layout.shape())?;
        let y = by_dtype!(ext.dtype(), T => T::storage(self.forward(slice::<T>(ext, layout)?, rows, width)));
        Ok((y, (s, self.rows(), self.width(width)).into()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        ext: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (s, rows, width) = self.check(layout.shape())?;
        let shape = (s, self.rows(), self.width(width));
        let y = self.on_gpu(rows, width).forward(
            &ext.device,
            &view(ext, layout)?,
            shape.0 * shape.1 * shape.2,
        )?;
        Ok((y, shape.into()))
    }

    fn bwd(&self, ext: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (s, rows, width) = self.check(ext.shape())?;
        #[cfg(feature = "train-cuda")]
        if grad.device().is_cuda() {
            return self.on_gpu(rows, width).backward(ext, grad).map(Some);
        }
        by_dtype!(ext.dtype(), T => {
            let g = with_all::<T, 1, _>([grad], |[grad]| self.backward::<T>(grad, s, rows, width))?;
            tensor(g, ext.shape()).map(Some)
        })
    }
}
