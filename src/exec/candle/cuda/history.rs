//! Conv, frame and overlap.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Device, Result, Tensor, bail};

use super::super::history::{History, HistoryGrad, Moves};
use super::super::tensors::width;
use super::call::{Kernels, Launch, each, kernels, launch, launch_on, room, tensor, with_all, with_rows};
use super::linear::sum;

const KERNELS: Kernels = kernels!("history");

/// Rows of a stream that a thread of the weights' gradient walks, at least.
const SHARE: usize = 128;

/// (streams, rows before the call, rows of the call).
fn sizes(history: &History) -> Result<(usize, usize, usize)> {
    Ok((history.before.dim(0)?, history.before.dim(1)?, history.new_rows()?))
}

/// The rows before the call, contiguous, and those of the call.
fn given(history: &History) -> Result<[Tensor; 2]> {
    let before = history.before.contiguous()?;
    // Without rows of the call, or before it, the kernel does not look there.
    let x = history.x.clone().unwrap_or_else(|| before.clone());
    Ok([before, x])
}

/// The gradients of a history's two parts.
fn grads(
    history: &History,
    fill: impl FnOnce(&CudaDevice, &mut [&mut CudaSlice<f32>; 2]) -> Result<()>,
) -> Result<HistoryGrad> {
    let (s, h, t) = sizes(history)?;
    let w = width(&history.before);
    let Device::Cuda(device) = history.before.device() else { bail!("expected a history on the GPU") };
    let (mut before, mut x) = (room(device, s * h * w)?, room(device, s * t * w)?);
    fill(device, &mut [&mut before, &mut x])?;
    let x = history.x.as_ref().map(|_| tensor(x, device, (s, t, w)));
    Ok(HistoryGrad { before: tensor(before, device, (s, h, w)), x })
}

/// The depthwise convolution.
pub fn conv(history: &History, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((d, taps), (s, _, rows)) = (weight.dims2()?, sizes(history)?);
    let count = s * rows * d;
    let [before, x] = given(history)?;
    with_rows(
        [&before, &x, weight, bias.unwrap_or(weight)],
        |device, [(before, _), (x, xs), (w, _), (b, _)]| {
            let mut y = room(device, count)?;
            let sizes = [count, rows, taps, d, xs, usize::from(bias.is_some())];
            let inputs = [&before, &x, &w, &b];
            launch(device, (&KERNELS, "conv_forward"), each(count), &inputs, &mut [&mut y], &sizes)?;
            Ok(tensor(y, device, (s, rows, d)))
        },
    )
}

/// Gradients of history, taps and bias.
pub fn conv_back(history: &History, weight: &Tensor, g: &Tensor) -> Result<(HistoryGrad, [Tensor; 2])> {
    let ((d, taps), (s, h, rows)) = (weight.dims2()?, sizes(history)?);
    let count = s * (h + rows) * d;
    let grad = with_all([weight, g], |_, [w, g]| {
        grads(history, |device, results| {
            let (name, sizes) = ((&KERNELS, "conv_backward"), [count, rows, taps, d]);
            launch(device, name, each(count), &[&w, &g], results, &sizes)
        })
    })?;
    let [before, x] = given(history)?;
    let both = with_rows([&before, &x, g], |device, [(before, _), (x, xs), (g, _)]| {
        let shares = rows.div_ceil(SHARE);
        let mut part = room(device, s * shares * (taps + 1) * d)?;
        let grid = Launch { grid: [d.div_ceil(32), s, shares], block: [32, 1], shared: 0 };
        let (name, sizes) = ((&KERNELS, "conv_weights"), [rows, taps, d, xs, shares]);
        launch_on(device, name, grid, &[&before, &x, &g], &mut [&mut part.slice_mut(..)], &sizes)?;
        Ok(tensor(sum(device, &part.slice(..), (taps + 1) * d)?, device, (taps + 1) * d))
    })?;
    let gw = both.narrow(0, 0, taps * d)?.reshape(weight.shape())?;
    Ok((grad, [gw, both.narrow(0, taps * d, d)?]))
}

/// A frame or an overlap, as its kernels take it.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    /// Whether rows are framed; overlapped otherwise.
    frame: bool,
    /// Numbers in a fine row.
    fine: usize,
    /// start, period, window; or first, period, overlap.
    by: [usize; 3],
    /// Rows of the result and numbers in one.
    rows: usize,
    width: usize,
}

impl Moved {
    /// For a history of rows of `width` numbers.
    pub fn new(moves: Moves, width: usize) -> Self {
        let (rows, result) = (moves.rows(), moves.width(width));
        match moves {
            Moves::Frame { start, period, window, .. } => {
                Self { frame: true, fine: width, by: [start, period, window], rows, width: result }
            }
            Moves::Overlap { first, period, overlap, .. } => {
                Self { frame: false, fine: result, by: [first, period, overlap], rows, width: result }
            }
        }
    }

    fn sizes(&self, count: usize, (h, t): (usize, usize)) -> [usize; 8] {
        let [a, b, c] = self.by;
        [count, h, t, self.fine, a, b, c, self.rows]
    }

    /// The result.
    pub fn forward(&self, history: &History) -> Result<Tensor> {
        let (s, h, t) = sizes(history)?;
        let count = s * self.rows * self.width;
        let [before, x] = given(history)?;
        with_rows([&before, &x], |device, [(before, _), (x, xs)]| {
            let name = if self.frame { "frame_forward" } else { "overlap_forward" };
            let (mut y, sizes) = (room(device, count)?, [&self.sizes(count, (h, t))[..], &[xs]].concat());
            launch(device, (&KERNELS, name), each(count), &[&before, &x], &mut [&mut y], &sizes)?;
            Ok(tensor(y, device, (s, self.rows, self.width)))
        })
    }

    /// The gradient of the history.
    pub fn backward(&self, history: &History, g: &Tensor) -> Result<HistoryGrad> {
        let (s, h, t) = sizes(history)?;
        let count = s * (h + t) * width(&history.before);
        with_all([g], |_, [g]| {
            grads(history, |device, results| {
                let name = if self.frame { "frame_backward" } else { "overlap_backward" };
                let sizes = self.sizes(count, (h, t));
                launch(device, (&KERNELS, name), each(count), &[&g], results, &sizes)
            })
        })
    }
}
