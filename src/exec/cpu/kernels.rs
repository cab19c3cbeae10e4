//! One pass over a program: every step, in order, over the rows that the table says.

use super::lanes::{Lanes, Math};
use super::program::{Kernel, Place, Step};
use super::{elementwise, history, linear, scan};
use crate::exec::RowTable;
use crate::plan::Act;

/// What a pass works on: raw, because steps read and write overlapping parts of one arena.
pub struct Pass<'a> {
    /// All values.
    pub arena: *mut f32,
    /// All packed weights.
    pub weights: *const f32,
    /// All streams' states, `state_len` numbers each.
    pub states: *mut f32,
    /// From stream to stream.
    pub state_len: usize,
    /// The rows of this pass.
    pub table: &'a RowTable,
    /// The tokens of this pass, stacked like rows.
    pub tokens: &'a [u32],
}

/// Runs steps of a program.
///
/// # Safety
///
/// Arena, weights and states are as long as the program says, for the limits that the table obeys, and the CPU has V's
/// instruction set.
#[inline(always)]
pub unsafe fn run<V: Lanes>(steps: &[Step], pass: &Pass<'_>) {
    for step in steps {
        // SAFETY: the program was built for these buffers.
        unsafe { run_step::<V>(pass, step) }
    }
}

#[inline(always)]
unsafe fn run_step<V: Lanes>(pass: &Pass<'_>, step: &Step) {
    // SAFETY: passed on.
    unsafe {
        match &step.kernel {
            Kernel::Embed(table) => elementwise::embed(pass, step, table),
            Kernel::Linear(packed) => linear::linear::<V>(pass, step, packed),
            Kernel::Norm { layer, weight, bias, eps } => {
                elementwise::norm::<V>(pass, step, *layer, (*weight, *bias), *eps);
            }
            Kernel::Conv { weight, bias, taps, act } => {
                history::conv::<V>(pass, step, (*weight, *bias), *taps, *act);
            }
            Kernel::Selective(weights) => scan::selective::<V>(pass, step, weights),
            Kernel::SelectiveComplex(weights) => scan::selective_complex::<V>(pass, step, weights),
            Kernel::Invariant(weights) => scan::invariant::<V>(pass, step, weights),
            Kernel::InvariantComplex(weights) => scan::invariant_complex::<V>(pass, step, weights),
            Kernel::Gate(act) => elementwise::gate::<V>(pass, step, *act),
            Kernel::Activate(act) => elementwise::activate_rows::<V>(pass, step, *act),
            Kernel::Add => elementwise::add::<V>(pass, step),
            Kernel::Film => elementwise::film::<V>(pass, step),
            Kernel::Delay => history::delay(pass, step),
            Kernel::Frame { period, window } => history::frame(pass, step, *period, *window),
            Kernel::Overlap { period, overlap } => history::overlap::<V>(pass, step, *period, *overlap),
        }
    }
}

/// `act(x)`; GLU belongs to the product.
///
/// # Safety
///
/// The CPU has V's instruction set.
#[inline(always)]
pub unsafe fn activate<V: Lanes>(act: Act, x: V) -> V {
    // SAFETY: passed on.
    unsafe {
        match act {
            Act::None | Act::Glu => x,
            Act::Silu => x.silu(),
            Act::Gelu => x.gelu(),
            Act::Relu => x.max(V::splat(0.0)),
            Act::Sigmoid => x.sigmoid(),
            Act::Tanh => x.tanh(),
            Act::Softplus => x.softplus(),
        }
    }
}

/// Stores a vector of a row; of a row of one sample, only that.
///
/// # Safety
///
/// `at` is a vector of a row at `place`'s stride.
#[inline(always)]
pub unsafe fn put<V: Lanes>(x: V, at: *mut f32, place: Place) {
    // SAFETY: rows wider than 1 have whole vectors; a row of one sample takes one number.
    unsafe {
        if place.stride == 1 {
            let mut all = [0.0f32; 16];
            x.store(all.as_mut_ptr());
            *at = *all.as_ptr();
        } else {
            x.store(at);
        }
    }
}

/// The first number of row `row` at `place`.
///
/// # Safety
///
/// The row lies in the arena.
#[inline(always)]
pub unsafe fn row(pass: &Pass<'_>, place: Place, row: usize) -> *mut f32 {
    // SAFETY: the caller vouches for the row.
    unsafe { pass.arena.add(place.at + row * place.stride) }
}
