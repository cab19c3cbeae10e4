//! The way back over a plan: the ops in reverse, each one's gradient from its own `back`.
//!
//! A [`Tape`] holds the values of one call and what each op kept. Calls that follow each other on one signal are taken back
//! last first: the gradient of the state that a call began from is the gradient of the state in which the call before ended
//! ([`Gradients::slots`]), so that memory is needed for one call at a time.
//!
//! Gradients of a value are collected from its readers, as columns of it, and put together once, when the op that wrote the
//! value has its turn; what the op kept is freed then.

use candle_core::{Result as Candle, Tensor, bail};

use super::columns::{Part, gather, packed};
use super::history::{History, HistoryGrad, Moves, conv_back};
use super::norm::Norm;
use super::run::{continuous, inputs, shape, view};
use super::scan::{Scanned, scan_back};
use super::tensors::width;
use super::{CandleModel, elementwise, embed, linear, train_error};
use crate::plan::{Dynamics, Input, Op, OpKind, ParamId, Plan, Scan, View};
use crate::{Error, Result};

/// What the way back needs of an op beside the values that it read.
pub(super) enum Kept {
    Nothing,
    /// A linear's products, before bias and activation, where it has an activation.
    Linear(Option<Tensor>),
    /// Rows that are in the state alone, as no row of the result fell due.
    Heard(History),
    /// A convolution's input, and its output before the activation.
    Conv(History, Tensor),
    Moved(History, Moves),
    Scan {
        rows: Tensor,
        params: Tensor,
        h0: Tensor,
        scanned: Scanned,
    },
    /// Dropout's.
    Mask(Tensor),
}

/// A call that can be taken back; see [`CandleModel::record`].
pub struct Tape {
    pub(super) model: CandleModel,
    pub(super) tokens: Option<Tensor>,
    pub(super) values: Vec<Option<Tensor>>,
    pub(super) kept: Vec<Kept>,
    pub(super) weights_only: bool,
}

/// Gradients of what a call was given.
pub struct Gradients {
    /// Of the weights, in the plan's order; `None` where nothing depends on one.
    pub params: Vec<Option<Tensor>>,
    /// Of the state at the beginning, in the plan's order; `None` where nothing depends on one.
    pub slots: Vec<Option<Tensor>>,
    /// Of the samples.
    pub input: Option<Tensor>,
}

impl Tape {
    /// Leaves out the gradients of the samples, and of states that hold nothing but samples: training asks for neither.
    pub fn of_weights(mut self) -> Self {
        self.weights_only = true;
        self
    }

    /// The gradients from those of the output `[S, T, width]` and, where something depends on it, of the final state.
    pub fn backward(self, y: &Tensor, end: Option<&[Option<Tensor>]>) -> Result<Gradients> {
        let Self { model, tokens, mut values, mut kept, weights_only } = self;
        let plan = model.plan();
        let of = &plan.values[plan.output.0];
        let shape = values[plan.output.0].as_ref().map_or(&[][..], Tensor::dims);
        if y.dims() != shape {
            let expected = format!("{shape:?}, that of {}", of.name);
            return Err(Error::input("gradient of the output", expected, format!("{:?}", y.dims())));
        }
        if let Some(end) = end.filter(|end| end.len() != plan.states.len()) {
            let expected = format!("{} slots", plan.states.len());
            return Err(Error::input("gradient of the final state", expected, end.len().to_string()));
        }
        let mut back = Back {
            model: &model,
            tokens: tokens.as_ref(),
            parts: plan.values.iter().map(|_| Vec::new()).collect(),
            wanted: if weights_only { learned(plan) } else { vec![true; plan.values.len()] },
            grads: Gradients {
                params: vec![None; plan.params.len()],
                slots: end.map_or_else(|| vec![None; plan.states.len()], <[_]>::to_vec),
                input: None,
            },
        };
        back.parts[plan.output.0].push(Part { offset: 0, grad: y.clone() });
        for op in plan.ops.iter().rev() {
            let named = |e| Error::Train(format!("back through op {}: {}", op.name, train_error(e)));
            let kept = kept.pop().unwrap_or(Kept::Nothing);
            back.op(op, &values, kept).map_err(named)?;
            values[op.output.0] = None;
        }
        if tokens.is_none() && !weights_only {
            back.grads.input = back.value(plan.input_value.0).map_err(train_error)?;
        }
        Ok(back.grads)
    }
}

/// Which values depend on weights.
fn learned(plan: &Plan) -> Vec<bool> {
    let mut learned = vec![false; plan.values.len()];
    for op in &plan.ops {
        let of_inputs = op.inputs.iter().any(|view| learned[view.value.0]);
        learned[op.output.0] = of_inputs || op.kind.params().next().is_some();
    }
    learned
}

struct Back<'a> {
    model: &'a CandleModel,
    tokens: Option<&'a Tensor>,
    /// Of each value, from its readers.
    parts: Vec<Vec<Part>>,
    /// Whether a value's gradient is asked for.
    wanted: Vec<bool>,
    grads: Gradients,
}

impl Back<'_> {
    /// The gradient of a whole value; `None` if nobody depends on it.
    fn value(&mut self, value: usize) -> Candle<Option<Tensor>> {
        gather(std::mem::take(&mut self.parts[value]), self.model.plan().values[value].width)
    }

    fn wants(&self, to: Option<&View>) -> bool {
        to.is_some_and(|to| self.wanted[to.value.0])
    }

    fn give(&mut self, to: Option<&View>, grad: Tensor) -> Candle<()> {
        let Some(to) = to else { bail!("an input is missing") };
        if !self.wanted[to.value.0] {
            return Ok(());
        }
        self.parts[to.value.0].push(Part { offset: to.offset, grad });
        Ok(())
    }

    /// Takes back what another reader gave of the same columns, for one that adds to it as it goes.
    fn given(&mut self, to: Option<&View>) -> Option<Tensor> {
        let to = to?;
        let same = |part: &Part| (part.offset, width(&part.grad)) == (to.offset, to.width);
        let parts = &mut self.parts[to.value.0];
        parts.iter().position(same).map(|i| parts.swap_remove(i).grad)
    }

    fn param(&mut self, id: ParamId, grad: Tensor) -> Candle<()> {
        let place = &mut self.grads.params[id.0];
        *place = Some(match place.take() {
            Some(sum) => (sum + grad)?,
            None => grad,
        });
        Ok(())
    }

    fn op(&mut self, op: &Op, values: &[Option<Tensor>], kept: Kept) -> Candle<()> {
        let (model, g) = (self.model, self.value(op.output.0)?);
        match kept {
            Kept::Scan { rows, params, h0, scanned } => {
                let OpKind::Scan(scan) = &op.kind else { bail!("{} keeps what a scan keeps", op.name) };
                return self.scan(op, scan, [&rows, &params, &h0], &scanned, g);
            }
            Kept::Heard(_) | Kept::Moved(..) if !self.wants(op.inputs.first()) => return self.unheard(op),
            Kept::Heard(history) => return self.heard(op, &history, None),
            Kept::Moved(history, moves) => {
                let grad = g.map(|g| moves.back(&history, &packed(&g)?)).transpose()?;
                return self.heard(op, &history, grad);
            }
            Kept::Conv(history, before) => return self.conv(op, &history, &before, g),
            Kept::Nothing | Kept::Linear(_) | Kept::Mask(_) => {}
        }
        let Some(g) = g else { return Ok(()) };
        let first = || match op.inputs.first() {
            Some(of) => view(model, values, *of),
            None => Ok(None),
        };
        match (&op.kind, kept) {
            (OpKind::Embed { table, unit }, _) => {
                let (Some(tokens), Input::Tokens(all)) = (self.tokens, model.plan.input) else {
                    bail!("expected tokens")
                };
                let table_of = model.param(*table);
                let chosen = embed::chosen(tokens, all, *unit, table_of)?;
                self.param(*table, embed::embed_back(table_of, &chosen, &g)?)
            }
            (OpKind::Linear { weight, bias, act }, Kept::Linear(products)) => {
                let Some(x) = first()? else { return Ok(()) };
                let g = match &products {
                    Some(products) => {
                        let bias = bias.map(|b| model.param(b));
                        packed(&elementwise::activate_back(*act, products, bias, &g)?)?
                    }
                    None => packed(&g)?,
                };
                let weight_of = model.param(*weight);
                self.param(*weight, linear::weight_back(model.products, &x, weight_of, &g)?)?;
                if let Some(bias) = bias {
                    self.param(*bias, linear::sum_rows(&g)?)?;
                }
                if !self.wants(op.inputs.first()) {
                    return Ok(());
                }
                self.give(op.inputs.first(), linear::input_back(model.products, &x, weight_of, &g)?)
            }
            (OpKind::Norm { kind, weight, bias, eps_bits }, _) => {
                let Some(x) = first()? else { return Ok(()) };
                let (norm, others) = (Norm::new(*kind, *eps_bits), self.given(op.inputs.first()));
                let [gx, gw, gb] = norm.back(&packed(&x)?, model.param(*weight), &packed(&g)?, others)?;
                self.param(*weight, gw)?;
                if let Some(bias) = bias {
                    self.param(*bias, gb)?;
                }
                self.give(op.inputs.first(), gx)
            }
            (OpKind::Activate { act }, _) => {
                let Some(x) = first()? else { return Ok(()) };
                self.give(op.inputs.first(), elementwise::activate_back(*act, &x, None, &g)?)
            }
            (OpKind::Add, _) => {
                self.give(op.inputs.first(), g.clone())?;
                self.give(op.inputs.get(1), g)
            }
            (OpKind::Gate { .. } | OpKind::Film, _) => {
                let Some([x, z]) = inputs(model, values, op)? else { return Ok(()) };
                let (gx, gz) = match op.kind {
                    OpKind::Gate { act } => elementwise::gate_back(act, &x, &z, &g)?,
                    _ => elementwise::film_back(&x, &z, &g)?,
                };
                self.give(op.inputs.first(), gx)?;
                self.give(op.inputs.get(1), gz)
            }
            (OpKind::Dropout { .. }, Kept::Mask(mask)) => self.give(op.inputs.first(), (packed(&g)? * mask)?),
            (OpKind::Dropout { .. }, _) => self.give(op.inputs.first(), g),
            _ => bail!("nothing was kept for it"),
        }
    }

    fn conv(&mut self, op: &Op, history: &History, before: &Tensor, g: Option<Tensor>) -> Candle<()> {
        let OpKind::Conv { weight, bias, act, .. } = op.kind else {
            bail!("{} keeps what a conv keeps", op.name)
        };
        let Some(g) = g else { return self.heard(op, history, None) };
        let g = packed(&elementwise::activate_back(act, before, None, &g)?)?;
        let (grad, [gw, gb]) = conv_back(history, self.model.param(weight), &g)?;
        self.param(weight, gw)?;
        if let Some(bias) = bias {
            self.param(bias, gb)?;
        }
        self.heard(op, history, Some(grad))
    }

    /// Leaves out the gradient of a state that holds what nobody asks for.
    fn unheard(&mut self, op: &Op) -> Candle<()> {
        let Some(id) = op.state else { bail!("expected a state") };
        self.grads.slots[id.0] = None;
        Ok(())
    }

    /// Gives on the gradient of an op that looks back: to its input, and to the state before.
    fn heard(&mut self, op: &Op, history: &History, grad: Option<HistoryGrad>) -> Candle<()> {
        if !self.wants(op.inputs.first()) {
            return self.unheard(op);
        }
        let Some(id) = op.state else { bail!("expected a state") };
        let next = self.grads.slots[id.0].take();
        let grad = match (grad, next) {
            (None, None) => return Ok(()),
            (Some(grad), None) => grad,
            (None, Some(next)) => history.no_grad()?.and_next(&next)?,
            (Some(grad), Some(next)) => grad.and_next(&next)?,
        };
        self.grads.slots[id.0] = Some(grad.before);
        match grad.x {
            Some(x) => self.give(op.inputs.first(), x),
            None => Ok(()),
        }
    }

    fn scan(
        &mut self,
        op: &Op,
        scan: &Scan,
        given: [&Tensor; 3],
        scanned: &Scanned,
        g: Option<Tensor>,
    ) -> Candle<()> {
        let Some(id) = op.state else { bail!("expected a state") };
        let gh = self.grads.slots[id.0].take();
        let gy = match g {
            Some(g) => g,
            None if gh.is_none() => return Ok(()),
            None => scanned.y.zeros_like()?,
        };
        let [rows, params, h0] = scan_back(shape(scan), given, scanned, &gy, gh.as_ref())?;
        self.grads.slots[id.0] = Some(h0);
        let grads = continuous(self.model, scan).back(&params)?;
        self.param(scan.a_log, grads.a_log)?;
        self.param(scan.skip, grads.skip)?;
        if let (Some(id), Some(grad)) = (scan.a_imag, grads.a_imag) {
            self.param(id, grad)?;
        }
        if let (Dynamics::Invariant { log_dt, c: id, .. }, Some([gdt, gc])) = (scan.dynamics, grads.fixed) {
            self.param(log_dt, gdt)?;
            self.param(id, gc)?;
        }
        let mut from = 0;
        for to in &op.inputs {
            self.give(Some(to), rows.narrow(2, from, to.width)?)?;
            from += to.width;
        }
        Ok(())
    }
}
