//! LayerNorm and RMSNorm.

use candle_core::{Result, Tensor};

use super::call::{Grid, Kernels, kernels, launch, room, tensor, with_all};
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
        let (mut gx, mut stats) = (room(device, xs.len())?, room(device, 2 * rows)?);
        let shared = usize::from(others.is_some());
        let sizes = [rows, d, eps.to_bits() as usize, usize::from(centred), shared];
        let results = &mut [&mut gx, &mut stats];
        launch(device, (&KERNELS, "norm_backward"), warps(rows), &[&xs, &w, &g, &given], results, &sizes)?;
        let shares = rows.div_ceil(64).min(512);
        let mut part = room(device, shares * 2 * d)?;
        let (grid, given) = (((d.div_ceil(64), shares), (64, 1)), [&xs, &g, &stats.slice(..)]);
        launch(device, (&KERNELS, "norm_weights"), grid, &given, &mut [&mut part], &[rows, d])?;
        let both = tensor(sum(device, &part.slice(..), 2 * d)?, device, 2 * d);
        Ok([tensor(gx, device, x.shape()), both.narrow(0, 0, d)?, both.narrow(0, d, d)?])
    })
}
