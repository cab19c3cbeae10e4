//! A plan prepared for the kernels: packed weights, and a place in one arena for every value.

use std::collections::HashSet;
use std::ops::Range;

use super::buffer::{Aligned, Layout, stride};
use super::pack::{self, Forms, Linear, Pool};
use super::scan::UNIT;
use crate::exec::Limits;
use crate::plan::{
    Act, Coefficients, Dynamics, NormKind, Op, OpKind, Plan, Scan, ValueId, View, Weights, coefficients,
};

/// Bytes of weights that a step of a pipelined tier reads, about: some microseconds.
const SLICE: usize = 96 << 10;

/// Columns of a value in the arena.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The first number of row 0.
    pub at: usize,
    /// From row to row.
    pub stride: usize,
    /// Columns.
    pub width: usize,
}

/// A step's state slot: `[rows, stride]` in each stream's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Where it begins in the stream's state.
    pub at: usize,
    /// Rows held.
    pub rows: usize,
    /// From row to row.
    pub stride: usize,
    /// Numbers in a row.
    pub width: usize,
    /// What 1 is held as.
    pub unit: f32,
}

/// Offsets into the packed weights of a scan: rows as in [`Scan::state_rows`], padded.
#[derive(Clone, Copy, Debug)]
pub struct ScanWeights {
    /// State size N.
    pub n: usize,
    /// A·log₂e and, complex, A_imag/2π and what its rounding lost behind it (selective); Ā (invariant).
    pub a: usize,
    /// B̄ times the state's unit (invariant).
    pub b: usize,
    /// C divided by it (invariant).
    pub c: usize,
    /// D.
    pub skip: usize,
}

/// A table that tokens choose rows of.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Where it begins in the packed weights.
    pub at: usize,
    pub stride: usize,
    pub rows: usize,
    /// A token chooses row ⌊token/unit⌋ mod rows.
    pub unit: usize,
}

/// What a step computes, with offsets into the packed weights.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// Table rows.
    Embed(Table),
    /// A packed matrix product.
    Linear(Linear),
    /// LayerNorm (true) or RMSNorm.
    Norm { layer: bool, weight: usize, bias: usize, eps: f32 },
    /// Depthwise convolution, weights `[tap][d]`.
    Conv { weight: usize, bias: usize, taps: usize, act: Act },
    /// Mamba's scan, real A.
    Selective(ScanWeights),
    /// Mamba's scan, complex A.
    SelectiveComplex(ScanWeights),
    /// S4D's scan, real A.
    Invariant(ScanWeights),
    /// S4D's scan, complex A.
    InvariantComplex(ScanWeights),
    /// `x·act(z)`.
    Gate(Act),
    /// `act(x)`.
    Activate(Act),
    /// `a + b`.
    Add,
    /// `x(1+s)+t`.
    Film,
    /// Rows held back.
    Delay,
    /// Rows side by side.
    Frame { period: usize, window: usize },
    /// Rows overlapped and added.
    Overlap { period: usize, overlap: usize },
}

/// One op, ready to run.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it computes.
    pub kernel: Kernel,
    /// What it reads.
    pub inputs: [Place; 4],
    /// What it writes.
    pub output: Place,
    /// Its state.
    pub slot: Slot,
    /// The value whose tier its input rows have.
    pub from: ValueId,
    /// The value whose tier its output rows have.
    pub to: ValueId,
}

/// A prepared plan.
pub struct Program {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The first step of each op of the plan, and behind them how many steps there are.
    pub first: Vec<usize>,
    /// All packed weights.
    pub weights: Aligned,
    /// Each plan state slot's place in a stream's state.
    pub slots: Vec<Slot>,
    /// Numbers in a stream's state.
    pub state_len: usize,
    /// Numbers in the arena.
    pub arena_len: usize,
    /// The input rows' place.
    pub input: Place,
    /// The output rows' place.
    pub output: Place,
}

impl Program {
    /// Packs the weights and lays out arena and state.
    pub fn new(plan: &Plan, weights: &Weights, limits: Limits, forms: Forms) -> Self {
        let (places, arena_len) = place_values(plan, limits);
        let (slots, state_len) = place_states(plan);
        let mut pool = Pool::new(forms);
        let view = |v: &View| {
            let value = places.get(v.value.0).copied().unwrap_or_default();
            Place { at: value.at + v.offset, width: v.width, ..value }
        };
        let whole = |id: ValueId| places.get(id.0).copied().unwrap_or_default();
        let late: Vec<Range<usize>> = plan.pipelined().into_iter().map(|tier| tier.ops).collect();
        let (mut steps, mut first) =
            (Vec::with_capacity(plan.ops.len()), Vec::with_capacity(plan.ops.len() + 1));
        for (i, op) in plan.ops.iter().enumerate() {
            first.push(steps.len());
            let mut inputs = [Place::default(); 4];
            inputs.iter_mut().zip(&op.inputs).for_each(|(to, v)| *to = view(v));
            let slot = op.state.and_then(|s| slots.get(s.0)).copied().unwrap_or_default();
            let from = op.inputs.first().map_or(op.output, |v| v.value);
            let kernel = kernel(plan, weights, op, &mut pool);
            let step = Step { kernel, inputs, output: whole(op.output), slot, from, to: op.output };
            match kernel {
                // What is computed in slices takes small steps.
                Kernel::Linear(packed) if late.iter().any(|ops| ops.contains(&i)) => {
                    steps.extend(packed.parts(SLICE).into_iter().map(|(column, part)| {
                        let output = Place { at: step.output.at + column, ..step.output };
                        Step { kernel: Kernel::Linear(part), output, ..step }
                    }));
                }
                _ => steps.push(step),
            }
        }
        first.push(steps.len());
        let (input, output) = (whole(plan.input_value), whole(plan.output));
        Self { steps, first, weights: pool.finish(), slots, state_len, arena_len, input, output }
    }
}

fn kernel(plan: &Plan, weights: &Weights, op: &Op, pool: &mut Pool) -> Kernel {
    let d = plan.value(op.output).width;
    match &op.kind {
        OpKind::Embed { table, unit } => Kernel::Embed(Table {
            at: pool.push(pack::padded(weights.get(*table), d)),
            stride: d.next_multiple_of(16),
            rows: plan.param(*table).shape.first().copied().unwrap_or(1),
            unit: *unit,
        }),
        OpKind::Linear { weight, bias, act } => {
            Kernel::Linear(pack::linear(pool, plan, weights, (*weight, *bias), *act))
        }
        OpKind::Norm { kind, weight, bias, eps_bits } => Kernel::Norm {
            layer: *kind == NormKind::Layer,
            weight: pack::vector(pool, weights, Some(*weight), d),
            bias: pack::vector(pool, weights, *bias, d),
            eps: f32::from_bits(*eps_bits),
        },
        OpKind::Conv { weight, bias, taps, act } => Kernel::Conv {
            weight: pool.push(pack::transposed(weights.get(*weight), d, *taps)),
            bias: pack::vector(pool, weights, *bias, d),
            taps: *taps,
            act: *act,
        },
        OpKind::Scan(scan) => scan_kernel(weights, scan, pool),
        OpKind::Gate { act } => Kernel::Gate(*act),
        OpKind::Activate { act } => Kernel::Activate(*act),
        OpKind::Add => Kernel::Add,
        OpKind::Film => Kernel::Film,
        OpKind::Delay { .. } => Kernel::Delay,
        OpKind::Frame { period, window } => Kernel::Frame { period: *period, window: *window },
        OpKind::Overlap { period, overlap, .. } => Kernel::Overlap { period: *period, overlap: *overlap },
        OpKind::Dropout { .. } => Kernel::Activate(Act::None),
    }
}

fn scan_kernel(weights: &Weights, scan: &Scan, pool: &mut Pool) -> Kernel {
    let skip = pack::vector(pool, weights, Some(scan.skip), scan.d);
    if let (Dynamics::Invariant { .. }, Some(Coefficients { a, b, c })) =
        (scan.dynamics, coefficients(scan, weights, 1.0))
    {
        let mut push = |x: &[f32]| pool.push(pack::padded(x, scan.d));
        let (b, c): (Vec<f32>, Vec<f32>) =
            (b.iter().map(|b| b * UNIT).collect(), c.iter().map(|c| c / UNIT).collect());
        let packed = ScanWeights { n: scan.n, a: push(&a), b: push(&b), c: push(&c), skip };
        return if scan.is_complex() { Kernel::InvariantComplex(packed) } else { Kernel::Invariant(packed) };
    }
    // Decays as powers of two and rotations as turns: the kernels' exp2 and turn take them as they are.
    let decay = |x: &f32| (-f64::from(*x).exp() * std::f64::consts::LOG2_E) as f32;
    let turns = |x: &f32| f64::from(*x) / std::f64::consts::TAU;
    let decays: Vec<f32> = weights.get(scan.a_log).iter().map(decay).collect();
    let mut a = pack::transposed(&decays, scan.d, scan.n);
    if let Some(imag) = scan.a_imag {
        let rate: Vec<f32> = weights.get(imag).iter().map(|x| turns(x) as f32).collect();
        let rest: Vec<f32> =
            weights.get(imag).iter().map(|x| (turns(x) - f64::from(turns(x) as f32)) as f32).collect();
        a.extend(pack::transposed(&rate, scan.d, scan.n));
        a.extend(pack::transposed(&rest, scan.d, scan.n));
    }
    let packed = ScanWeights { n: scan.n, a: pool.push(a), b: 0, c: 0, skip };
    if scan.is_complex() { Kernel::SelectiveComplex(packed) } else { Kernel::Selective(packed) }
}

/// Rows of each stream, when all are fed, that go through the steps together, at most the limit: as many as leave their values in the second cache
/// beside some weights, but enough for each weight that is read to serve many rows of the coarsest tier.
pub fn tile(plan: &Plan, limits: Limits) -> usize {
    const CACHED: usize = 64 << 10;
    const SERVED: usize = 96;
    let some = limits.max_rows.min(1 << 16);
    let (_, arena) = place_values(plan, Limits { max_rows: some, ..limits });
    let cached = CACHED * some / arena.max(1);
    let served = SERVED.saturating_mul(plan.period()).div_ceil(limits.max_streams);
    limits.max_rows.min(cached.max(served))
}

/// A place for each value, reused once its last reader has run; but what is computed late has places of its own.
fn place_values(plan: &Plan, limits: Limits) -> (Vec<Place>, usize) {
    let mut last_use = vec![0usize; plan.values.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        for view in &op.inputs {
            if let Some(last) = last_use.get_mut(view.value.0) {
                *last = i;
            }
        }
    }
    // The op that writes each value; the input has none.
    let mut born = vec![None; plan.values.len()];
    for (i, op) in plan.ops.iter().enumerate() {
        if let Some(born) = born.get_mut(op.output.0) {
            *born = Some(i);
        }
    }
    let late = plan.pipelined();
    let level = |period: usize| late.iter().filter(|tier| period >= tier.period).count();
    let mut layout = Layout::default();
    // (place, length, the op after which it is free, the level that it serves)
    let mut rooms: Vec<(usize, usize, usize, usize)> = Vec::new();
    let mut places = vec![Place::default(); plan.values.len()];
    for (id, (value, place)) in plan.values.iter().zip(&mut places).enumerate() {
        let len = value.tier.max_rows(limits.max_rows).max(1);
        let len = len.saturating_mul(limits.max_streams).saturating_mul(stride(value.width));
        let (from, last) = (born.get(id).copied().flatten(), last_use.get(id).copied().unwrap_or(0));
        let keep = if id == plan.output.0 { usize::MAX } else { last.max(from.unwrap_or(0)) };
        let level = level(value.tier.period);
        let fits = |(_, room, free, of): &&mut (usize, usize, usize, usize)| {
            *room >= len && *of == level && from.is_some_and(|f| *free < f)
        };
        let at = match rooms.iter_mut().filter(fits).min_by_key(|(_, room, _, _)| *room) {
            Some(room) => {
                room.2 = keep;
                room.0
            }
            None => {
                let at = layout.place(len);
                rooms.push((at, len, keep, level));
                at
            }
        };
        *place = Place { at, stride: stride(value.width), width: value.width };
    }
    (places, layout.len())
}

fn place_states(plan: &Plan) -> (Vec<Slot>, usize) {
    let mut layout = Layout::default();
    let scans: HashSet<usize> = plan
        .ops
        .iter()
        .filter(|op| matches!(op.kind, OpKind::Scan(_)))
        .filter_map(|op| op.state.map(|s| s.0))
        .collect();
    let mut place = |(i, slot): (usize, &crate::plan::StateSlot)| {
        let (stride, unit) = if scans.contains(&i) {
            (slot.width.next_multiple_of(16), UNIT)
        } else {
            (stride(slot.width), 1.0)
        };
        Slot { at: layout.place(slot.rows * stride), rows: slot.rows, stride, width: slot.width, unit }
    };
    let slots = plan.states.iter().enumerate().map(&mut place).collect();
    (slots, layout.len())
}
