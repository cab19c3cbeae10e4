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
    /// Periods of pipelined tiers, and over how many input rows the work of a row is spread.
    windows: Vec<(usize, usize)>,
}

impl Plan {
    /// The cost of each op.
    pub fn cost(&self) -> PlanCost {
        let row = |op: &Op| {
            let widths: Vec<_> = op.inputs.iter().map(|v| v.width.to_string()).collect();
            let shape = format!("{}→{}", widths.join("+"), self.value(op.output).width);
            (op.name.clone(), op.kind.name(), shape, self.tier(op).period, self.op_cost(op))
        };
        let windows = self.pipelined().iter().map(|tier| (tier.period, tier.window)).collect();
        PlanCost { rows: self.ops.iter().map(row).collect(), windows }
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
        )?;
        self.windows.iter().try_for_each(|(period, window)| {
            write!(f, "\ncalled row by row, the tier of period {period} spreads a row's work over {window} input rows")
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Result;
    use crate::plan::{Act, Cost, NormKind, PlanBuilder, Rule, View};

    /// What the ops' pages say, at d = 12 (and m = 5, k = 4, N = 3, rows 6, window 7, shift 2, overlap 3).
    #[test]
    fn costs_are_those_that_the_ops_pages_tell() -> Result<()> {
        let selective = |b: &mut PlanBuilder, x: View, complex: bool| {
            let (u, dt) = (b.columns(x, 0, 2)?, b.columns(x, 2, 2)?);
            let n = if complex { 2 } else { 4 };
            let (bb, cc) = (b.columns(x, 4, 4)?, b.columns(x, 8, 4)?);
            b.selective_scan("op", [u, dt, bb, cc], n, complex)
        };
        type Make<'a> = &'a dyn Fn(&mut PlanBuilder, View) -> Result<View>;
        let cost = |flop, exp, weight_bytes, state_bytes| Cost { flop, exp, weight_bytes, state_bytes };
        let table: [(Make<'_>, Cost); 17] = [
            (&|b, x| b.linear("op", x, 5, true, Act::Tanh), cost(2 * 60 + 5, 5, 4 * 5 * 13, 0)),
            (&|b, x| b.linear("op", x, 5, false, Act::Relu), cost(2 * 60, 0, 4 * 60, 0)),
            (&|b, x| b.linear("op", x, 5, true, Act::Glu), cost(2 * 120 + 10, 5, 4 * 10 * 13, 0)),
            (&|b, x| b.norm("op", x, NormKind::Layer, 1e-5), cost(6 * 12, 0, 8 * 12, 0)),
            (&|b, x| b.norm("op", x, NormKind::Rms, 1e-5), cost(6 * 12, 0, 4 * 12, 0)),
            (&|b, x| b.conv("op", x, 4, true, Act::Silu), cost(2 * 48, 12, 4 * 12 * 5, 4 * 12 * 3)),
            (&|b, x| selective(b, x, false), cost(6 * 8 + 3 * 2, 8, 4 * 2 * 5, 4 * 8)),
            (&|b, x| selective(b, x, true), cost(20 * 4 + 3 * 2, 12, 4 * 2 * 5, 8 * 4)),
            (
                &|b, x| b.invariant_scan("op", x, 3, false, Rule::Zoh),
                cost(6 * 36 + 24, 0, 4 * 12 * 8, 4 * 36),
            ),
            (
                &|b, x| b.invariant_scan("op", x, 3, true, Rule::Zoh),
                cost(16 * 36 + 24, 0, 4 * 12 * 14, 8 * 36),
            ),
            (&|b, x| b.gate("op", x, x, Act::Silu), cost(12, 12, 0, 0)),
            (&|b, x| b.activate("op", x, Act::Gelu), cost(0, 12, 0, 0)),
            (&|b, x| b.add("op", x, x), cost(12, 0, 0, 0)),
            (&|b, x| b.delay("op", x, 6), cost(0, 0, 0, 4 * 6 * 12)),
            (
                &|b, x| {
                    let x = b.frame("op", x, 4, 7)?;
                    b.overlap("up", x, 4, 1)
                },
                cost(0, 0, 0, 4 * 6 * 12),
            ),
            (&|b, x| b.dropout("op", x, 0.5), cost(0, 0, 0, 0)),
            (
                &|b, x| {
                    let x = b.frame("frame", x, 2, 2)?;
                    b.overlap_add("op", x, 2, 2, 3)
                },
                cost(2 * 4, 0, 0, 4 * 4 * 24),
            ),
        ];
        for (i, (make, expected)) in table.into_iter().enumerate() {
            let mut b = PlanBuilder::new();
            let x = b.samples(12);
            let y = make(&mut b, x)?;
            let plan = b.build(y)?;
            let cost = plan.cost();
            let found = cost.ops().find(|(name, ..)| name.starts_with("op")).map(|(_, _, cost)| cost);
            assert_eq!(found, Some(expected), "line {i}");
        }
        Ok(())
    }
}
