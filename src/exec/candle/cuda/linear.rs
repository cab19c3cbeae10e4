//! Sums over rows: the gradient of a bias, and of what blocks of a kernel leave.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{Result, Tensor};

use super::call::{Kernels, kernels, launch, room, tensor, with_all};

const KERNELS: Kernels = kernels!("sums");

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
