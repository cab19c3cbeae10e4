//! Tiers whose rows are wanted late enough that their work can be spread over the rows in between.
//!
//! A tier of period P that comes back with a shift of s of its rows ([`OpKind::Overlap`]) is first read (s − 1)·P input rows after the
//! row that completed it. With s ≥ 2 its ops need not run at once, when P rows' work falls on one: they may be spread over the
//! following rows until the next one of the tier is due; a tier within another pipelined one waits for that one's window first.

use std::collections::HashSet;
use std::ops::Range;

use super::{OpKind, Plan, ValueId};

/// A tier that may be computed late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipelined {
    /// Input rows per row.
    pub period: usize,
    /// Its ops: those between the op that frames its rows and `overlap`, a pipelined tier within among them.
    pub ops: Range<usize>,
    /// The op that takes its rows back up.
    pub overlap: usize,
    /// Input rows over which a row's work may be spread, from the one after it fell due on.
    pub window: usize,
}

impl Plan {
    /// The tiers that may be computed late, outermost first.
    pub fn pipelined(&self) -> Vec<Pipelined> {
        let mut found: Vec<Pipelined> = Vec::new();
        let periods: Vec<usize> = self.ops.iter().map(|op| self.tier(op).period).collect();
        // Overlaps close in the reverse order that tiers open in.
        for (overlap, op) in self.ops.iter().enumerate().rev() {
            let OpKind::Overlap { shift, .. } = op.kind else { continue };
            let period = op.inputs.first().map_or(1, |v| self.value(v.value).tier.period);
            let inside = |p: &usize| *p >= period;
            let (Some(first), Some(last)) =
                (periods.iter().position(inside), periods.iter().rposition(inside))
            else {
                continue;
            };
            let own = periods.get(first..overlap).unwrap_or_default();
            let framed = self.ops.get(first).is_some_and(|op| matches!(op.kind, OpKind::Frame { .. }));
            let around = found.last().map_or(0, |tier| tier.window);
            let whole = last + 1 == overlap && own.iter().all(inside) && framed;
            if shift >= 2 && whole && period > around && self.closed(first, overlap) {
                let window = period - around;
                found.push(Pipelined { period, ops: first + 1..overlap, overlap, window });
            }
        }
        found
    }

    /// Whether the ops after `frame` up to `overlap` read nothing but its value and each other's, and nobody else but `overlap` reads theirs.
    fn closed(&self, frame: usize, overlap: usize) -> bool {
        let made: HashSet<ValueId> =
            self.ops.get(frame..overlap).unwrap_or_default().iter().map(|op| op.output).collect();
        self.ops.iter().enumerate().filter(|(i, _)| *i != frame).all(|(i, op)| {
            let own = op.inputs.iter().filter(|v| made.contains(&v.value)).count();
            if i > frame && i < overlap { own == op.inputs.len() } else { own == 0 || i == overlap }
        }) && !made.contains(&self.output)
    }
}

#[cfg(test)]
mod tests {
    use crate::Result;
    use crate::model::Config;
    use crate::plan::{Act, Plan, PlanBuilder};

    fn plan(shifts: [usize; 2], blocks: usize) -> Plan {
        let mixer = r#""mixer": {"kind": "s4d", "d_state": 2}"#;
        let [outer, inner] = shifts;
        let text = format!(
            r#"{{"kind": "generator", "rate": 8000, "tiers": [
                {{"d_model": 4, "blocks": 1, {mixer}}},
                {{"d_model": 6, "blocks": {blocks}, "pool": 4, "shift": {outer}, {mixer}}},
                {{"d_model": 8, "blocks": 1, "pool": 4, "shift": {inner}, {mixer}}}]}}"#
        );
        serde_json::from_str::<Config>(&text).unwrap().plan().unwrap()
    }

    #[test]
    fn windows_end_before_the_next_row_and_leave_the_tier_around_its_own() {
        let windows = |shifts| {
            let found = plan(shifts, 1).pipelined();
            found.iter().map(|tier| (tier.period, tier.window)).collect::<Vec<_>>()
        };
        assert_eq!(windows([1, 1]), []);
        assert_eq!(windows([2, 1]), [(4, 4)]);
        assert_eq!(windows([1, 2]), [(16, 16)]);
        assert_eq!(windows([2, 2]), [(4, 4), (16, 12)]);
        assert_eq!(windows([3, 5]), [(4, 4), (16, 12)]);
    }

    /// What is read beside the frame, or beside the overlap, would not be there in time.
    #[test]
    fn a_tier_that_others_read_or_that_reads_others_is_computed_at_once() -> Result<()> {
        let tier = |twice: bool, beside: bool| {
            let mut b = PlanBuilder::new();
            let x = b.samples(4);
            let framed = b.frame("frame", x, 4, 4)?;
            let z = b.linear("in", framed, 16, true, Act::Tanh)?;
            let z = if beside {
                let other = b.frame("other", x, 4, 4)?;
                b.add("both", z, other)?
            } else {
                z
            };
            let y = b.overlap("out", z, 4, 2)?;
            let y = if twice {
                let again = b.overlap("again", z, 4, 2)?;
                b.add("sum", y, again)?
            } else {
                y
            };
            b.build(y)
        };
        assert_eq!(tier(false, false)?.pipelined().len(), 1);
        for (twice, beside) in [(true, false), (false, true)] {
            assert!(tier(twice, beside)?.pipelined().is_empty(), "{twice} {beside}");
        }
        Ok(())
    }

    #[test]
    fn a_pipelined_tier_is_what_lies_between_its_frame_and_its_overlap() -> Result<()> {
        let plan = plan([2, 2], 2);
        let found = plan.pipelined();
        for tier in &found {
            let name = |i: usize| plan.ops[i].name.as_str();
            let level = if tier.period == 4 { 0 } else { 1 };
            assert_eq!(name(tier.ops.start - 1), format!("tiers.{level}.pool.rows"));
            assert_eq!(
                (name(tier.overlap), tier.overlap),
                (format!("tiers.{level}.unpool.rows").as_str(), tier.ops.end)
            );
            assert!(tier.ops.clone().all(|i| plan.tier(&plan.ops[i]).period >= tier.period));
        }
        assert!(found[0].ops.contains(&(found[1].ops.start - 1)) && found[0].ops.contains(&found[1].overlap));
        Ok(())
    }
}
