//! The scalar executor that is plainly right: every op as its formula reads, generic over f32 and f64.
//!
//! It allocates as it goes and is slow; the fast executors are tested against it in f64. Parameters, and a time-invariant
//! scan's Ā, B̄, are the same f32 numbers for every executor.

use num_traits::Float;

use super::{Executor, Feed, Limits, Misuse, RowTable, Rows, Span, State, TINY};
use crate::Result;
use crate::plan::{
    Act, Coefficients, Dynamics, NormKind, Op, OpKind, ParamId, Plan, Scan, View, Weights, coefficients,
};

/// A scalar that the reference computes in.
pub trait Scalar: Float + Send + 'static {
    /// From an f32, exactly.
    fn of(x: f32) -> Self;
    /// To an f32, rounded.
    fn to(self) -> f32;
    /// The error function.
    fn erf(self) -> Self;
}

impl Scalar for f32 {
    fn of(x: f32) -> Self {
        x
    }
    fn to(self) -> f32 {
        self
    }
    fn erf(self) -> Self {
        libm::erff(self)
    }
}

impl Scalar for f64 {
    fn of(x: f32) -> Self {
        f64::from(x)
    }
    fn to(self) -> f32 {
        self as f32
    }
    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// `act(x)`; GLU, which takes two numbers, is the linear op's own.
pub fn act<F: Scalar>(act: Act, x: F) -> F {
    let (one, half) = (F::one(), F::of(0.5));
    let sigmoid = |x: F| one / (one + (-x).exp());
    match act {
        Act::None | Act::Glu => x,
        Act::Silu => x * sigmoid(x),
        Act::Gelu => half * x * (one + (x * F::of(0.5).sqrt()).erf()),
        Act::Relu => x.max(F::zero()),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
        Act::Softplus if x > F::of(20.0) => x,
        Act::Softplus => x.exp().ln_1p(),
    }
}

struct Stream<F> {
    position: u64,
    slots: Vec<Vec<F>>,
}

/// The reference executor.
pub struct Reference<F> {
    plan: Plan,
    weights: Vec<Vec<F>>,
    coefficients: Vec<Option<Coefficients>>,
    limits: Limits,
    initial: State,
    streams: Vec<Stream<F>>,
}

/// One op's rows: `[rows, width]`.
struct Block<F> {
    width: usize,
    data: Vec<F>,
}

impl<F: Scalar> Block<F> {
    fn view(&self, view: View, row: usize) -> &[F] {
        &self.data[row * self.width + view.offset..][..view.width]
    }
}

impl<F: Scalar> Reference<F> {
    /// Opens a plan with its weights.
    pub fn open(plan: &Plan, weights: &Weights, limits: Limits) -> Self {
        let scan = |op: &Op| match &op.kind {
            OpKind::Scan(scan) => coefficients(scan, weights, 1.0),
            _ => None,
        };
        let initial = State::zero(plan);
        let mut this = Self {
            plan: plan.clone(),
            weights: weights.tensors().iter().map(|t| t.iter().map(|x| F::of(*x)).collect()).collect(),
            coefficients: plan.ops.iter().map(scan).collect(),
            limits,
            initial,
            streams: Vec::new(),
        };
        this.streams = (0..limits.max_streams).map(|_| this.stream_of(&this.initial)).collect();
        this
    }

    fn stream_of(&self, state: &State) -> Stream<F> {
        let slot = |s: &Vec<f32>| s.iter().map(|x| F::of(*x)).collect();
        Stream { position: state.position, slots: state.slots.iter().map(slot).collect() }
    }

    /// Advances one stream and returns its output rows in full precision.
    pub fn advance_one(&mut self, stream: usize, rows: usize, input: Rows<'_>) -> Vec<F> {
        let mut table = RowTable::new(&self.plan, 1);
        table.fill([(stream, self.streams[stream].position, rows)].into_iter());
        let mut blocks: Vec<Block<F>> =
            self.plan.values.iter().map(|v| Block { width: v.width, data: Vec::new() }).collect();
        if let Rows::Samples(x) = input {
            blocks[self.plan.input_value.0].data = x.iter().map(|x| F::of(*x)).collect();
        }
        for (i, op) in self.plan.ops.iter().enumerate() {
            let from = table.spans(op.inputs[0].value)[0];
            let to = table.spans(op.output)[0];
            let mut none = Vec::new();
            let streams = &mut self.streams[stream];
            let state = op.state.map_or(&mut none, |s| &mut streams.slots[s.0]);
            let call = Call { plan: &self.plan, weights: &self.weights, blocks: &blocks, op, from, to };
            let data = match (&op.kind, input) {
                (OpKind::Embed { table, unit }, Rows::Tokens(tokens)) => call.embed(*table, *unit, tokens),
                (OpKind::Scan(scan), _) => call.scan(scan, self.coefficients[i].as_ref(), state),
                _ => call.run(state),
            };
            debug_assert_eq!(data.len(), to.rows * self.plan.value(op.output).width, "{}", op.name);
            blocks[op.output.0].data = data;
        }
        self.streams[stream].position += rows as u64;
        blocks.swap_remove(self.plan.output.0).data
    }

    /// A stream's state slots in full precision.
    pub fn slots(&self, stream: usize) -> &[Vec<F>] {
        &self.streams[stream].slots
    }
}

/// One op's work on one stream in one pass.
struct Call<'a, F> {
    plan: &'a Plan,
    weights: &'a [Vec<F>],
    blocks: &'a [Block<F>],
    op: &'a Op,
    from: Span,
    to: Span,
}

impl<F: Scalar> Call<'_, F> {
    fn input(&self, i: usize, row: usize) -> &[F] {
        let view = self.op.inputs[i];
        self.blocks[view.value.0].view(view, row)
    }

    fn param(&self, id: ParamId) -> &[F] {
        &self.weights[id.0]
    }

    fn run(&self, state: &mut Vec<F>) -> Vec<F> {
        match &self.op.kind {
            OpKind::Linear { weight, bias, act } => self.linear(*weight, *bias, *act),
            OpKind::Norm { kind, weight, bias, eps_bits } => {
                self.norm(*kind, *weight, *bias, F::of(f32::from_bits(*eps_bits)))
            }
            OpKind::Conv { weight, bias, taps, act } => self.conv(*weight, *bias, *taps, *act, state),
            OpKind::Gate { act: f } => self.zip(|x, z| x * act(*f, z)),
            OpKind::Activate { act: f } => self.map(|x| act(*f, x)),
            OpKind::Add => self.zip(|a, b| a + b),
            OpKind::Film => self.film(),
            OpKind::Dropout { .. } => self.map(|x| x),
            OpKind::Delay { .. } => {
                let ext = self.extended(state);
                let len = self.to.rows * self.op.inputs[0].width;
                ext[..len].to_vec()
            }
            OpKind::Frame { period, window } => self.frame(*period, *window, state),
            OpKind::Overlap { period, shift, overlap } => self.overlap(*period, *shift, *overlap, state),
            OpKind::Embed { .. } | OpKind::Scan(_) => unreachable!("handled by the caller"),
        }
    }

    fn map(&self, f: impl Fn(F) -> F) -> Vec<F> {
        (0..self.to.rows).flat_map(|row| self.input(0, row)).map(|x| f(*x)).collect()
    }

    fn zip(&self, f: impl Fn(F, F) -> F) -> Vec<F> {
        let row = |row| self.input(0, row).iter().zip(self.input(1, row)).map(|(a, b)| f(*a, *b));
        (0..self.to.rows).flat_map(row).collect()
    }

    /// The history and the new rows; the history is moved on.
    fn extended(&self, state: &mut Vec<F>) -> Vec<F> {
        let held = state.len();
        let rows = (0..self.from.rows).flat_map(|row| self.input(0, row)).copied();
        let ext: Vec<F> = state.iter().copied().chain(rows).collect();
        *state = ext[ext.len() - held..].to_vec();
        ext
    }

    fn embed(&self, table: ParamId, unit: usize, tokens: &[u32]) -> Vec<F> {
        let (rows, d) = (self.plan.param(table).shape[0], self.plan.value(self.op.output).width);
        tokens
            .iter()
            .flat_map(|t| &self.param(table)[*t as usize / unit % rows * d..][..d])
            .copied()
            .collect()
    }

    fn linear(&self, weight: ParamId, bias: Option<ParamId>, f: Act) -> Vec<F> {
        let (rows, cols) = (self.plan.param(weight).shape[0], self.plan.param(weight).shape[1]);
        let mut out = Vec::new();
        for row in 0..self.to.rows {
            let x = self.input(0, row);
            let product = |o: usize| {
                let w = &self.param(weight)[o * cols..][..cols];
                let sum = w.iter().zip(x).fold(F::zero(), |sum, (w, x)| sum + *w * *x);
                sum + bias.map_or(F::zero(), |b| self.param(b)[o])
            };
            match f {
                Act::Glu => {
                    out.extend((0..rows / 2).map(|o| product(o) * act(Act::Sigmoid, product(rows / 2 + o))))
                }
                f => out.extend((0..rows).map(|o| act(f, product(o)))),
            }
        }
        out
    }

    fn norm(&self, kind: NormKind, weight: ParamId, bias: Option<ParamId>, eps: F) -> Vec<F> {
        let mut out = Vec::new();
        for row in 0..self.to.rows {
            let x = self.input(0, row);
            let count = F::from(x.len()).unwrap_or_else(F::one);
            let mean = match kind {
                NormKind::Layer => x.iter().fold(F::zero(), |s, x| s + *x) / count,
                NormKind::Rms => F::zero(),
            };
            let var = x.iter().fold(F::zero(), |s, x| s + (*x - mean) * (*x - mean)) / count;
            let scale = F::one() / (var + eps).sqrt();
            let w = self.param(weight);
            let shift = |c: usize| bias.map_or(F::zero(), |b| self.param(b)[c]);
            out.extend(x.iter().enumerate().map(|(c, x)| (*x - mean) * scale * w[c] + shift(c)));
        }
        out
    }

    fn conv(
        &self,
        weight: ParamId,
        bias: Option<ParamId>,
        taps: usize,
        f: Act,
        state: &mut Vec<F>,
    ) -> Vec<F> {
        let d = self.op.inputs[0].width;
        let ext = self.extended(state);
        let mut out = Vec::new();
        for row in 0..self.to.rows {
            for c in 0..d {
                let start = bias.map_or(F::zero(), |b| self.param(b)[c]);
                let tap = |sum: F, j: usize| sum + self.param(weight)[c * taps + j] * ext[(row + j) * d + c];
                out.push(act(f, (0..taps).fold(start, tap)));
            }
        }
        out
    }

    fn film(&self) -> Vec<F> {
        let d = self.op.inputs[0].width;
        let row = |row| {
            let (x, st) = (self.input(0, row), self.input(1, row));
            (0..d).map(move |c| x[c] * (F::one() + st[c]) + st[d + c])
        };
        (0..self.to.rows).flat_map(row).collect()
    }

    fn frame(&self, period: usize, window: usize, state: &mut Vec<F>) -> Vec<F> {
        let d = self.op.inputs[0].width;
        let phase = (self.from.completed % period as u64) as usize;
        let ext = self.extended(state);
        let start = |row: usize| (period - phase - 1 + row * period) * d;
        (0..self.to.rows).flat_map(|row| &ext[start(row)..][..window * d]).copied().collect()
    }

    fn overlap(&self, period: usize, shift: usize, overlap: usize, state: &mut Vec<F>) -> Vec<F> {
        let d = self.plan.value(self.op.output).width;
        let wide = self.op.inputs[0].width;
        debug_assert_eq!(state.len(), (shift + overlap - 1) * wide);
        let ext = self.extended(state);
        let mut out = Vec::new();
        for row in 0..self.to.rows {
            let n = self.to.completed + row as u64;
            let (coarse, r) = (n / period as u64 - self.from.completed, (n % period as u64) as usize);
            for c in 0..d {
                let part =
                    |k: usize| ext[(coarse as usize + overlap - 1 - k) * wide + (r + k * period) * d + c];
                out.push((0..overlap).fold(F::zero(), |sum, k| sum + part(k)));
            }
        }
        out
    }

    fn scan(&self, scan: &Scan, fixed: Option<&Coefficients>, h: &mut [F]) -> Vec<F> {
        let mut out = Vec::new();
        for row in 0..self.to.rows {
            let u = self.input(0, row);
            for (c, u) in u.iter().enumerate() {
                let mut y = F::zero();
                for k in 0..scan.n {
                    let [a, b, read] = self.dynamics(scan, fixed, row, c, k);
                    let (re, im) = (k * scan.d + c, (scan.n + k) * scan.d + c);
                    let was = (h[re], if scan.is_complex() { h[im] } else { F::zero() });
                    h[re] = flush(a.0 * was.0 - a.1 * was.1 + b.0 * *u);
                    y = y + read.0 * h[re];
                    if scan.is_complex() {
                        h[im] = flush(a.0 * was.1 + a.1 * was.0 + b.1 * *u);
                        y = y - read.1 * h[im];
                    }
                }
                let twice = if scan.is_complex() { F::of(2.0) } else { F::one() };
                out.push(twice * y + self.param(scan.skip)[c] * *u);
            }
        }
        out
    }

    /// Ā, B̄ and C of one row, channel and state, each as (real, imaginary).
    fn dynamics(
        &self,
        scan: &Scan,
        fixed: Option<&Coefficients>,
        row: usize,
        c: usize,
        k: usize,
    ) -> [(F, F); 3] {
        let (d, n) = (scan.d, scan.n);
        if let (Some(fixed), Dynamics::Invariant { .. }) = (fixed, scan.dynamics) {
            let at = |x: &[f32]| {
                let imag = if scan.is_complex() { x[(n + k) * d + c] } else { 0.0 };
                (F::of(x[k * d + c]), F::of(imag))
            };
            return [at(&fixed.a), at(&fixed.b), at(&fixed.c)];
        }
        let dt = self.input(1, row)[c];
        let (b, read) = (self.input(2, row), self.input(3, row));
        let decay = (-self.param(scan.a_log)[c * n + k].exp() * dt).exp();
        match scan.a_imag {
            None => [(decay, F::zero()), (dt * b[k], F::zero()), (read[k], F::zero())],
            Some(imag) => {
                let turn = self.param(imag)[c * n + k] * dt;
                let b = (dt * b[2 * k], dt * b[2 * k + 1]);
                [(decay * turn.cos(), decay * turn.sin()), b, (read[2 * k], read[2 * k + 1])]
            }
        }
    }
}

/// 0 for what is smaller than [`TINY`].
fn flush<F: Scalar>(x: F) -> F {
    if x.abs() < F::of(TINY) { F::zero() } else { x }
}

impl<F: Scalar> Executor for Reference<F> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn advance(&mut self, feeds: &[Feed], input: Rows<'_>, output: &mut [f32]) -> Result<(), Misuse> {
        input.check(&self.plan, self.limits, feeds, output.len())?;
        let width = self.plan.value(self.plan.output).width;
        let (mut row, mut out) = (0, output);
        for feed in feeds {
            let rows = match (input, self.plan.input) {
                (Rows::Samples(x), crate::plan::Input::Samples(w)) => {
                    Rows::Samples(&x[row * w..][..feed.rows * w])
                }
                (Rows::Tokens(x), _) => Rows::Tokens(&x[row..][..feed.rows]),
                _ => return Err(Misuse::InputKind),
            };
            let y = self.advance_one(feed.stream, feed.rows, rows);
            let (now, rest) = out.split_at_mut(feed.rows * width);
            now.iter_mut().zip(y).for_each(|(o, y)| *o = y.to());
            (row, out) = (row + feed.rows, rest);
        }
        Ok(())
    }

    fn position(&self, stream: usize) -> u64 {
        self.streams[stream].position
    }

    fn reset(&mut self, stream: usize) {
        self.streams[stream] = self.stream_of(&self.initial);
    }

    fn set_initial(&mut self, state: &State) -> Result<()> {
        state.check(&self.plan)?;
        self.initial = state.clone();
        (0..self.limits.max_streams).for_each(|s| self.reset(s));
        Ok(())
    }

    fn save(&mut self, stream: usize) -> State {
        let slots = self.streams[stream].slots.iter().map(|s| s.iter().map(|x| x.to()).collect()).collect();
        let mut state = State::zero(&self.plan);
        (state.position, state.slots) = (self.streams[stream].position, slots);
        state
    }

    fn restore(&mut self, stream: usize, state: &State) -> Result<()> {
        state.check(&self.plan)?;
        self.streams[stream] = self.stream_of(state);
        Ok(())
    }
}
