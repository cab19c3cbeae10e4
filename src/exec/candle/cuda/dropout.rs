//! Dropout's masks where the rows lie: `kernels/dropout.cu`.

use candle_core::{Result, Tensor};

use super::call::{Kernels, kernels, launch, room, tensor};

const KERNELS: Kernels = kernels!("dropout");

/// The mask for `x [S, T, d]` by `key`, from stream `first` and row `position` on: 0 where a draw is below `bar`, else `keep`.
pub fn mask(x: &Tensor, [key, first, position, bar]: [u64; 4], keep: f32) -> Result<Tensor> {
    let (streams, t, d) = x.dims3()?;
    let device = x.device().as_cuda_device()?;
    let mut mask = room(device, x.elem_count())?;
    let parts = [key, first, position, bar].map(|n| [n, n >> 22, n >> 44].map(|n| (n & 0x3f_ffff) as usize));
    let sizes = [&[streams * t, t, d], parts.as_flattened(), &[keep.to_bits() as usize]].concat();
    let grid = (((streams * t).div_ceil(8).min(1 << 16), 1), (32, 8));
    launch(device, (&KERNELS, "dropout_mask"), grid, &[], &mut [&mut mask], &sizes)?;
    Ok(tensor(mask, device, (streams, t, d)))
}
