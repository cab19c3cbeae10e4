//! The matrix product: `y = act(W x + b)` for stacked rows.
//!
//! SIMD runs across outputs. Each output is the bias plus its products with k ascending, in S partial sums (k mod S) that
//! are added pairwise at the end; S depends on the panel's width alone (1 for three or four vectors, 2 for two, 4 for one,
//! enough to hide the latency of the multiply-add). Neither the number of rows nor their grouping changes a bit.

use std::mem::MaybeUninit;

use super::kernels::{Pass, activate, put};
use super::lanes::{Lanes, Math};
use super::pack::Linear;
use super::program::{Place, Step};
use crate::plan::Act;

/// Runs a packed product over all stacked rows of its tier.
///
/// # Safety
///
/// The pass's pointers fit its program, and the CPU has V's instruction set.
#[inline(always)]
pub unsafe fn linear<V: Lanes>(pass: &Pass<'_>, step: &Step, packed: &Linear) {
    let rows = pass.table.total(step.to);
    // In f16 half the bytes come from the caches, but every further block of rows would expand them again.
    let half = packed.half.filter(|_| rows <= V::ROWS || packed.wide.is_none());
    let numbers = if half.is_some() { 8 } else { 16 } * packed.d_in;
    let at = half.or(packed.wide).unwrap_or(0);
    let (mut vector, mut out) = (0, 0);
    while vector < packed.vectors {
        let wide = (packed.vectors - vector).min(4);
        // SAFETY: panels lie one behind the other, d_in·16 numbers a vector; the caller vouches for the rest.
        unsafe {
            let weight = pass.weights.add(at + vector * numbers);
            let bias = pass.weights.add(packed.bias + vector * 16);
            let panel = Panel { weight, bias, d_in: packed.d_in, act: packed.act, first: out };
            match half {
                Some(_) => panel.of_width::<V, true>(wide, pass, step, rows),
                None => panel.of_width::<V, false>(wide, pass, step, rows),
            }
        }
        vector += wide;
        out += if packed.act == Act::Glu { wide / 2 } else { wide };
    }
}

/// Steps of k in a turn of the inner loop, a multiple of every number of partial sums.
const UNROLL: usize = 4;

/// Up to four vectors of outputs and their weights `[k][vector][16]`, in f32 or f16.
struct Panel {
    weight: *const f32,
    bias: *const f32,
    d_in: usize,
    act: Act,
    /// The first output vector it writes.
    first: usize,
}

impl Panel {
    #[inline(always)]
    unsafe fn of_width<V: Lanes, const HALF: bool>(
        &self,
        vectors: usize,
        pass: &Pass<'_>,
        step: &Step,
        rows: usize,
    ) {
        // SAFETY: passed on.
        unsafe {
            match vectors {
                4 => self.run::<V, HALF, 4, 1>(pass, step.inputs[0], step.output, rows),
                3 => self.run::<V, HALF, 3, 1>(pass, step.inputs[0], step.output, rows),
                2 => self.run::<V, HALF, 2, 2>(pass, step.inputs[0], step.output, rows),
                _ => self.run::<V, HALF, 1, 4>(pass, step.inputs[0], step.output, rows),
            }
        }
    }

    #[inline(always)]
    unsafe fn run<V: Lanes, const HALF: bool, const NV: usize, const S: usize>(
        &self,
        pass: &Pass<'_>,
        x: Place,
        y: Place,
        rows: usize,
    ) {
        // SAFETY: rows of x and y lie at their strides inside the arena.
        unsafe {
            let (x_at, y_at) = (pass.arena.add(x.at).cast_const(), pass.arena.add(y.at + self.first * 16));
            let block = |r: usize| (x_at.add(r * x.stride), y_at.add(r * y.stride));
            let mut r = 0;
            if V::ROWS == 6 {
                while r + 6 <= rows {
                    self.block::<V, HALF, 6, NV, S>(block(r), x.stride, y);
                    r += 6;
                }
                match rows - r {
                    5 => return self.block::<V, HALF, 5, NV, S>(block(r), x.stride, y),
                    4 => return self.block::<V, HALF, 4, NV, S>(block(r), x.stride, y),
                    3 => return self.block::<V, HALF, 3, NV, S>(block(r), x.stride, y),
                    2 => return self.block::<V, HALF, 2, NV, S>(block(r), x.stride, y),
                    _ => {}
                }
            }
            while r < rows {
                self.block::<V, HALF, 1, NV, S>(block(r), x.stride, y);
                r += 1;
            }
        }
    }

    /// MR rows by NV vectors.
    #[inline(always)]
    unsafe fn block<V: Lanes, const HALF: bool, const MR: usize, const NV: usize, const S: usize>(
        &self,
        (x, y): (*const f32, *mut f32),
        x_stride: usize,
        place: Place,
    ) {
        // SAFETY: k stays below d_in, rows below MR, vectors below NV; the accumulators are arrays of constant size.
        unsafe {
            let zero = V::splat(0.0);
            let mut acc = [[[zero; NV]; S]; MR];
            for row in &mut acc {
                for (v, sum) in row[0].iter_mut().enumerate() {
                    *sum = V::load(self.bias.add(v * 16));
                }
            }
            let rows: [*const f32; MR] = std::array::from_fn(|r| x.add(r * x_stride));
            let whole = self.d_in / UNROLL * UNROLL;
            let mut k = 0;
            while k < whole {
                for s in 0..UNROLL {
                    self.multiply_add::<V, HALF, MR, NV, S>(&mut acc, &rows, k + s, s % S);
                }
                k += UNROLL;
            }
            for s in 0..UNROLL {
                if whole + s < self.d_in {
                    self.multiply_add::<V, HALF, MR, NV, S>(&mut acc, &rows, whole + s, s % S);
                }
            }
            // Sums go from their registers straight to their rows, or, where more is to be done, through a buffer.
            let direct = NV > 1 && self.act == Act::None;
            let mut buffer = MaybeUninit::<[[[f32; 16]; NV]; MR]>::uninit();
            let (to, stride) = if direct { (y, place.stride) } else { (buffer.as_mut_ptr().cast(), NV * 16) };
            for (r, row) in acc.iter().enumerate() {
                for v in 0..NV {
                    total(row, v).store(to.add(r * stride + v * 16));
                }
            }
            if !direct {
                for r in 0..MR {
                    self.finish::<V, NV>(to.add(r * stride), y.add(r * place.stride), place);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_add<V: Lanes, const HALF: bool, const MR: usize, const NV: usize, const S: usize>(
        &self,
        acc: &mut [[[V; NV]; S]; MR],
        rows: &[*const f32; MR],
        k: usize,
        s: usize,
    ) {
        // SAFETY: as for `block`; s is below S.
        unsafe {
            let mut weights = [V::splat(0.0); NV];
            for (v, weight) in weights.iter_mut().enumerate() {
                let at = (k * NV + v) * 16;
                *weight = if HALF {
                    V::load_half(self.weight.cast::<u16>().add(at))
                } else {
                    V::load(self.weight.add(at))
                };
            }
            for (row, x) in acc.iter_mut().zip(rows) {
                let x = V::splat(*x.add(k));
                for (sum, weight) in row.get_unchecked_mut(s).iter_mut().zip(weights) {
                    *sum = x.fma(weight, *sum);
                }
            }
        }
    }

    /// A row's sums to what the step writes.
    #[inline(always)]
    unsafe fn finish<V: Lanes, const NV: usize>(&self, sums: *const f32, y: *mut f32, place: Place) {
        // SAFETY: as for `block`.
        unsafe {
            let sum = |v: usize| V::load(sums.add(v * 16));
            if self.act == Act::Glu {
                for v in 0..NV / 2 {
                    put(sum(v).mul(sum(NV / 2 + v).sigmoid()), y.add(v * 16), place);
                }
            } else {
                for v in 0..NV {
                    put(activate(self.act, sum(v)), y.add(v * 16), place);
                }
            }
        }
    }
}

/// The partial sums of vector `v` added up, pairwise.
#[inline(always)]
unsafe fn total<V: Lanes, const NV: usize, const S: usize>(sums: &[[V; NV]; S], v: usize) -> V {
    // SAFETY: v is below NV; S is 1, 2 or 4.
    unsafe {
        let part = |s: usize| *sums.get_unchecked(s).get_unchecked(v);
        match S {
            1 => part(0),
            2 => part(0).add(part(1)),
            _ => part(0).add(part(1)).add(part(2).add(part(3))),
        }
    }
}
