//! Which steps run when: all at once, or, row by row, a pipelined tier's in slices between its neighbours' rows.
//!
//! Level 0 is what runs at once. Each pipelined tier ([`Plan::pipelined`]) is a level of its own, whose table holds the rows it is
//! working on. A level's steps run in the plan's order whenever they run, on values that no other level's steps share a place with; until
//! its last has run, the overlap above sees the tier's rows as not there yet, which by its shift it does not need. So every row of
//! every op is computed from what it would have been computed from at once, and has its bits.

use super::super::RowTable;
use crate::plan::{Cost, Pipelined, Plan, ValueId};

/// A level: its own steps, those of the level within left out.
pub struct Level {
    /// In the order they run.
    pub steps: Vec<usize>,
    /// Where, for each of them, the run of neighbours that it is of ends.
    pub ends: Vec<usize>,
    /// Where in `steps` the rows of the level within are framed; the step behind it takes them up.
    pub within: Option<usize>,
    /// Input rows per row of the tier; 1 on level 0.
    pub period: usize,
    /// A value of that tier.
    pub value: ValueId,
    /// The step, one level out, that takes its rows up.
    pub overlap: usize,
    /// How many of the steps have run after so many rows.
    until: Vec<usize>,
    /// The rows that it works on.
    pub table: RowTable,
    /// Steps that have run, and rows met, since they began; none while nothing is left to do.
    pub progress: Option<(usize, usize)>,
}

impl Level {
    /// Counts a row; the step up to which to go.
    pub fn count_row(&mut self) -> Option<usize> {
        let (_, rows) = self.progress.as_mut()?;
        *rows += 1;
        Some(self.until.get(*rows - 1).copied().unwrap_or(self.steps.len()))
    }
}

/// The levels of a plan, outermost first. The steps of op i are `first[i] .. first[i + 1]`.
pub fn levels(plan: &Plan, first: &[usize], max_streams: usize) -> Vec<Level> {
    let tiers = plan.pipelined();
    let steps_of = |op: usize| first.get(op).copied().unwrap_or(0)..first.get(op + 1).copied().unwrap_or(0);
    let parts = |(op, (_, _, cost)): (usize, (&str, usize, Cost))| {
        let count = steps_of(op).len();
        std::iter::repeat_n(seconds(cost) / count.max(1) as f64, count)
    };
    let costs: Vec<f64> = plan.cost().ops().enumerate().flat_map(parts).collect();
    let whole = Pipelined { period: 1, ops: 0..plan.ops.len(), overlap: 0, window: 1 };
    let all: Vec<&Pipelined> = std::iter::once(&whole).chain(&tiers).collect();
    let level = |(i, tier): (usize, &&Pipelined)| {
        let inner = all.get(i + 1).map_or(0..0, |tier| tier.ops.clone());
        let steps: Vec<usize> =
            tier.ops.clone().filter(|op| !inner.contains(op)).flat_map(steps_of).collect();
        let frame = all.get(i + 1).and_then(|tier| first.get(tier.ops.start.checked_sub(1)?));
        let within = frame.and_then(|frame| steps.iter().position(|step| step == frame));
        let framed = tier.ops.start.checked_sub(1).and_then(|frame| plan.ops.get(frame));
        let value = framed.map_or(plan.output, |op| op.output);
        let (until, ends) = (spread(&steps, &costs, tier.window), ends(&steps));
        let (period, overlap) = (tier.period, steps_of(tier.overlap).start);
        Level {
            steps,
            ends,
            within,
            period,
            value,
            overlap,
            until,
            table: RowTable::new(plan, max_streams),
            progress: None,
        }
    };
    all.iter().enumerate().map(level).collect()
}

/// For each step the place behind the last that follows it without a gap.
fn ends(steps: &[usize]) -> Vec<usize> {
    let (mut ends, mut end, mut next) = (Vec::new(), steps.len(), None);
    for (i, step) in steps.iter().enumerate().rev() {
        if next != Some(step + 1) {
            end = i + 1;
        }
        next = Some(*step);
        ends.push(end);
    }
    ends.reverse();
    ends
}

/// A guess at a step's time, to weigh steps against each other: its weights from the third cache or its arithmetic, and what it costs to
/// begin, about as `cascabel bench` finds them where `bench-records/2026-11-27-xeon-2core` was measured.
fn seconds(cost: Cost) -> f64 {
    let [bytes, flop, exp, begin] = [30e9, 60e9, 8e9, 0.1e-6];
    (cost.weight_bytes as f64 / bytes).max(cost.flop as f64 / flop) + cost.exp as f64 / exp + begin
}

/// How many steps are to have run after 1, 2 … `window` rows, so that each has about the same work.
fn spread(steps: &[usize], costs: &[f64], window: usize) -> Vec<usize> {
    let cost = |step: &usize| costs.get(*step).copied().unwrap_or(0.0);
    let total: f64 = steps.iter().map(cost).sum();
    // A step is done by when half of it should be.
    let mut before = 0.0;
    let middles: Vec<f64> = steps
        .iter()
        .map(|step| {
            before += cost(step);
            before - cost(step) / 2.0
        })
        .collect();
    let after = |row: usize| {
        let due = total * row as f64 / window as f64;
        if row == window { steps.len() } else { middles.iter().filter(|middle| **middle < due).count() }
    };
    (1..=window).map(after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_spread_evenly() {
        let costs = [9.0, 1.0, 1.0, 2.0, 2.0, 2.0, 9.0];
        assert_eq!(spread(&[1, 2, 3, 4, 5], &costs, 4), [2, 3, 4, 5]);
        assert_eq!(spread(&[1, 2, 3, 4, 5], &costs, 1), [5]);
        assert_eq!(spread(&[0, 1], &costs, 4), [0, 1, 1, 2]);
        assert_eq!(spread(&[], &costs, 2), [0, 0]);
        assert_eq!(ends(&[3, 4, 5, 8, 9, 11]), [3, 3, 3, 5, 5, 6]);
    }
}
