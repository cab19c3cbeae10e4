//! The diagonal recurrence, SIMD across channels: `h ← Ā·h + B̄·u`, `y = C·h + D·u` (complex: `2·Re(C·h) + D·u`).
//!
//! The states of a channel are summed in ascending order; what is smaller than [`TINY`] becomes 0 at every row. For that a state is
//! held times [`UNIT`], so that `TINY` is the least normal number, and the processor flushes what lies below it by itself.
//! Sixteen channels at a time go through all rows of a stream, so that their state stays in the first cache.

use super::kernels::{Pass, put, row};
use super::lanes::{Lanes, Math};
use super::program::{ScanWeights, Step};
use crate::exec::{Span, TINY};

/// What a state of 1 is held as, a power of two: 2⁻²⁶.
pub const UNIT: f32 = f32::MIN_POSITIVE / TINY;

/// Calls `f(span, state, channel)` for each stream's rows and each 16 channels.
#[inline(always)]
unsafe fn each(pass: &Pass<'_>, step: &Step, mut f: impl FnMut(&Span, *mut f32, usize)) {
    for span in pass.table.spans(step.to) {
        let mut c = 0;
        while c < step.output.width {
            // SAFETY: the stream's slot lies inside its state.
            f(span, unsafe { pass.states.add(span.stream * pass.state_len + step.slot.at + c) }, c);
            c += 16;
        }
    }
}

/// Mamba's scan, real A: `Ā = 2^{Δ·A·log₂e}`, `B̄ = Δ·B`.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn selective<V: Lanes>(pass: &Pass<'_>, step: &Step, weights: &ScanWeights) {
    let stride = step.slot.stride;
    // SAFETY: N rows of state and decays at the slot's stride; B and C are N columns of a row.
    unsafe {
        each(pass, step, |span, h, c| {
            let (a, skip) = (pass.weights.add(weights.a + c), V::load(pass.weights.add(weights.skip + c)));
            for r in span.start..span.start + span.rows {
                let [u, dt] =
                    [0, 1].map(|i: usize| V::load(row(pass, *step.inputs.get_unchecked(i), r).add(c)));
                let (b, read) = (row(pass, step.inputs[2], r), row(pass, step.inputs[3], r));
                let (du, mut y) = (dt.mul(u).mul(V::splat(UNIT)), V::splat(0.0));
                for k in 0..weights.n {
                    let decay = dt.mul(V::load(a.add(k * stride))).exp2();
                    let state = decay.fma(V::load(h.add(k * stride)), du.mul(V::splat(*b.add(k)))).normal();
                    state.store(h.add(k * stride));
                    y = state.fma(V::splat(*read.add(k)), y);
                }
                put(skip.fma(u, y.mul(V::splat(1.0 / UNIT))), row(pass, step.output, r).add(c), step.output);
            }
        });
    }
}

/// Mamba's scan, complex A: `Ā = 2^{Δ·Re A·log₂e}·e^{iΔ·Im A}`; B and C are pairs.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn selective_complex<V: Lanes>(pass: &Pass<'_>, step: &Step, weights: &ScanWeights) {
    let (stride, imag) = (step.slot.stride, weights.n * step.slot.stride);
    // SAFETY: 2N rows of state, decays and turns; B and C are 2N columns of a row.
    unsafe {
        each(pass, step, |span, h, c| {
            let (a, skip) = (pass.weights.add(weights.a + c), V::load(pass.weights.add(weights.skip + c)));
            for r in span.start..span.start + span.rows {
                let [u, dt] =
                    [0, 1].map(|i: usize| V::load(row(pass, *step.inputs.get_unchecked(i), r).add(c)));
                let (b, read) = (row(pass, step.inputs[2], r), row(pass, step.inputs[3], r));
                let (du, mut y) = (dt.mul(u).mul(V::splat(UNIT)), V::splat(0.0));
                for k in 0..weights.n {
                    let (re, im) = (h.add(k * stride), h.add(imag + k * stride));
                    let size = dt.mul(V::load(a.add(k * stride))).exp2();
                    let (cos, sin) =
                        dt.turn(V::load(a.add(imag + k * stride)), V::load(a.add(2 * imag + k * stride)));
                    let a_bar = (size.mul(cos), size.mul(sin));
                    let b_bar = (du.mul(V::splat(*b.add(2 * k))), du.mul(V::splat(*b.add(2 * k + 1))));
                    let next = step_complex(a_bar, b_bar, (V::load(re), V::load(im)));
                    next.0.store(re);
                    next.1.store(im);
                    y = next.0.fma(V::splat(*read.add(2 * k)), y);
                    y = next.1.fnma(V::splat(*read.add(2 * k + 1)), y);
                }
                put(skip.fma(u, y.mul(V::splat(2.0 / UNIT))), row(pass, step.output, r).add(c), step.output);
            }
        });
    }
}

/// S4D's scan, real A; B̄ is packed times [`UNIT`], C divided by it.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn invariant<V: Lanes>(pass: &Pass<'_>, step: &Step, weights: &ScanWeights) {
    let stride = step.slot.stride;
    // SAFETY: N rows of state and coefficients at the slot's stride.
    unsafe {
        each(pass, step, |span, h, c| {
            let [a, b, read] = [weights.a, weights.b, weights.c].map(|w| pass.weights.add(w + c));
            let skip = V::load(pass.weights.add(weights.skip + c));
            for r in span.start..span.start + span.rows {
                let (u, mut y) = (V::load(row(pass, step.inputs[0], r).add(c)), V::splat(0.0));
                for k in 0..weights.n {
                    let at = k * stride;
                    let state =
                        V::load(a.add(at)).fma(V::load(h.add(at)), V::load(b.add(at)).mul(u)).normal();
                    state.store(h.add(at));
                    y = state.fma(V::load(read.add(at)), y);
                }
                put(skip.fma(u, y), row(pass, step.output, r).add(c), step.output);
            }
        });
    }
}

/// S4D's scan, complex A, packed as for [`invariant`].
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn invariant_complex<V: Lanes>(pass: &Pass<'_>, step: &Step, weights: &ScanWeights) {
    let (stride, imag) = (step.slot.stride, weights.n * step.slot.stride);
    // SAFETY: 2N rows of state and coefficients at the slot's stride.
    unsafe {
        each(pass, step, |span, h, c| {
            let [a, b, read] = [weights.a, weights.b, weights.c].map(|w| pass.weights.add(w + c));
            let skip = V::load(pass.weights.add(weights.skip + c));
            for r in span.start..span.start + span.rows {
                let (u, mut y) = (V::load(row(pass, step.inputs[0], r).add(c)), V::splat(0.0));
                for k in 0..weights.n {
                    let (at_re, at_im) = (k * stride, imag + k * stride);
                    let pair = |p: *const f32| (V::load(p.add(at_re)), V::load(p.add(at_im)));
                    let b_bar = pair(b);
                    let next = step_complex(pair(a), (b_bar.0.mul(u), b_bar.1.mul(u)), pair(h));
                    next.0.store(h.add(at_re));
                    next.1.store(h.add(at_im));
                    let read = pair(read);
                    y = next.0.fma(read.0, y);
                    y = next.1.fnma(read.1, y);
                }
                put(skip.fma(u, y.add(y)), row(pass, step.output, r).add(c), step.output);
            }
        });
    }
}

/// `Ā·h + B̄u` for complex numbers as (real, imaginary).
#[inline(always)]
unsafe fn step_complex<V: Lanes>(a: (V, V), bu: (V, V), h: (V, V)) -> (V, V) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let re = a.1.fnma(h.1, a.0.fma(h.0, bu.0));
        let im = a.1.fma(h.0, a.0.fma(h.1, bu.1));
        (re.normal(), im.normal())
    }
}
