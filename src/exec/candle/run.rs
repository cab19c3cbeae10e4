//! One pass of a plan over a call's rows: each op in turn, one small function an op.

use candle_core::{Result as Candle, Tensor, bail};

use super::discretise::{Continuous, Fixed};
use super::history::{History, Moves};
use super::norm::Norm;
use super::scan::{ScanShape, scan};
use super::tape::{Kept, Tape};
use super::{
    CandleInput, CandleModel, CandleState, Dropout, columns, elementwise, embed, history, linear, train_error,
};
use crate::plan::{Act, Dynamics, Input, NormKind, Op, OpKind, ParamId, Plan, Scan, View};
use crate::{Error, Result};

impl CandleModel {
    /// Runs the plan; with `keeps`, what the way back needs is on the tape. Dropout only where asked for.
    pub(super) fn run(
        &self,
        state: &CandleState,
        input: CandleInput<'_>,
        dropout: Option<Dropout>,
        keeps: bool,
    ) -> Result<(Tensor, CandleState, Tape)> {
        let rows = self.check(state, input)?;
        let mut pass = Pass {
            model: self,
            dropout,
            position: state.position,
            rows,
            values: vec![None; self.plan.values.len()],
            slots: state.slots.clone(),
        };
        let tokens = match input {
            CandleInput::Samples(x) => {
                pass.values[self.plan.input_value.0] = Some(x.clone());
                None
            }
            CandleInput::Tokens(tokens) => Some(tokens.clone()),
        };
        let mut kept = Vec::with_capacity(self.plan.ops.len());
        while let Some(op) = self.plan.ops.get(kept.len()) {
            let named = |e| Error::Train(format!("op {}: {}", op.name, train_error(e)));
            let sum = summed(&self.plan, kept.len());
            let onto = sum.map_or(Ok(None), |(_, other)| view(self, &pass.values, other)).map_err(named)?;
            let (y, keep) = pass.op(kept.len(), op, input, onto.as_ref()).map_err(named)?;
            pass.values[sum.map_or(op.output, |(sum, _)| sum.output).0] = y;
            kept.push(if keeps { keep } else { Kept::Nothing });
            kept.extend(sum.map(|_| Kept::Nothing));
        }
        let state = CandleState { slots: pass.slots, position: state.position + rows as u64 };
        let Some(y) = pass.values[self.plan.output.0].clone() else {
            return Err(Error::Train("the plan's output has no rows".into()));
        };
        let tape = Tape { model: self.clone(), tokens, values: pass.values, kept, weights_only: false };
        Ok((y, state, tape))
    }

    /// T of a call that fits the plan and the state.
    fn check(&self, state: &CandleState, input: CandleInput<'_>) -> Result<usize> {
        let (expected, got) = match (self.plan.input, input) {
            (Input::Samples(width), CandleInput::Samples(x)) => {
                (format!("[S, T, {width}] samples of {:?}", self.dtype()), x)
            }
            (Input::Tokens(_), CandleInput::Tokens(x)) => ("[S, T] tokens of U32".into(), x),
            (Input::Samples(_), CandleInput::Tokens(x)) => ("samples, not tokens".into(), x),
            (Input::Tokens(_), CandleInput::Samples(x)) => ("tokens, not samples".into(), x),
        };
        let fits = match (self.plan.input, input, got.dims()) {
            (Input::Samples(width), CandleInput::Samples(_), [s, t, w]) if *w == width => Some((*s, *t)),
            (Input::Tokens(_), CandleInput::Tokens(_), [s, t]) => Some((*s, *t)),
            _ => None,
        };
        let dtype = match input {
            CandleInput::Samples(_) => self.dtype(),
            CandleInput::Tokens(_) => candle_core::DType::U32,
        };
        let Some((streams, rows)) = fits.filter(|(s, t)| *s > 0 && *t > 0 && got.dtype() == dtype) else {
            let shape = format!("{:?} of {:?}", got.dims(), got.dtype());
            return Err(Error::input("training input", expected, shape));
        };
        for (slot, tensor) in self.plan.states.iter().zip(&state.slots) {
            if tensor.dims() != [streams, slot.rows, slot.width] || tensor.dtype() != self.dtype() {
                let expected = format!("[{streams}, {}, {}] of {:?}", slot.rows, slot.width, self.dtype());
                let got = format!("{:?} of {:?}", tensor.dims(), tensor.dtype());
                return Err(Error::input(format!("training state {}", slot.name), expected, got));
            }
        }
        if state.slots.len() != self.plan.states.len() {
            let expected = format!("{} slots", self.plan.states.len());
            return Err(Error::input("training state", expected, state.slots.len().to_string()));
        }
        Ok(rows)
    }
}

/// The values and states of a pass as they come to be.
struct Pass<'a> {
    model: &'a CandleModel,
    dropout: Option<Dropout>,
    position: u64,
    rows: usize,
    values: Vec<Option<Tensor>>,
    slots: Vec<Tensor>,
}

/// An op's output, `None` where no row fell due, and what the way back needs beside.
type Done = (Option<Tensor>, Kept);

/// No row fell due.
const NOTHING: Done = (None, Kept::Nothing);

/// The columns that a view names; `None` where no row fell due.
pub(super) fn view(model: &CandleModel, values: &[Option<Tensor>], view: View) -> Candle<Option<Tensor>> {
    let Some(x) = &values[view.value.0] else { return Ok(None) };
    let whole = view.width == model.plan.value(view.value).width;
    if whole { Ok(Some(x.clone())) } else { x.narrow(2, view.offset, view.width).map(Some) }
}

/// All views that an op reads.
pub(super) fn inputs<const N: usize>(
    model: &CandleModel,
    values: &[Option<Tensor>],
    op: &Op,
) -> Candle<Option<[Tensor; N]>> {
    let views = op.inputs.iter().map(|v| view(model, values, *v)).collect::<Candle<Vec<_>>>()?;
    match views.into_iter().collect::<Option<Vec<_>>>().map(<[Tensor; N]>::try_from) {
        None => Ok(None),
        Some(Ok(inputs)) => Ok(Some(inputs)),
        Some(Err(other)) => bail!("expected {N} inputs, got {}", other.len()),
    }
}

/// The sum right after op `number`, if nothing else reads the op's output and it can add as it goes, and what else is summed.
/// Both are of one tier, so that either rows of both are due or of none.
fn summed(plan: &Plan, number: usize) -> Option<(&Op, View)> {
    let (op, sum) = (plan.ops.get(number)?, plan.ops.get(number + 1)?);
    let ([a, b], OpKind::Add) = (sum.inputs.as_slice(), &sum.kind) else { return None };
    let other = if a.value == op.output { b } else { a };
    let adds = matches!(op.kind, OpKind::Linear { .. } | OpKind::Gate { .. } | OpKind::Film);
    let reads = plan.ops.iter().flat_map(|op| &op.inputs).filter(|view| view.value == op.output);
    let alone = plan.output != op.output && sum.inputs.iter().any(|view| view.value == op.output);
    let whole = sum.inputs.iter().all(|view| view.width == plan.value(op.output).width);
    (adds && alone && whole && reads.count() == 1).then_some((sum, *other))
}

impl Norm {
    pub(super) fn new(kind: NormKind, eps_bits: u32) -> Self {
        Self { eps: f32::from_bits(eps_bits), centred: kind == NormKind::Layer }
    }
}

impl Pass<'_> {
    fn param(&self, id: ParamId) -> &Tensor {
        self.model.param(id)
    }

    /// One op's output, added to `onto`.
    fn op(&mut self, number: usize, op: &Op, input: CandleInput<'_>, onto: Option<&Tensor>) -> Candle<Done> {
        match &op.kind {
            OpKind::Embed { table, unit } => self.embed(*table, *unit, input),
            OpKind::Conv { .. } | OpKind::Delay { .. } | OpKind::Frame { .. } | OpKind::Overlap { .. } => {
                self.look_back(op)
            }
            OpKind::Scan(s) => self.scan(s, op),
            OpKind::Gate { act } => self.two(op, |x, z| elementwise::gate(*act, x, z, onto)),
            OpKind::Activate { act } => self.one(op, |x| plain(elementwise::activate(*act, x, None, None))),
            OpKind::Add => self.two(op, |a, b| columns::packed(a)? + columns::packed(b)?),
            OpKind::Film => self.two(op, |x, st| elementwise::film(x, st, onto)),
            OpKind::Linear { weight, bias, act } => self.one(op, |x| {
                let products = linear::linear(self.model.products, x, self.param(*weight))?;
                let y = elementwise::activate(*act, &products, bias.map(|b| self.param(b)), onto)?;
                Ok((y, Kept::Linear((*act != Act::None).then_some(products))))
            }),
            OpKind::Norm { kind, weight, bias, eps_bits } => self.one(op, |x| {
                let norm = Norm::new(*kind, *eps_bits);
                plain(norm.of(&columns::packed(x)?, self.param(*weight), bias.map(|b| self.param(b))))
            }),
            OpKind::Dropout { rate_bits } => self.one(op, |x| match self.dropout {
                Some(dropout) => {
                    let position = self.model.plan.tier(op).completed(self.position);
                    let mask = dropout.mask(x, f32::from_bits(*rate_bits), number, position)?;
                    Ok(((x * &mask)?, Kept::Mask(mask)))
                }
                None => Ok((x.clone(), Kept::Nothing)),
            }),
        }
    }

    fn one(&self, op: &Op, f: impl FnOnce(&Tensor) -> Candle<(Tensor, Kept)>) -> Candle<Done> {
        let Some([x]) = inputs(self.model, &self.values, op)? else { return Ok(NOTHING) };
        let (y, kept) = f(&x)?;
        Ok((Some(y), kept))
    }

    fn two(&self, op: &Op, f: impl FnOnce(&Tensor, &Tensor) -> Candle<Tensor>) -> Candle<Done> {
        let Some([a, b]) = inputs(self.model, &self.values, op)? else { return Ok(NOTHING) };
        Ok((Some(f(&a, &b)?), Kept::Nothing))
    }

    fn embed(&self, table: ParamId, unit: usize, input: CandleInput<'_>) -> Candle<Done> {
        let CandleInput::Tokens(tokens) = input else { bail!("expected tokens, got samples") };
        let (table, Input::Tokens(all)) = (self.param(table), self.model.plan.input) else {
            bail!("expected a plan of tokens")
        };
        let chosen = embed::chosen(tokens, all, unit, table)?;
        plain(embed::embed(table, &chosen)).map(|(y, kept)| (Some(y), kept))
    }

    /// The ops over a history: see [`history`].
    fn look_back(&mut self, op: &Op) -> Candle<Done> {
        let (Some(of), Some(id)) = (op.inputs.first(), op.state) else {
            bail!("expected an input and a state")
        };
        let history = History { before: self.slots[id.0].clone(), x: view(self.model, &self.values, *of)? };
        self.slots[id.0] = history.next()?;
        let plan = &self.model.plan;
        let (from, to) = (plan.value(of.value).tier, plan.tier(op));
        let rows = to.rows(self.position, self.rows);
        if rows == 0 {
            return Ok((None, Kept::Heard(history)));
        }
        let moves = match op.kind {
            OpKind::Conv { weight, bias, act, .. } => {
                let before = history::conv(&history, self.param(weight), bias.map(|b| self.param(b)))?;
                return Ok((
                    Some(elementwise::activate(act, &before, None, None)?),
                    Kept::Conv(history, before),
                ));
            }
            OpKind::Frame { period, window } => {
                let phase = (from.completed(self.position) % period as u64) as usize;
                Moves::Frame { start: period - phase - 1, period, window, rows }
            }
            OpKind::Overlap { period, overlap, .. } => {
                let before = from.completed(self.position) * period as u64;
                let first = (to.completed(self.position) - before) as usize;
                Moves::Overlap { first, period, overlap, rows }
            }
            _ => Moves::Frame { start: 0, period: 1, window: 1, rows },
        };
        Ok((Some(moves.of(&history)?), Kept::Moved(history, moves)))
    }

    fn scan(&mut self, s: &Scan, op: &Op) -> Candle<Done> {
        let Some(id) = op.state else { bail!("expected a state") };
        let rows = match s.dynamics {
            Dynamics::Selective => inputs::<4>(self.model, &self.values, op)?
                .map(|parts| columns::join(&parts.each_ref().map(|x| x))),
            Dynamics::Invariant { .. } => {
                inputs(self.model, &self.values, op)?.map(|[u]: [Tensor; 1]| columns::packed(&u))
            }
        };
        let Some(rows) = rows.transpose()? else { return Ok(NOTHING) };
        let (params, h0) = (continuous(self.model, s).flat()?, self.slots[id.0].contiguous()?);
        let scanned = scan(shape(s), &rows, &params, &h0)?;
        self.slots[id.0] = scanned.h.clone();
        Ok((Some(scanned.y.clone()), Kept::Scan { rows, params, h0, scanned }))
    }
}

/// An output for whose gradient the values that the op read suffice.
fn plain(y: Candle<Tensor>) -> Candle<(Tensor, Kept)> {
    Ok((y?, Kept::Nothing))
}

pub(super) fn shape(s: &Scan) -> ScanShape {
    let selective = matches!(s.dynamics, Dynamics::Selective);
    ScanShape { d: s.d, n: s.n, complex: s.is_complex(), selective }
}

/// A scan's parameters.
pub(super) fn continuous<'a>(model: &'a CandleModel, s: &Scan) -> Continuous<'a> {
    let fixed = match s.dynamics {
        Dynamics::Selective => None,
        Dynamics::Invariant { log_dt, c, rule } => {
            Some(Fixed { log_dt: model.param(log_dt), c: model.param(c), rule })
        }
    };
    let a_imag = s.a_imag.map(|a| model.param(a));
    Continuous { a_log: model.param(s.a_log), a_imag, skip: model.param(s.skip), fixed }
}
