//! The scan.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CudaStorage, Result, Tensor, bail};

use super::super::scan::ScanShape;
use super::call::{Grid, Kernels, each, kernels, launch, room, storage, tensor};
use super::linear::sum;
use super::with_all;

const KERNELS: Kernels = kernels!("scan");

/// Threads of a block, as in the kernel.
const THREADS: usize = 256;

/// (kernel, lanes a channel, grid).
fn plan(shape: ScanShape, pass: &str, streams: usize) -> Result<(String, usize, Grid)> {
    if shape.n > 64 {
        bail!("scan on the GPU: expected at most 64 states a channel, got {}", shape.n);
    }
    let lanes = shape.n.next_power_of_two().min(32);
    let numbers = if shape.complex { "complex" } else { "real" };
    let dynamics = if shape.selective { "selective" } else { "invariant" };
    let name = format!("scan_{pass}_{numbers}_{dynamics}_{}", shape.n.div_ceil(32));
    Ok((name, lanes, ((shape.d.div_ceil(THREADS / lanes), streams), (THREADS, 1))))
}

/// The flat result of `t` rows a stream.
pub fn forward(
    device: &CudaDevice,
    shape: ScanShape,
    [rows, params, h0]: [&CudaView<'_, f32>; 3],
    (streams, t, result_len): (usize, usize, usize),
) -> Result<CudaStorage> {
    let (name, lanes, grid) = plan(shape, "forward", streams)?;
    let mut out = room(device, streams * result_len)?;
    let sizes = [t, shape.d, shape.n, lanes];
    launch(device, (&KERNELS, &name), grid, &[rows, params, h0], &mut [&mut out], &sizes)?;
    Ok(storage(out, device))
}

/// Gradients of rows, params and h₀ from (rows, params, h₀, result, its gradient).
pub fn backward(shape: ScanShape, given: [&Tensor; 5], (streams, t): (usize, usize)) -> Result<[Tensor; 3]> {
    let (name, lanes, grid) = plan(shape, "backward", streams)?;
    let blocks = grid.0.0;
    let count = if shape.selective { streams * t * 2 * shape.state_rows() } else { 0 };
    with_all(given, |device, [rows, params, h0, flat, grad]| {
        let mut grows = room(device, rows.len())?;
        let mut mix = room(device, (blocks * count).max(1))?;
        let mut gparams = room(device, streams * params.len())?;
        let mut gh0 = room(device, h0.len())?;
        let results = &mut [&mut grows, &mut mix, &mut gparams, &mut gh0];
        let inputs = [&rows, &params, &h0, &flat, &grad];
        launch(device, (&KERNELS, &name), grid, &inputs, results, &[t, shape.d, shape.n, lanes])?;
        if shape.selective {
            let sizes = [count, shape.d, shape.state_rows(), blocks];
            let (mix, results) = (mix.slice(..), &mut [&mut grows]);
            launch(device, (&KERNELS, "scan_mix"), each(count), &[&mix], results, &sizes)?;
        }
        let gparams = sum(device, &gparams.slice(..), params.len())?;
        let [rows, params, h0] = [given[0], given[1], given[2]].map(Tensor::shape);
        Ok([tensor(grows, device, rows), tensor(gparams, device, params), tensor(gh0, device, h0)])
    })
}
