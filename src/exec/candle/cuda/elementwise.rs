//! Activations, gates and FiLM.

use candle_core::{Result, Tensor};

use super::super::columns::packed;
use super::super::tensors::width;
use super::call::{Kernels, each, kernels, launch, room, tensor, with_rows};
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

/// Kernel, numbers and width of the result of `act(x)`.
fn activation(act: Act, x: &Tensor) -> (&'static str, usize, usize) {
    match act {
        Act::Glu => ("glu", x.elem_count() / 2, width(x) / 2),
        _ => ("activate", x.elem_count(), width(x)),
    }
}

/// `onto + act(x + b)`.
pub fn activate(act: Act, x: &Tensor, bias: Option<&Tensor>, onto: Option<&Tensor>) -> Result<Tensor> {
    let (name, count, width) = activation(act, x);
    let mut dims = x.dims().to_vec();
    dims.last_mut().into_iter().for_each(|last| *last = width);
    let onto = onto.map(packed).transpose()?;
    with_rows([x, bias.unwrap_or(x), onto.as_ref().unwrap_or(x)], |device, [(x, xs), (b, _), (o, _)]| {
        let (mut y, name) = (room(device, count)?, format!("{name}_forward"));
        let sizes = [count, width, xs, usize::from(bias.is_some()), usize::from(onto.is_some()), code(act)];
        launch(device, (&KERNELS, &name), each(count), &[&x, &b, &o], &mut [&mut y], &sizes)?;
        Ok(tensor(y, device, dims))
    })
}

/// x̄ of `act(x + b)`.
pub fn activate_back(act: Act, x: &Tensor, bias: Option<&Tensor>, g: &Tensor) -> Result<Tensor> {
    let (name, count, width) = activation(act, x);
    with_rows([x, bias.unwrap_or(x), g], |device, [(xv, xs), (b, _), (g, gs)]| {
        let (mut gx, name) = (room(device, x.elem_count())?, format!("{name}_backward"));
        let sizes = [count, width, xs, gs, usize::from(bias.is_some()), code(act)];
        launch(device, (&KERNELS, &name), each(count), &[&xv, &b, &g], &mut [&mut gx], &sizes)?;
        Ok(tensor(gx, device, x.shape()))
    })
}

fn pair(act: Option<Act>) -> (&'static str, usize) {
    act.map_or(("film", 0), |act| ("gate", code(act)))
}

/// `onto + x·act(z)`, or with FiLM in place of the gate without an activation.
pub fn two(act: Option<Act>, x: &Tensor, z: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
    let ((name, code), count, onto) = (pair(act), x.elem_count(), onto.map(packed).transpose()?);
    with_rows([x, z, onto.as_ref().unwrap_or(x)], |device, [(xv, xs), (z, zs), (o, _)]| {
        let (mut y, name) = (room(device, count)?, format!("{name}_forward"));
        let sizes = [count, width(x), xs, zs, usize::from(onto.is_some()), code];
        launch(device, (&KERNELS, &name), each(count), &[&xv, &z, &o], &mut [&mut y], &sizes)?;
        Ok(tensor(y, device, x.shape()))
    })
}

/// (x̄, z̄) of [`two`].
pub fn two_back(act: Option<Act>, x: &Tensor, z: &Tensor, g: &Tensor) -> Result<(Tensor, Tensor)> {
    let ((name, code), count) = (pair(act), x.elem_count());
    with_rows([x, z, g], |device, [(xv, xs), (zv, zs), (g, gs)]| {
        let (mut gx, mut gz) = (room(device, count)?, room(device, z.elem_count())?);
        let (name, sizes) = (format!("{name}_backward"), [count, width(x), xs, zs, gs, code]);
        let results = &mut [&mut gx, &mut gz];
        launch(device, (&KERNELS, &name), each(count), &[&xv, &zv, &g], results, &sizes)?;
        Ok((tensor(gx, device, x.shape()), tensor(gz, device, z.shape())))
    })
}
