//! The diagonal recurrence, and the way back: `h ← Ā·h + B̄·u`, `y = C·h + D·u` (`2·Re` for complex A).
//!
//! Sources: S4D (arXiv 2206.11893), Mamba (arXiv 2312.00752, §3.2–3.3). Three tensors in:
//!
//! | | selective | time-invariant |
//! |---|---|---|
//! | rows `[S, T, ·]` | u \[d\], Δ \[d\], B \[N\], C \[N\] (complex: \[N, 2\]) | u \[d\] |
//! | params (flat) | A `[R, d]`, D \[d\] | Ā, B̄, C `[R, d]` each, D \[d\] |
//! | h₀ | `[S, R, d]` | `[S, R, d]` |
//!
//! R is N for real A; for complex A 2N: N real rows, then N imaginary rows. Beside y and the final state the states before
//! every chunk of 64 rows (on a GPU: 16, or 32) but the first are kept. The way back recomputes h inside a chunk from these, so
//! no `[S, T, R, d]` tensor is ever stored; it gives the gradients of rows, params and h₀ from those of y and of the final state.

mod passes;
mod rows;
#[cfg(test)]
pub(super) mod tests;

use candle_core::{Result, Tensor};

use super::columns::packed;
#[cfg(feature = "train-cuda")]
use super::cuda;
use super::tensors::{by_dtype, tensor, with_all};
use crate::wide::wide;

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

    /// Numbers of a stream's last and saved states, with one saved every `chunk` rows.
    pub(super) fn states_len(&self, rows: usize, chunk: usize) -> usize {
        (1 + rows.saturating_sub(1) / chunk) * self.state_len()
    }

    /// (S, T), or an error where any shape is not what the recurrence takes.
    fn check(&self, rows: &Tensor, params: &Tensor, h0: &Tensor) -> Result<(usize, usize)> {
        let (s, t, width) = rows.dims3()?;
        let good = width == self.row_width()
            && params.elem_count() == self.params_len()
            && h0.dims() == [s, self.state_rows(), self.d];
        if !good || t == 0 || self.d == 0 || self.n == 0 {
            let got = [rows, params, h0].map(Tensor::shape);
            candle_core::bail!("scan {self:?}: got rows, params and state {got:?}");
        }
        Ok((s, t))
    }
}

/// What [`scan`] gives.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// `[S, T, d]`.
    pub y: Tensor,
    /// h after the last row: `[S, R, d]`.
    pub h: Tensor,
    /// That, then the states before every chunk but the first: `[S, (1 + K)·R·d]`.
    states: Tensor,
}

/// Runs the recurrence.
pub fn scan(shape: ScanShape, rows: &Tensor, params: &Tensor, h0: &Tensor) -> Result<Scanned> {
    let (s, t) = shape.check(rows, params, h0)?;
    let given = [packed(rows)?, params.contiguous()?, h0.contiguous()?];
    let [rows, params, h0] = &given;
    let (y, states) = match rows.device() {
        #[cfg(feature = "train-cuda")]
        device if device.is_cuda() => cuda::scan::forward(shape, [rows, params, h0], (s, t))?,
        _ => by_dtype!(rows.dtype(), T => {
            let (y, states) = with_all::<T, 3, _>([rows, params, h0], |[rows, params, h0]| {
                wide(#[inline(always)] || passes::forward(shape, t, rows, params, h0))
            })?;
            (tensor(y, (s, t, shape.d))?, tensor(states, (s, shape.states_len(t, CHUNK)))?)
        }),
    };
    // A copy, which does not hold on to the other states.
    let h = states.narrow(1, 0, shape.state_len())?.force_contiguous()?;
    let h = h.reshape((s, shape.state_rows(), shape.d))?;
    Ok(Scanned { y, h, states })
}

/// The gradients of rows, params and h₀ from those of y and, where something depends on it, of h.
pub fn scan_back(
    shape: ScanShape,
    [rows, params, h0]: [&Tensor; 3],
    scanned: &Scanned,
    gy: &Tensor,
    gh: Option<&Tensor>,
) -> Result<[Tensor; 3]> {
    let sizes = shape.check(rows, params, h0)?;
    let gh = match gh {
        Some(gh) => gh.contiguous()?,
        None => h0.zeros_like()?,
    };
    let given = [&packed(rows)?, params, h0, &scanned.states, &packed(gy)?, &gh];
    #[cfg(feature = "train-cuda")]
    if gy.device().is_cuda() {
        return cuda::scan::backward(shape, given, sizes);
    }
    by_dtype!(rows.dtype(), T => {
        let grads = with_all::<T, 6, _>(given, |given| {
            wide(#[inline(always)] || passes::backward(shape, sizes.1, given))
        })?;
        Ok([tensor(grads.rows, rows.shape())?, tensor(grads.params, params.shape())?, tensor(grads.h0, h0.shape())?])
    })
}
