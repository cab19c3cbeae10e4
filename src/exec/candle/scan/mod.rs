//! The diagonal recurrence as one differentiable op: `h ← Ā·h + B̄·u`, `y = C·h + D·u` (`2·Re` for complex A).
//!
//! Sources: S4D (arXiv 2206.11893), Mamba (arXiv 2312.00752, §3.2–3.3). Three tensors in, one out, as candle's custom ops
//! are:
//!
//! | | selective | time-invariant |
//! |---|---|---|
//! | rows `[S, T, ·]` | u \[d\], Δ \[d\], B \[N\], C \[N\] (complex: \[N, 2\]) | u \[d\] |
//! | params (flat) | A `[R, d]`, D \[d\] | Ā, B̄, C `[R, d]` each, D \[d\] |
//! | h₀ | `[S, R, d]` | `[S, R, d]` |
//!
//! R is N for real A; for complex A 2N: N real rows, then N imaginary rows. The result is `[S, T·d + R·d + K·R·d]`: y, the
//! final state and the states before every chunk of 64 rows (on a GPU: 16, or 32) but the first. Backward recomputes h inside a chunk from
//! these, so no `[S, T, R, d]` tensor is ever stored; it gives the gradients of rows, params and h₀ from those of y and of
//! the final state.

mod passes;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda::{self, view};
use super::math::{Real, vectorised};
use super::tensors::{by_dtype, slice, tensor, with_all};

/// Rows between two saved states.
const CHUNK: usize = 64;

/// Channels that one pass takes together: their coefficients and states stay in the first-level cache.
const BLOCK: usize = 64;

/// What the recurrence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanShape {
    /// Channels.
    pub d: usize,
    /// States a channel (pairs, for complex A).
    pub n: usize,
    /// Whether A is complex.
    pub complex: bool,
    /// Whether Δ, B and C come with each row.
    pub selective: bool,
}

impl ScanShape {
    /// R: rows of h.
    pub fn state_rows(&self) -> usize {
        self.n * self.numbers()
    }

    /// Numbers in a state.
    pub fn numbers(&self) -> usize {
        if self.complex { 2 } else { 1 }
    }

    /// Numbers in an input row.
    pub fn row_width(&self) -> usize {
        if self.selective { 2 * (self.d + self.state_rows()) } else { self.d }
    }

    /// Numbers in the flat parameters.
    pub fn params_len(&self) -> usize {
        let tables = if self.selective { 1 } else { 3 };
        (tables * self.state_rows() + 1) * self.d
    }

    fn state_len(&self) -> usize {
        self.state_rows() * self.d
    }

    /// Numbers of a stream's flat result, with a state saved every `chunk` rows.
    pub(super) fn result_len(&self, rows: usize, chunk: usize) -> usize {
        rows * self.d + (1 + rows.saturating_sub(1) / chunk) * self.state_len()
    }
}

/// Runs the recurrence: (y `[S, T, d]`, h after the last row `[S, R, d]`), differentiable in all three arguments.
pub fn scan(shape: ScanShape, rows: &Tensor, params: &Tensor, h0: &Tensor) -> Result<(Tensor, Tensor)> {
    let (streams, t, _) = rows.dims3()?;
    let flat = rows.contiguous()?.apply_op3(&params.contiguous()?, &h0.contiguous()?, ScanOp(shape))?;
    let y = flat.narrow(1, 0, t * shape.d)?.reshape((streams, t, shape.d))?;
    let h = flat.narrow(1, t * shape.d, shape.state_len())?;
    Ok((y, h.reshape((streams, shape.state_rows(), shape.d))?))
}

/// See the module's page.
struct ScanOp(ScanShape);

impl ScanOp {
    /// (S, T), or an error where any shape is not what the op takes.
    fn check(&self, rows: &Shape, params: &Shape, h0: &Shape) -> Result<(usize, usize)> {
        let (s, t, width) = rows.dims3()?;
        let shape = &self.0;
        let good = width == shape.row_width()
            && params.elem_count() == shape.params_len()
            && h0.dims() == [s, shape.state_rows(), shape.d];
        if !good || t == 0 || shape.d == 0 || shape.n == 0 {
            candle_core::bail!("scan {shape:?}: got rows {rows:?}, params {params:?}, state {h0:?}");
        }
        Ok((s, t))
    }

    fn cpu_backward<T: Real>(&self, given: [&Tensor; 5], s: usize, t: usize) -> Result<[Tensor; 3]> {
        let shape = self.0;
        let grads = with_all::<T, 5, _>(given, |given| {
            vectorised(
                #[inline(always)]
                || passes::backward(shape, t, given),
            )
        })?;
        let h0_shape = (s, shape.state_rows(), shape.d);
        Ok([
            tensor(grads.rows, (s, t, shape.row_width()))?,
            tensor(grads.params, given[1].shape())?,
            tensor(grads.h0, h0_shape)?,
        ])
    }
}

impl CustomOp3 for ScanOp {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn cpu_fwd(
        &self,
        rows: &CpuStorage,
        rows_layout: &Layout,
        params: &CpuStorage,
        params_layout: &Layout,
        h0: &CpuStorage,
        h0_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (s, t) = self.check(rows_layout.shape(), params_layout.shape(), h0_layout.shape())?;
        let storage = by_dtype!(rows.dtype(), T => {
            let rows = slice::<T>(rows, rows_layout)?;
            let (params, h0) = (slice::<T>(params, params_layout)?, slice::<T>(h0, h0_layout)?);
            let out = vectorised(#[inline(always)] || passes::forward(self.0, t, rows, params, h0));
            T::storage(out)
        });
        Ok((storage, (s, self.0.result_len(t, CHUNK)).into()))
    }

    #[cfg(feature = "train-cuda")]
    fn cuda_fwd(
        &self,
        rows: &candle_core::CudaStorage,
        rows_layout: &Layout,
        params: &candle_core::CudaStorage,
        params_layout: &Layout,
        h0: &candle_core::CudaStorage,
        h0_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (s, t) = self.check(rows_layout.shape(), params_layout.shape(), h0_layout.shape())?;
        let len = self.0.result_len(t, cuda::scan::chunk(self.0));
        let given = [&view(rows, rows_layout)?, &view(params, params_layout)?, &view(h0, h0_layout)?];
        Ok((cuda::scan::forward(&rows.device, self.0, given, (s, t))?, (s, len).into()))
    }

    fn bwd(
        &self,
        rows: &Tensor,
        params: &Tensor,
        h0: &Tensor,
        flat: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (s, t) = self.check(rows.shape(), params.shape(), h0.shape())?;
        let given = [rows, params, h0, flat, grad];
        #[cfg(feature = "train-cuda")]
        if grad.device().is_cuda() {
            let [rows, params, h0] = cuda::scan::backward(self.0, given, (s, t))?;
            return Ok((Some(rows), Some(params), Some(h0)));
        }
        let [rows, params, h0] = by_dtype!(rows.dtype(), T => self.cpu_backward::<T>(given, s, t)?);
        Ok((Some(rows), Some(params), Some(h0)))
    }
}
