//! Columns of several tensors side by side.

use candle_core::{Result, Tensor, bail};

use super::super::tensors::width;
use super::call::{Kernels, Launch, each, kernels, launch_on, room, tensor, with_rows};

const KERNELS: Kernels = kernels!("elementwise");

/// The rows of all parts, side by side.
pub fn join(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { bail!("join: no tensors given") };
    let all: usize = parts.iter().map(|x| width(x)).sum();
    let rows = first.elem_count() / width(first).max(1);
    let mut dims = first.dims().to_vec();
    dims.last_mut().into_iter().for_each(|last| *last = all);
    with_rows([first], |device, _| {
        let (mut y, mut from) = (room(device, rows * all)?, 0);
        for part in parts {
            let (count, width) = (part.elem_count(), width(part));
            with_rows([part], |device, [(x, xs)]| {
                let ((blocks, _), (threads, _)) = each(count);
                let grid = Launch { grid: [blocks, 1, 1], block: [threads, 1], shared: 0 };
                let (name, sizes) = ("place_columns", [count, width, xs, all]);
                let results = &mut [&mut y.slice_mut(from..)];
                launch_on(device, (&KERNELS, name), grid, &[&x], results, &sizes)
            })?;
            from += width;
        }
        Ok(tensor(y, device, dims))
    })
}
