//! Ops that look back over rows: conv, delay, frame, overlap. Each sees its state's rows, then the new ones, as one sequence.

use super::kernels::{Pass, activate, put, row};
use super::lanes::Lanes;
use super::program::{Place, Slot, Step};
use crate::exec::Span;
use crate::plan::Act;

/// A stream's held rows followed by its new ones.
struct Sequence {
    held: *mut f32,
    slot: Slot,
    new: *const f32,
    place: Place,
    rows: usize,
}

impl Sequence {
    #[inline(always)]
    unsafe fn of(pass: &Pass<'_>, step: &Step, span: &Span) -> Self {
        // SAFETY: the stream and its rows are inside their buffers.
        unsafe {
            let held = pass.states.add(span.stream * pass.state_len + step.slot.at);
            let new = row(pass, step.inputs[0], span.start).cast_const();
            Self { held, slot: step.slot, new, place: step.inputs[0], rows: span.rows }
        }
    }

    /// Row `i`, counted from the oldest held.
    #[inline(always)]
    unsafe fn row(&self, i: usize) -> *const f32 {
        // SAFETY: i is below held + new rows.
        unsafe {
            if i < self.slot.rows {
                self.held.add(i * self.slot.stride)
            } else {
                self.new.add((i - self.slot.rows) * self.place.stride)
            }
        }
    }

    /// Copies rows `from .. from + count` side by side to `to`.
    #[inline(always)]
    unsafe fn copy(&self, from: usize, count: usize, to: *mut f32) {
        // SAFETY: rows exist; `to` has room for count·width numbers and is in neither source.
        unsafe {
            if self.slot.stride == 1 && self.place.stride == 1 {
                let old = self.slot.rows.saturating_sub(from).min(count);
                if old > 0 {
                    std::ptr::copy_nonoverlapping(self.row(from), to, old);
                }
                if count > old {
                    std::ptr::copy_nonoverlapping(self.row(from + old), to.add(old), count - old);
                }
                return;
            }
            for i in 0..count {
                std::ptr::copy_nonoverlapping(
                    self.row(from + i),
                    to.add(i * self.slot.width),
                    self.slot.width,
                );
            }
        }
    }

    /// Keeps the last rows as the new state.
    #[inline(always)]
    unsafe fn keep(&self) {
        let (held, stride) = (self.slot.rows, self.slot.stride);
        let stay = held.saturating_sub(self.rows);
        // SAFETY: the rows that stay move down inside the slot; the new ones come from the arena.
        unsafe {
            std::ptr::copy(self.held.add((held - stay) * stride), self.held, stay * stride);
            for i in stay..held {
                let from = self.new.add((self.rows + i - held) * self.place.stride);
                std::ptr::copy_nonoverlapping(from, self.held.add(i * stride), self.slot.width);
            }
        }
    }
}

/// Depthwise causal convolution.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn conv<V: Lanes>(
    pass: &Pass<'_>,
    step: &Step,
    (weight, bias): (usize, usize),
    taps: usize,
    act: Act,
) {
    let width = step.output.width;
    let wide = width.next_multiple_of(16);
    for span in pass.table.spans(step.to) {
        // SAFETY: rows t … t + taps − 1 of the sequence exist for t below the new rows.
        unsafe {
            let sequence = Sequence::of(pass, step, span);
            for t in 0..span.rows {
                let y = row(pass, step.output, span.start + t);
                let mut first = [sequence.row(t); 4];
                for (j, x) in first.iter_mut().enumerate().take(taps) {
                    *x = sequence.row(t + j);
                }
                let mut c = 0;
                while c < width {
                    let mut sum = V::load(pass.weights.add(bias + c));
                    let mut tap = |j: usize, x: *const f32| {
                        sum = V::load(pass.weights.add(weight + j * wide + c)).fma(V::load(x.add(c)), sum);
                    };
                    if taps == 4 {
                        first.iter().enumerate().for_each(|(j, x)| tap(j, *x));
                    } else {
                        (0..taps).for_each(|j| tap(j, sequence.row(t + j)));
                    }
                    put(activate(act, sum), y.add(c), step.output);
                    c += 16;
                }
            }
            sequence.keep();
        }
    }
}

/// Rows, later.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn delay(pass: &Pass<'_>, step: &Step) {
    for span in pass.table.spans(step.to) {
        // SAFETY: the first `rows` rows of the sequence exist.
        unsafe {
            let sequence = Sequence::of(pass, step, span);
            for t in 0..span.rows {
                let y = row(pass, step.output, span.start + t);
                std::ptr::copy_nonoverlapping(sequence.row(t), y, step.output.width);
            }
            sequence.keep();
        }
    }
}

/// Every `period` rows, the last `window` rows side by side.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn frame(pass: &Pass<'_>, step: &Step, period: usize, window: usize) {
    for (from, to) in pass.table.spans(step.from).iter().zip(pass.table.spans(step.to)) {
        let phase = (from.completed % period as u64) as usize;
        // SAFETY: row i of the output ends with the (i·period + period − phase)th new row, which exists.
        unsafe {
            let sequence = Sequence::of(pass, step, from);
            for i in 0..to.rows {
                let first = period - phase - 1 + i * period;
                sequence.copy(first, window, row(pass, step.output, to.start + i));
            }
            sequence.keep();
        }
    }
}

/// Each coarse row laid over the following fine rows and added.
///
/// # Safety
///
/// As for [`run`](super::kernels::run).
#[inline(always)]
pub unsafe fn overlap<V: Lanes>(pass: &Pass<'_>, step: &Step, period: usize, overlap: usize) {
    let d = step.output.width;
    for (from, to) in pass.table.spans(step.from).iter().zip(pass.table.spans(step.to)) {
        // SAFETY: coarse row ⌊n/p⌋ − completed + overlap − 1 − k of the sequence exists for every fine row n of the pass.
        unsafe {
            let sequence = Sequence::of(pass, step, from);
            for i in 0..to.rows {
                let n = to.completed + i as u64;
                let newest = (n / period as u64 - from.completed) as usize + overlap - 1;
                let at = (n % period as u64) as usize;
                let part = |k: usize| sequence.row(newest - k).add((at + k * period) * d);
                let y = row(pass, step.output, to.start + i);
                if d == 1 {
                    *y = (0..overlap).fold(0.0, |sum, k| sum + *part(k));
                    continue;
                }
                let mut c = 0;
                while c < d {
                    let mut sum = V::splat(0.0);
                    for k in 0..overlap {
                        sum = sum.add(V::load(part(k).add(c)));
                    }
                    put(sum, y.add(c), step.output);
                    c += 16;
                }
            }
            sequence.keep();
        }
    }
}
