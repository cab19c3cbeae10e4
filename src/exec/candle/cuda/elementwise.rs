//! Activations, gates and FiLM.

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaView;
use candle_core::{CudaStorage, Result, Tensor};

use super::call::{Kernels, each, kernels, launch, room, storage, tensor};
use super::with_all;
use crate::plan::Act;

const KERNELS: Kernels = kernels!("elementwise");

/// The activation's code in the kernels.
fn code(act: Act) -> usize {
    match act {
        Act::None | Act::Glu => 0,
        Act::Silu => 1,
        Act::Gelu => 2,
        Act::Relu => 3,
        Act::Sigmoid => 4,
        Act::Tanh => 5,
        Act::Softplus => 6,
    }
}

/// `act(x)` of rows of `width`.
pub fn activate(device: &CudaDevice, act: Act, x: &CudaView<'_, f32>, width: usize) -> Result<CudaStorage> {
    let (name, count, size) = match act {
        Act::Glu => ("glu_forward", x.len() / 2, width / 2),
        _ => ("activate_forward", x.len(), code(act)),
    };
    let mut y = room(device, count)?;
    launch(device, (&KERNELS, name), each(count), &[x], &mut [&mut y], &[count, size])?;
    Ok(storage(y, device))
}

/// x̄ of `act(x)`.
pub fn activate_back(act: Act, x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    with_all([x, g], |device, [xs, g]| {
        let mut gx = room(device, xs.len())?;
        let (name, size) = match act {
            Act::Glu => ("glu_backward", width / 2),
            _ => ("activate_backward", code(act)),
        };
        launch(device, (&KERNELS, name), each(g.len()), &[&xs, &g], &mut [&mut gx], &[g.len(), size])?;
        Ok(tensor(gx, device, x.shape()))
    })
}

/// `x·act(z)`, or FiLM without an activation.
pub fn two(
    device: &CudaDevice,
    act: Option<Act>,
    x: &CudaView<'_, f32>,
    z: &CudaView<'_, f32>,
    width: usize,
) -> Result<CudaStorage> {
    let (name, size) = act.map_or(("film_forward", width), |act| ("gate_forward", code(act)));
    let mut y = room(device, x.len())?;
    launch(device, (&KERNELS, name), each(x.len()), &[x, z], &mut [&mut y], &[x.len(), size])?;
    Ok(storage(y, device))
}

/// (x̄, z̄) of [`two`].
pub fn two_back(act: Option<Act>, x: &Tensor, z: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    let width = x.dims().last().copied().unwrap_or(1);
    let (name, size) = act.map_or(("film_backward", width), |act| ("gate_backward", code(act)));
    with_all([x, z, g], |device, [xs, zs, g]| {
        let (mut gx, mut gz) = (room(device, xs.len())?, room(device, zs.len())?);
        let results = &mut [&mut gx, &mut gz];
        launch(device, (&KERNELS, name), each(xs.len()), &[&xs, &zs, &g], results, &[xs.len(), size])?;
        Ok((tensor(gx, device, x.shape()), tensor(gz, device, z.shape())))
    })
}
