//! Which rows of which streams a call advances, tier by tier.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

use crate::Error;
use crate::plan::{Plan, Tier, ValueId};

/// Rows for one stream in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The stream's number, below the limit given at open.
    pub stream: usize,
    /// How many input rows.
    pub rows: usize,
}

/// The input rows of a call, feed after feed.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// `[rows, width]` samples.
    Samples(&'a [f32]),
    /// One token a row.
    Tokens(&'a [u32]),
}

/// What an executor is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rows of one stream run at once; longer feeds are cut inside.
    pub max_rows: usize,
    /// Streams that may be open.
    pub max_streams: usize,
}

/// A call that cannot be carried out as given. Nothing has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A stream number at or above the limit, or one named twice in a call.
    #[error("advance: expected distinct streams below the number opened, got stream {0}")]
    Stream(usize),
    /// An input whose length is not what the feeds add up to.
    #[error("advance: expected input for {expected} numbers, got {got}")]
    InputLength {
        /// Numbers expected.
        expected: usize,
        /// Numbers given.
        got: usize,
    },
    /// An output buffer of another length than the rows need.
    #[error("advance: expected an output buffer of {expected} numbers, got {got}")]
    OutputLength {
        /// Numbers expected.
        expected: usize,
        /// Numbers given.
        got: usize,
    },
    /// Tokens given to a plan of samples, or the reverse.
    #[error("advance: expected the plan's kind of input (samples or tokens), got the other")]
    InputKind,
    /// A token outside the vocabulary.
    #[error("advance: expected tokens below the vocabulary's size, got {0}")]
    Token(u32),
    /// A stream that is to go on before it has begun.
    #[error("generate: expected a stream that has heard a token at least, got stream {0} that has not")]
    Unbegun(usize),
}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Error::input("executor", "a call as documented", misuse.to_string())
    }
}

impl Rows<'_> {
    /// Checks a call against the plan and the limits; `Ok(total rows)`.
    pub fn check(&self, plan: &Plan, limits: Limits, feeds: &[Feed], output: usize) -> Result<usize, Misuse> {
        let mut total = 0usize;
        for (i, feed) in feeds.iter().enumerate() {
            if feed.stream >= limits.max_streams || feeds.iter().take(i).any(|f| f.stream == feed.stream) {
                return Err(Misuse::Stream(feed.stream));
            }
            total = total.saturating_add(feed.rows);
        }
        let (per_row, got) = match (self, plan.input) {
            (Rows::Samples(x), crate::plan::Input::Samples(width)) => (width, x.len()),
            (Rows::Tokens(x), crate::plan::Input::Tokens(vocabulary)) => {
                if let Some(bad) = x.iter().find(|t| **t as usize >= vocabulary) {
                    return Err(Misuse::Token(*bad));
                }
                (1, x.len())
            }
            _ => return Err(Misuse::InputKind),
        };
        if total.saturating_mul(per_row) != got {
            return Err(Misuse::InputLength { expected: total.saturating_mul(per_row), got });
        }
        let width = plan.values.get(plan.output.0).map_or(0, |v| v.width);
        if total.saturating_mul(width) != output {
            return Err(Misuse::OutputLength { expected: total.saturating_mul(width), got: output });
        }
        Ok(total)
    }
}

/// One stream's rows of one tier in the current pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The stream.
    pub stream: usize,
    /// Rows of this tier that the stream completed before this pass: its phase, at any coarser tier, follows from it.
    pub completed: u64,
    /// Where its rows begin among the stacked rows of all streams.
    pub start: usize,
    /// How many rows; may be 0.
    pub rows: usize,
}

/// For each tier of a plan, the rows of each stream of the current pass. Made once at open; filled without allocating.
#[derive(Clone, Debug)]
pub struct RowTable {
    periods: Vec<usize>,
    tier_of_value: Vec<usize>,
    spans: Vec<Vec<Span>>,
}

impl RowTable {
    /// A table for a plan's tiers and at most `max_streams` feeds.
    pub fn new(plan: &Plan, max_streams: usize) -> Self {
        let mut periods: Vec<usize> = plan.values.iter().map(|v| v.tier.period).collect();
        periods.sort_unstable();
        periods.dedup();
        let place = |period: usize| periods.iter().position(|p| *p == period).unwrap_or(0);
        let tier_of_value = plan.values.iter().map(|v| place(v.tier.period)).collect();
        let spans = periods.iter().map(|_| Vec::with_capacity(max_streams)).collect();
        Self { periods, tier_of_value, spans }
    }

    /// Fills the table for a pass: each item is (stream, position, rows). At most `max_streams` items are taken.
    pub fn fill(&mut self, feeds: impl Iterator<Item = (usize, u64, usize)> + Clone) {
        for (period, spans) in self.periods.iter().zip(&mut self.spans) {
            let tier = Tier { period: *period };
            spans.clear();
            let mut start = 0;
            for (stream, position, rows) in feeds.clone().take(spans.capacity()) {
                let rows = tier.rows(position, rows);
                spans.push(Span { stream, completed: tier.completed(position), start, rows });
                start += rows;
            }
        }
    }

    /// Fills the table with another's rows of the tiers whose period is at least `period`, and none of the tiers outside.
    pub fn take_late(&mut self, other: &Self, period: usize) {
        for ((own, spans), from) in self.periods.iter().zip(&mut self.spans).zip(&other.spans) {
            spans.clear();
            let rows = |span: &Span| if *own < period { 0 } else { span.rows };
            spans.extend(from.iter().map(|span| Span { rows: rows(span), ..*span }));
        }
    }

    /// Counts rows of those tiers as completed up to those that `late`, if any, has yet to compute, and none as of this pass.
    pub fn hold_back(&mut self, period: usize, late: Option<&Self>) {
        let tiers =
            self.periods.iter().zip(&mut self.spans).enumerate().filter(|(_, (own, _))| **own >= period);
        for (tier, (_, spans)) in tiers {
            let of_tier = late.and_then(|late| late.spans.get(tier)).map_or(&[][..], Vec::as_slice);
            for (i, span) in spans.iter_mut().enumerate() {
                let own = |of: &&Span| of.stream == span.stream;
                // Where the same streams are fed as before, at the same place.
                let found = of_tier.get(i).filter(own).or_else(|| of_tier.iter().find(own));
                let waiting = found.map_or(0, |of| of.rows);
                span.completed = (span.completed + span.rows as u64).saturating_sub(waiting as u64);
                span.rows = 0;
            }
        }
    }

    /// The spans of the tier that a value belongs to.
    pub fn spans(&self, value: ValueId) -> &[Span] {
        let tier = self.tier_of_value.get(value.0).copied().unwrap_or(0);
        self.spans.get(tier).map_or(&[], Vec::as_slice)
    }

    /// The rows of all streams of the tier that a value belongs to.
    pub fn total(&self, value: ValueId) -> usize {
        self.spans(value).last().map_or(0, |s| s.start + s.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Act, PlanBuilder};

    #[test]
    fn coarse_rows_fall_due_by_phase() -> crate::Result<()> {
        let mut b = PlanBuilder::new();
        let x = b.samples(1);
        let f = b.frame("f", x, 4, 4)?;
        let y = b.linear("l", f, 4, false, Act::None)?;
        let y = b.overlap("o", y, 4, 1)?;
        let plan = b.build(y)?;
        let mut table = RowTable::new(&plan, 2);
        table.fill([(0, 3, 6), (1, 0, 3)].into_iter());
        let coarse = table.spans(f.value);
        assert_eq!(coarse[0], Span { stream: 0, completed: 0, start: 0, rows: 2 });
        assert_eq!(coarse[1], Span { stream: 1, completed: 0, start: 2, rows: 0 });
        assert_eq!(table.total(x.value), 9);
        Ok(())
    }
}
