//! The bias of a linear: added to every row, its gradient summed over rows.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{Result, Tensor};

use super::call::{Kernels, each, kernels, launch, room, tensor, with_all};

const KERNELS: Kernels = kernels!("sums");

/// `x + b` for rows of b's length.
pub fn add_row(x: &Tensor, b: &Tensor) -> Result<Tensor> {
    with_all([x, b], |device, [xs, b]| {
        let mut y = room(device, xs.len())?;
        launch(
            device,
            (&KERNELS, "add_row"),
            each(xs.len()),
            &[&xs, &b],
            &mut [&mut y],
            &[xs.len(), b.len()],
        )?;
        Ok(tensor(y, device, x.shape()))
    })
}

/// The sum of rows of `width`.
pub fn sum_rows(g: &Tensor, width: usize) -> Result<Tensor> {
    with_all([g], |device, [g]| Ok(tensor(sum(device, &g, width)?, device, width)))
}

/// The sum of rows of `width`, in two passes where there are many.
pub(super) fn sum(device: &CudaDevice, x: &CudaView<'_, f32>, width: usize) -> Result<CudaSlice<f32>> {
    let rows = x.len() / width;
    let shares = if rows > 256 { rows.div_ceil(128).min(256) } else { 1 };
    let mut part = room(device, shares * width)?;
    let grid = ((width.div_ceil(32), shares), (32, 8));
    launch(device, (&KERNELS, "sum_rows"), grid, &[x], &mut [&mut part], &[rows, width])?;
    if shares == 1 { Ok(part) } else { sum(device, &part.slice(..), width) }
}
