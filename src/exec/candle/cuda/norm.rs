//! LayerNorm and RMSNorm.

use candle_core::{Result, Tensor};

use super::call::{
    Grid, Kernels, Launch, SHARED, kernels, launch, launch_on, multiprocessors, room, tensor, with_all,
};
use super::linear::sum;

const KERNELS: Kernels = kernels!("norm");

/// A warp a row.
fn warps(rows: usize) -> Grid {
    ((rows.div_ceil(8), 1), (32, 8))
}

/// The norm of rows of w's length; no bias for RMSNorm.
pub fn forward(x: &Tensor, w: &Tensor, b: Option<&Tensor>, eps: f32, centred: bool) -> Result<Tensor> {
    with_all([x, w, b.unwrap_or(w)], |device, [xs, w, bias]| {
        let (d, rows) = (w.len(), xs.len() / w.len());
        let mut y = room(device, xs.len())?;
        let sizes = [rows, d, eps.to_bits() as usize, usize::from(centred), usize::from(b.is_some())];
        launch(device, (&KERNELS, "norm_forward"), warps(rows), &[&xs, &w, &bias], &mut [&mut y], &sizes)?;
        Ok(tensor(y, device, x.shape()))
    })
}

/// (x̄, w̄, b̄), x̄ added to what `others` gave.
pub fn backward(
    [x, w, g]: [&Tensor; 3],
    others: Option<&Tensor>,
    eps: f32,
    centred: bool,
) -> Result<[Tensor; 3]> {
    let d = w.elem_count();
    with_all([x, w, g, others.unwrap_or(w)], |device, [xs, w, g, given]| {
        let rows = xs.len() / d;
        // The sums of a warp are in shared memory.
        let of_warp = 2 * d * size_of::<f32>();
        let warps = (SHARED / of_warp).clamp(1, 8);
        let blocks = rows.div_ceil(warps).min(8 * multiprocessors(device)?);
        let (mut gx, mut part) = (room(device, xs.len())?, room(device, blocks * 2 * d)?);
        let added = usize::from(others.is_some());
        let sizes = [rows, d, eps.to_bits() as usize, usize::from(centred), added];
        let grid = Launch { grid: [blocks, 1, 1], block: [32, warps], shared: warps * of_warp };
        let results = &mut [&mut gx.slice_mut(..), &mut part.slice_mut(..)];
        launch_on(device, (&KERNELS, "norm_backward"), grid, &[&xs, &w, &g, &given], results, &sizes)?;
        let both = tensor(sum(device, &part.slice(..), 2 * d)?, device, 2 * d);
        Ok([tensor(gx, device, x.shape()), both.narrow(0, 0, d)?, both.narrow(0, d, d)?])
    })
}
