//! Conv, frame and overlap.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CudaStorage, Result, Tensor};

use super::call::{Kernels, each, kernels, launch, room, storage, tensor};
use super::linear::sum;
use super::with_all;

const KERNELS: Kernels = kernels!("history");

/// The depthwise convolution: `rows` rows a stream, `[d, taps]`.
pub fn conv(
    device: &CudaDevice,
    [ext, w, b]: [&CudaView<'_, f32>; 3],
    (streams, rows, taps, d): (usize, usize, usize, usize),
) -> Result<CudaStorage> {
    let count = streams * rows * d;
    let mut y = room(device, count)?;
    let sizes = [count, rows, taps, d];
    launch(device, (&KERNELS, "conv_forward"), each(count), &[ext, w, b], &mut [&mut y], &sizes)?;
    Ok(storage(y, device))
}

/// Gradients of ext, taps and bias.
pub fn conv_back(
    [ext, w, g]: [&Tensor; 3],
    (streams, rows, taps, d): (usize, usize, usize, usize),
) -> Result<[Tensor; 3]> {
    with_all([ext, w, g], |device, [exts, ws, g]| {
        let mut gext = room(device, exts.len())?;
        let sizes = [exts.len(), rows, taps, d];
        launch(device, (&KERNELS, "conv_backward"), each(exts.len()), &[&ws, &g], &mut [&mut gext], &sizes)?;
        let mut part = room(device, streams * (taps + 1) * d)?;
        let grid = ((d.div_ceil(32), streams), (32, 1));
        launch(device, (&KERNELS, "conv_weights"), grid, &[&exts, &g], &mut [&mut part], &[rows, taps, d])?;
        let both = tensor(sum(device, &part.slice(..), (taps + 1) * d)?, device, (taps + 1) * d);
        let gw = both.narrow(0, 0, taps * d)?.reshape(w.shape())?;
        Ok([tensor(gext, device, ext.shape()), gw, both.narrow(0, taps * d, d)?])
    })
}

/// A frame or an overlap, as its kernels take it.
#[derive(Clone, Copy)]
pub struct Moved {
    /// Whether rows are framed; overlapped otherwise.
    pub frame: bool,
    /// Rows of ext.
    pub ext_rows: usize,
    /// Numbers in a fine row.
    pub fine: usize,
    /// start, period, window; or first, period, overlap.
    pub by: [usize; 3],
    /// Rows of the result.
    pub rows: usize,
}

impl Moved {
    fn sizes(&self, count: usize) -> [usize; 7] {
        let [a, b, c] = self.by;
        [count, self.ext_rows, self.fine, a, b, c, self.rows]
    }

    /// The result from ext, `len` numbers.
    pub fn forward(&self, device: &CudaDevice, ext: &CudaView<'_, f32>, len: usize) -> Result<CudaStorage> {
        let name = if self.frame { "frame_forward" } else { "overlap_forward" };
        let mut y = room(device, len)?;
        launch(device, (&KERNELS, name), each(len), &[ext], &mut [&mut y], &self.sizes(len))?;
        Ok(storage(y, device))
    }

    /// The gradient of ext.
    pub fn backward(&self, ext: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (name, len) = (if self.frame { "frame_backward" } else { "overlap_backward" }, ext.elem_count());
        with_all([g], |device, [g]| {
            let mut gext = room(device, len)?;
            launch(device, (&KERNELS, name), each(len), &[&g], &mut [&mut gext], &self.sizes(len))?;
            Ok(tensor(gext, device, ext.shape()))
        })
    }
}
