//! Long calls in segments: the memory of one, for the price of one more way there.
//!
//! The way there keeps nothing but the state at the beginning of each segment. The way back takes the segments last first, runs each
//! again from its state, now recording, and hands the gradient of that state on to the segment before. The gradients are those of
//! the whole call, to rounding; memory grows with the states alone, one for each segment.

use candle_core::Tensor;

use super::{CandleInput, CandleModel, CandleState, Dropout, Gradients, train_error};
use crate::{Error, Result};

/// A call that can be taken back segment by segment; see [`CandleModel::record_segments`].
pub struct Segments {
    model: CandleModel,
    input: Tensor,
    tokens: bool,
    dropout: Option<Dropout>,
    /// The first row, rows and state at the beginning of each.
    parts: Vec<(usize, usize, CandleState)>,
    weights_only: bool,
}

impl CandleModel {
    /// As [`record`](Self::record), in segments of at most `rows` rows.
    pub fn record_segments(
        &self,
        state: &CandleState,
        input: CandleInput<'_>,
        dropout: Option<Dropout>,
        rows: usize,
    ) -> Result<(Tensor, CandleState, Segments)> {
        if rows == 0 {
            return Err(Error::input("rows of a segment", "1 or more", "0"));
        }
        let (whole, tokens) = match input {
            CandleInput::Samples(x) => (x, false),
            CandleInput::Tokens(x) => (x, true),
        };
        let mut all = Segments {
            model: self.clone(),
            input: whole.clone(),
            tokens,
            dropout,
            parts: Vec::new(),
            weights_only: false,
        };
        let total = whole.dim(1).map_err(train_error)?;
        let (mut outputs, mut now, mut at) = (Vec::new(), state.clone(), 0);
        while at < total || outputs.is_empty() {
            let len = rows.min(total - at);
            let part = whole.narrow(1, at, len).map_err(train_error)?;
            let (y, next, _) = self.run(&now, kind(tokens, &part), dropout, false)?;
            outputs.push(y);
            all.parts.push((at, len, now));
            (now, at) = (next, at + len);
        }
        Ok((Tensor::cat(&outputs, 1).map_err(train_error)?, now, all))
    }
}

fn kind(tokens: bool, x: &Tensor) -> CandleInput<'_> {
    if tokens { CandleInput::Tokens(x) } else { CandleInput::Samples(x) }
}

impl Segments {
    /// As [`Tape::of_weights`](super::Tape::of_weights).
    pub fn of_weights(mut self) -> Self {
        self.weights_only = true;
        self
    }

    /// As [`Tape::backward`](super::Tape::backward).
    pub fn backward(self, y: &Tensor, end: Option<&[Option<Tensor>]>) -> Result<Gradients> {
        let rows = self.parts.iter().map(|(_, len, _)| len).sum::<usize>();
        if y.dims().get(1) != Some(&rows) {
            let expected = format!("{rows} rows, as the output has");
            return Err(Error::input("gradient of the output", expected, format!("{:?}", y.dims())));
        }
        let mut slots = end.map_or_else(|| vec![None; self.model.plan().states.len()], <[_]>::to_vec);
        let (mut params, mut inputs) = (vec![None; self.model.plan().params.len()], Vec::new());
        for (at, len, state) in self.parts.into_iter().rev() {
            let part = |x: &Tensor| x.narrow(1, at, len).and_then(|x| x.contiguous()).map_err(train_error);
            let (_, _, tape) =
                self.model.record(&state, kind(self.tokens, &part(&self.input)?), self.dropout)?;
            let tape = if self.weights_only { tape.of_weights() } else { tape };
            let grads = tape.backward(&part(y)?, Some(&slots))?;
            slots = grads.slots;
            if !self.tokens && !self.weights_only {
                // Samples on which nothing depends: the ends of frames that never came.
                let none = || part(&self.input)?.zeros_like().map_err(train_error);
                inputs.push(grads.input.map_or_else(none, Ok)?);
            }
            for (sum, grad) in params.iter_mut().zip(grads.params) {
                *sum = match (sum.take(), grad) {
                    (Some(sum), Some(grad)) => Some(Tensor::add(&sum, &grad).map_err(train_error)?),
                    (sum, grad) => sum.or(grad),
                };
            }
        }
        inputs.reverse();
        let input = (!inputs.is_empty()).then(|| Tensor::cat(&inputs, 1)).transpose().map_err(train_error)?;
        Ok(Gradients { params, slots, input })
    }
}
