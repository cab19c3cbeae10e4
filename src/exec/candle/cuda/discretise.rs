//! A scan's tables from the model's parameters, and back.

use candle_core::{Result, Tensor};

use super::super::discretise::Tables;
use super::call::{Grid, Kernels, kernels, launch, room, tensor, with_all};
use crate::plan::Rule;

const KERNELS: Kernels = kernels!("discretise");

fn sizes(tables: Tables) -> [usize; 4] {
    let rule = match tables.rule {
        None => 0,
        Some(Rule::Zoh) => 1,
        Some(Rule::Bilinear) => 2,
    };
    [tables.d, tables.n, usize::from(tables.complex), rule]
}

fn channels(tables: Tables) -> Grid {
    ((tables.d.div_ceil(4), 1), (32, 4))
}

/// The tables, flat.
pub fn forward(tables: Tables, given: [&Tensor; 4]) -> Result<Tensor> {
    with_all(given, |device, [a, b, c, e]| {
        let (mut out, inputs) = (room(device, tables.total())?, [&a, &b, &c, &e]);
        let name = (&KERNELS, "discretise_forward");
        launch(device, name, channels(tables), &inputs, &mut [&mut out], &sizes(tables))?;
        Ok(tensor(out, device, tables.total()))
    })
}

/// The gradients of what was given; those of what there is not are empty.
pub fn backward(tables: Tables, given: [&Tensor; 4], grad: &Tensor) -> Result<[Tensor; 4]> {
    let (poles, fixed) = (tables.d * tables.n, tables.rule.is_some());
    let there = |there: bool, len: usize| if there { len } else { 0 };
    let lens = [poles, there(tables.complex, poles), there(fixed, tables.d), there(fixed, tables.len())];
    with_all([given[0], given[1], given[2], grad], |device, [a, b, c, g]| {
        let (mut ga, mut gi) = (room(device, lens[0])?, room(device, lens[1])?);
        let (mut gdt, mut gc) = (room(device, lens[2])?, room(device, lens[3])?);
        let (name, inputs) = ((&KERNELS, "discretise_backward"), [&a, &b, &c, &g]);
        let results = &mut [&mut ga, &mut gi, &mut gdt, &mut gc];
        launch(device, name, channels(tables), &inputs, results, &sizes(tables))?;
        let [a, b, c, e] = lens;
        Ok([tensor(ga, device, a), tensor(gi, device, b), tensor(gdt, device, c), tensor(gc, device, e)])
    })
}
