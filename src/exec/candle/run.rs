//! One pass of a plan over a call's rows: each op in turn, one small function an op.

use candle_core::{Result as Candle, Tensor, bail};

use super::discretise::Continuous;
use super::scan::{ScanShape, scan};
use super::{
    CandleInput, CandleModel, CandleState, Dropout, elementwise, history, linear, norm, train_error,
};
use crate::plan::{Dynamics, Input, NormKind, Op, OpKind, ParamId, Scan, View};
use crate::{Error, Result};

impl CandleModel {
    /// Runs the plan; dropout only where asked for.
    pub(super) fn run(
        &self,
        state: &CandleState,
        input: CandleInput<'_>,
        dropout: Option<Dropout>,
    ) -> Result<(Tensor, CandleState)> {
        let (streams, rows) = self.check(state, input)?;
        let mut pass = Pass {
            model: self,
            dropout,
            position: state.position,
            streams,
            rows,
            values: vec![None; self.plan.values.len()],
            slots: state.slots.clone(),
        };
        if let CandleInput::Samples(x) = input {
            pass.values[self.plan.input_value.0] = Some(x.clone());
        }
        for (number, op) in self.plan.ops.iter().enumerate() {
            let y = pass.op(number, op, input);
            let named = |e| Error::Train(format!("op {}: {}", op.name, train_error(e)));
            pass.values[op.output.0] = y.map_err(named)?;
        }
        let state = CandleState { slots: pass.slots, position: state.position + rows as u64 };
        match pass.values.swap_remove(self.plan.output.0) {
            Some(y) => Ok((y, state)),
            None => Err(Error::Train("the plan's output has no rows".into())),
        }
    }

    /// (S, T) of a call that fits the plan and the state.
    fn check(&self, state: &CandleState, input: CandleInput<'_>) -> Result<(usize, usize)> {
        let (expected, got) = match (self.plan.input, input) {
            (Input::Samples(width), CandleInput::Samples(x)) => {
                (format!("[S, T, {width}] samples of {:?}", self.dtype), x)
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
            CandleInput::Samples(_) => self.dtype,
            CandleInput::Tokens(_) => candle_core::DType::U32,
        };
        let Some((streams, rows)) = fits.filter(|(s, t)| *s > 0 && *t > 0 && got.dtype() == dtype) else {
            let shape = format!("{:?} of {:?}", got.dims(), got.dtype());
            return Err(Error::input("training input", expected, shape));
        };
        for (slot, tensor) in self.plan.states.iter().zip(&state.slots) {
            if tensor.dims() != [streams, slot.rows, slot.width] || tensor.dtype() != self.dtype {
                let expected = format!("[{streams}, {}, {}] of {:?}", slot.rows, slot.width, self.dtype);
                let got = format!("{:?} of {:?}", tensor.dims(), tensor.dtype());
                return Err(Error::input(format!("training state {}", slot.name), expected, got));
            }
        }
        if state.slots.len() != self.plan.states.len() {
            let expected = format!("{} slots", self.plan.states.len());
            return Err(Error::input("training state", expected, state.slots.len().to_string()));
        }
        Ok((streams, rows))
    }
}

/// The values and states of a pass as they come to be.
struct Pass<'a> {
    model: &'a CandleModel,
    dropout: Option<Dropout>,
    position: u64,
    streams: usize,
    rows: usize,
    values: Vec<Option<Tensor>>,
    slots: Vec<Tensor>,
}

impl Pass<'_> {
    fn param(&self, id: ParamId) -> &Tensor {
        self.model.vars[id.0].as_tensor()
    }

    /// The columns that a view names; `None` where no row fell due.
    fn view(&self, view: View) -> Candle<Option<Tensor>> {
        let Some(x) = &self.values[view.value.0] else { return Ok(None) };
        let whole = view.width == self.model.plan.value(view.value).width;
        if whole { Ok(Some(x.clone())) } else { x.narrow(2, view.offset, view.width).map(Some) }
    }

    fn inputs<const N: usize>(&self, op: &Op) -> Candle<Option<[Tensor; N]>> {
        let views: Candle<Option<Vec<Tensor>>> = op
            .inputs
            .iter()
            .map(|v| self.view(*v))
            .collect::<Candle<_>>()
            .map(|v: Vec<Option<Tensor>>| v.into_iter().collect());
        match views?.map(<[Tensor; N]>::try_from) {
            None => Ok(None),
            Some(Ok(inputs)) => Ok(Some(inputs)),
            Some(Err(other)) => bail!("expected {N} inputs, got {}", other.len()),
        }
    }

    /// One op's output.
    fn op(&mut self, number: usize, op: &Op, input: CandleInput<'_>) -> Candle<Option<Tensor>> {
        match &op.kind {
            OpKind::Embed { table } => self.embed(*table, input),
            OpKind::Conv { .. } | OpKind::Delay { .. } | OpKind::Frame { .. } | OpKind::Overlap { .. } => {
                self.look_back(op)
            }
            OpKind::Scan(s) => self.scan(s, op),
            OpKind::Gate { act } => self.two(op, |x, z| elementwise::gate(*act, x, z)),
            OpKind::Activate { act } => self.one(op, |x| elementwise::activate(*act, x.clone())),
            OpKind::Add => self.two(op, |a, b| a + b),
            OpKind::Film => self.two(op, elementwise::film),
            OpKind::Linear { weight, bias, act } => self.one(op, |x| {
                let bias = bias.map(|b| self.param(b));
                elementwise::activate(*act, linear::linear(x, self.param(*weight), bias)?)
            }),
            OpKind::Norm { kind, weight, bias, eps_bits } => self.one(op, |x| {
                let (weight, eps) = (self.param(*weight), f32::from_bits(*eps_bits));
                match (kind, bias) {
                    (NormKind::Rms, _) => norm::norm(x, weight, None, eps),
                    (NormKind::Layer, Some(bias)) => norm::norm(x, weight, Some(self.param(*bias)), eps),
                    (NormKind::Layer, None) => norm::norm(x, weight, Some(&weight.zeros_like()?), eps),
                }
            }),
            OpKind::Dropout { rate_bits } => self.one(op, |x| match self.dropout {
                Some(dropout) => {
                    let position = self.model.plan.tier(op).completed(self.position);
                    dropout.apply(x, f32::from_bits(*rate_bits), number, position)
                }
                None => Ok(x.clone()),
            }),
        }
    }

    fn one(&self, op: &Op, f: impl FnOnce(&Tensor) -> Candle<Tensor>) -> Candle<Option<Tensor>> {
        self.inputs(op)?.map(|[x]| f(&x)).transpose()
    }

    fn two(&self, op: &Op, f: impl FnOnce(&Tensor, &Tensor) -> Candle<Tensor>) -> Candle<Option<Tensor>> {
        self.inputs(op)?.map(|[a, b]| f(&a, &b)).transpose()
    }

    fn embed(&self, table: ParamId, input: CandleInput<'_>) -> Candle<Option<Tensor>> {
        let CandleInput::Tokens(tokens) = input else { bail!("expected tokens, got samples") };
        let table = self.param(table);
        let y = table.index_select(&tokens.contiguous()?.flatten_all()?, 0)?;
        y.reshape((self.streams, self.rows, table.dim(1)?)).map(Some)
    }

    /// The ops over a history: see [`history`].
    fn look_back(&mut self, op: &Op) -> Candle<Option<Tensor>> {
        let (Some(view), Some(id)) = (op.inputs.first(), op.state) else {
            bail!("expected an input and a state")
        };
        let x = self.view(*view)?;
        let (ext, next) = history::extend(&self.slots[id.0], x.as_ref())?;
        self.slots[id.0] = next;
        let plan = &self.model.plan;
        let (from, to) = (plan.value(view.value).tier, plan.tier(op));
        let rows = to.rows(self.position, self.rows);
        if rows == 0 {
            return Ok(None);
        }
        let y = match op.kind {
            OpKind::Conv { weight, bias, act, .. } => {
                let y = history::conv(&ext, self.param(weight), bias.map(|b| self.param(b)))?;
                elementwise::activate(act, y)?
            }
            OpKind::Frame { period, window } => {
                let phase = (from.completed(self.position) % period as u64) as usize;
                history::Moves::Frame { start: period - phase - 1, period, window, rows }.of(&ext)?
            }
            OpKind::Overlap { period, overlap, .. } => {
                let before = from.completed(self.position) * period as u64;
                let first = (to.completed(self.position) - before) as usize;
                history::Moves::Overlap { first, period, overlap, rows }.of(&ext)?
            }
            _ => ext.narrow(1, 0, rows)?,
        };
        Ok(Some(y))
    }

    fn scan(&mut self, s: &Scan, op: &Op) -> Candle<Option<Tensor>> {
        let Some(id) = op.state else { bail!("expected a state") };
        let selective = matches!(s.dynamics, Dynamics::Selective);
        let shape = ScanShape { d: s.d, n: s.n, complex: s.is_complex(), selective };
        let continuous = Continuous {
            a_log: self.param(s.a_log),
            a_imag: s.a_imag.map(|a| self.param(a)),
            skip: self.param(s.skip),
        };
        let (rows, params) = match s.dynamics {
            Dynamics::Selective => {
                let Some(parts) = self.inputs::<4>(op)? else { return Ok(None) };
                (Tensor::cat(&parts, 2)?, continuous.selective()?)
            }
            Dynamics::Invariant { log_dt, c, rule } => {
                let Some([u]) = self.inputs(op)? else { return Ok(None) };
                (u, continuous.invariant(self.param(log_dt), self.param(c), rule)?)
            }
        };
        let (y, h) = scan(shape, &rows, &params, &self.slots[id.0])?;
        self.slots[id.0] = h;
        Ok(Some(y))
    }
}
