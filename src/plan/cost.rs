//! What a plan costs: floating-point operations, weight bytes and state bytes, op by op, and its printed form.

use std::fmt;

use super::{Dynamics, Op, OpKind, Plan, Scan};

/// The cost of one op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations for one row (a multiply-add is two; exponentials counted apart).
    pub flop: usize,
    /// Exponentials (and the like: tanh, error function) for one row.
    pub exp: usize,
    /// Bytes of weights read for one row, at four bytes a weight.
    pub weight_bytes: usize,
    /// Bytes of state a stream holds.
    pub state_bytes: usize,
}

/// The costs of a plan, in its ops' order. Displays as a table.
#[derive(Clone, Debug)]
pub struct PlanCost {
    rows: Vec<(String, &'static str, String, usize, Cost)>,
}

impl Plan {
    /// The cost of each op.
    pub fn cost(&self) -> PlanCost {
        let row = |op: &Op| {
            let widths: Vec<_> = op.inputs.iter().map(|v| v.width.to_string()).collect();
            let shape = format!("{}→{}", widths.join("+"), self.value(op.output).width);
            (op.name.clone(), op.kind.name(), shape, self.tier(op).period, self.op_cost(op))
        };
        PlanCost { rows: self.ops.iter().map(row).collect() }
    }

    fn op_cost(&self, op: &Op) -> Cost {
        let out = self.value(op.output).width;
        let (flop, exp) = match &op.kind {
            OpKind::Linear { weight, bias, .. } => {
                let (rows, cols) = (self.param(*weight).shape[0], self.param(*weight).shape[1]);
                (2 * rows * cols + if bias.is_some() { rows } else { 0 }, 0)
            }
            OpKind::Conv { taps, .. } => (2 * taps * out, 0),
            OpKind::Norm { .. } => (6 * out, 0),
            OpKind::Scan(scan) => scan_cost(scan),
            OpKind::Film => (2 * out, 0),
            OpKind::Gate { .. } | OpKind::Add => (out, 0),
            OpKind::Overlap { overlap, .. } => (out * (overlap - 1), 0),
            OpKind::Embed { .. }
            | OpKind::Activate { .. }
            | OpKind::Delay { .. }
            | OpKind::Frame { .. }
            | OpKind::Dropout { .. } => (0, 0),
        };
        let act_exp = match &op.kind {
            OpKind::Linear { act, .. }
            | OpKind::Conv { act, .. }
            | OpKind::Gate { act }
            | OpKind::Activate { act } => match act {
                super::Act::None | super::Act::Relu => 0,
                _ => out,
            },
            _ => 0,
        };
        let weight_bytes = match &op.kind {
            OpKind::Embed { .. } => 4 * out,
            kind => 4 * kind.params().map(|id| self.param(id).len()).sum::<usize>(),
        };
        let state_bytes = op.state.map_or(0, |s| 4 * self.state(s).len());
        Cost { flop, exp: exp + act_exp, weight_bytes, state_bytes }
    }
}

/// Per channel and state: the decay, the update, the read-out; complex numbers count their real operations.
fn scan_cost(scan: &Scan) -> (usize, usize) {
    let elements = scan.d * scan.n;
    match (scan.dynamics, scan.is_complex()) {
        (Dynamics::Selective, false) => (6 * elements + 3 * scan.d, elements),
        (Dynamics::Selective, true) => (20 * elements + 3 * scan.d, 3 * elements),
        (Dynamics::Invariant { .. }, false) => (6 * elements + 2 * scan.d, 0),
        (Dynamics::Invariant { .. }, true) => (16 * elements + 2 * scan.d, 0),
    }
}

impl PlanCost {
    /// Each op's (name, period, cost).
    pub fn ops(&self) -> impl Iterator<Item = (&str, usize, Cost)> {
        self.rows.iter().map(|(name, _, _, period, cost)| (name.as_str(), *period, *cost))
    }

    /// Mean floating-point operations for one input row.
    pub fn flop_per_row(&self) -> f64 {
        self.rows.iter().map(|(_, _, _, period, c)| c.flop as f64 / *period as f64).sum()
    }

    /// Bytes of weights read when every tier falls due.
    pub fn weight_bytes(&self) -> usize {
        self.rows.iter().map(|r| r.4.weight_bytes).sum()
    }

    /// Bytes of state a stream holds.
    pub fn state_bytes(&self) -> usize {
        self.rows.iter().map(|r| r.4.state_bytes).sum()
    }
}

impl fmt::Display for PlanCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self.rows.iter().map(|r| r.0.len()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:<name_width$}  {:<16}  {:>16}  {:>6}  {:>10}  {:>8}  {:>12}  {:>11}",
            "name", "op", "shape", "period", "FLOP/row", "exp/row", "weight bytes", "state bytes"
        )?;
        for (name, kind, shape, period, c) in &self.rows {
            writeln!(
                f,
                "{name:<name_width$}  {kind:<16}  {shape:>16}  {period:>6}  {:>10}  {:>8}  {:>12}  {:>11}",
                c.flop, c.exp, c.weight_bytes, c.state_bytes
            )?;
        }
        write!(
            f,
            "{:.0} FLOP per input row in the mean, {} bytes of weights, {} bytes of state per stream",
            self.flop_per_row(),
            self.weight_bytes(),
            self.state_bytes()
        )
    }
}
