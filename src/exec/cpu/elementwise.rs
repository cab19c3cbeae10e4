//! Ops that look at one row at a time: embed, norm, gate, activate, add, FiLM.

use super::kernels::{Pass, activate, put, row};
use super::lanes::Lanes;
use super::program::{Place, Step, Table};
use crate::plan::Act;

/// Table rows picked by the tokens.
///
/// # Safety
///
/// As for [`run`](super::kernels::run); tokens are below the vocabulary.
#[inline(always)]
pub unsafe fn embed(pass: &Pass<'_>, step: &Step, table: &Table) {
    for (r, token) in pass.tokens.iter().enumerate() {
        let chosen = *token as usize / table.unit.max(1) % table.rows.max(1);
        // SAFETY: the row is one of the table's, both rows are `stride` numbers long.
        unsafe {
            let from = pass.weights.add(table.at + chosen * table.stride);
            std::ptr::copy_nonoverlapping(from, row(pass, step.output, r), step.output.width);
        }
    }
}

/// LayerNorm or RMSNorm; sums run in 16 lanes, the last vector's missing lanes as zeros.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn norm<V: Lanes>(pass: &Pass<'_>, step: &Step, layer: bool, weights: (usize, usize), eps: f32) {
    let width = step.output.width;
    let per = 1.0 / width as f32;
    let rows = pass.table.total(step.to);
    for r in 0..rows {
        // SAFETY: vectors begin inside the row; reads past its end stay inside the arena's slack.
        unsafe {
            let x = row(pass, step.inputs[0], r).cast_const();
            let y = row(pass, step.output, r);
            let mean = if layer { reduce::<V>(x, width, |v| v) * per } else { 0.0 };
            let center = V::splat(mean);
            let var = reduce::<V>(x, width, |v| {
                let v = v.sub(center);
                v.mul(v)
            }) * per;
            let scale = V::splat(1.0 / (var + eps).sqrt());
            let mut c = 0;
            while c < width {
                let (w, b) =
                    (V::load(pass.weights.add(weights.0 + c)), V::load(pass.weights.add(weights.1 + c)));
                let v = V::load(x.add(c)).sub(center).mul(scale);
                put(v.fma(w, b), y.add(c), step.output);
                c += 16;
            }
        }
    }
}

/// The sum of `f` over a row in 16 lanes. Lanes past the end count as 0, whatever `f`.
#[inline(always)]
unsafe fn reduce<V: Lanes>(x: *const f32, width: usize, f: impl Fn(V) -> V) -> f32 {
    // SAFETY: whole vectors lie inside the row; the rest is copied number by number.
    unsafe {
        let mut sum = V::splat(0.0);
        let whole = width / 16 * 16;
        let mut c = 0;
        while c < whole {
            sum = sum.add(f(V::load(x.add(c))));
            c += 16;
        }
        if whole < width {
            let mut last = [0.0f32; 16];
            f(V::load(x.add(whole))).store(last.as_mut_ptr());
            for lane in last.iter_mut().skip(width - whole) {
                *lane = 0.0;
            }
            sum = sum.add(V::load(last.as_ptr()));
        }
        sum.sum()
    }
}

/// Runs `f` on each vector of each row; columns of one sample a row run along the rows instead.
#[inline(always)]
unsafe fn each<V: Lanes>(pass: &Pass<'_>, step: &Step, inputs: usize, f: impl Fn([V; 2], usize) -> V) {
    let rows = pass.table.total(step.to);
    let (a, b, out) = (step.inputs[0], if inputs > 1 { step.inputs[1] } else { step.inputs[0] }, step.output);
    let flat = out.stride == 1 && a.stride == 1 && b.stride == 1;
    let (rows, width) = if flat { (1, rows) } else { (rows, out.width) };
    // SAFETY: reads and writes begin inside a row; what runs past its end stays in the value's own slack.
    unsafe {
        for r in 0..rows {
            let (a, b, y) = (row(pass, a, r), row(pass, b, r), row(pass, out, r));
            let mut c = 0;
            while c < width {
                let value = f([V::load(a.add(c)), V::load(b.add(c))], c);
                if flat {
                    value.store(y.add(c))
                } else {
                    put(value, y.add(c), out)
                }
                c += 16;
            }
        }
    }
}

/// `x·act(z)`.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn gate<V: Lanes>(pass: &Pass<'_>, step: &Step, act: Act) {
    // SAFETY: passed on.
    unsafe { each::<V>(pass, step, 2, |[x, z], _| x.mul(activate(act, z))) }
}

/// `act(x)`.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn activate_rows<V: Lanes>(pass: &Pass<'_>, step: &Step, act: Act) {
    // SAFETY: passed on.
    unsafe { each::<V>(pass, step, 1, |[x, _], _| activate(act, x)) }
}

/// `a + b`.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn add<V: Lanes>(pass: &Pass<'_>, step: &Step) {
    // SAFETY: passed on.
    unsafe { each::<V>(pass, step, 2, |[a, b], _| a.add(b)) }
}

/// `x·(1 + s) + t`.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn film<V: Lanes>(pass: &Pass<'_>, step: &Step) {
    let (x, st, out): (Place, Place, Place) = (step.inputs[0], step.inputs[1], step.output);
    let d = out.width;
    // SAFETY: as for `each`; s and t are d columns each of one row.
    unsafe {
        for r in 0..pass.table.total(step.to) {
            let (x, st, y) = (row(pass, x, r), row(pass, st, r), row(pass, out, r));
            let mut c = 0;
            while c < d {
                let scale = V::load(st.add(c)).add(V::splat(1.0));
                put(V::load(x.add(c)).fma(scale, V::load(st.add(d + c))), y.add(c), out);
                c += 16;
            }
        }
    }
}
