//! What the answers cost, where the logits lie.

use candle_core::Tensor;

use super::NOTHING;
use crate::Result;
use crate::exec::candle::train_error;
use crate::train::examples::Examples;
use crate::train::loss::cross_entropy::cross_entropy;
use crate::train::loss::{LossParts, LossValues};
use crate::train::task::{Judge, Verdict};

/// The cross-entropy of an example's answers: their mean, in nats.
#[derive(Clone, Copy, Debug)]
pub struct AnswerJudge {
    /// Of an example.
    pub answers: usize,
}

impl Judge for AnswerJudge {
    type Row = u32;

    fn judge(&mut self, y: &Tensor, examples: &Examples<u32>) -> Result<(Verdict, Tensor)> {
        #[cfg(feature = "train-cuda")]
        if y.device().is_cuda() {
            return self.on_device(y, examples).map_err(train_error);
        }
        let logits = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(train_error)?;
        let width = logits.len() / examples.wanted().len().max(1);
        let mut grad = vec![0.0; logits.len()];
        let mut totals = vec![0.0; examples.count()];
        let asked = examples.wanted().iter().enumerate().filter(|(_, wanted)| **wanted != NOTHING);
        for (row, wanted) in asked {
            let own = row * width..(row + 1) * width;
            let cost = cross_entropy(&logits[own.clone()], &[*wanted], &mut grad[own])?;
            totals[row / examples.len().max(1)] += cost / self.answers as f64;
        }
        grad.iter_mut().for_each(|g| *g /= self.answers as f32);
        let grad = Tensor::from_vec(grad, y.shape(), y.device()).map_err(train_error)?;
        Ok((Verdict::now(totals.into_iter().map(of).collect()), grad))
    }
}

fn of(total: f64) -> LossValues {
    LossValues { total, parts: LossParts::default() }
}

#[cfg(feature = "train-cuda")]
impl AnswerJudge {
    fn on_device(self, y: &Tensor, examples: &Examples<u32>) -> candle_core::Result<(Verdict, Tensor)> {
        use crate::train::loss::cross_entropy::device::by_rows;
        let shape = (examples.count(), examples.len());
        let wanted: Vec<f32> =
            examples.wanted().iter().map(|t| if *t == NOTHING { -1.0 } else { *t as f32 }).collect();
        let share = 1.0 / self.answers as f32;
        let (losses, grad) = by_rows(y, &Tensor::from_vec(wanted, shape, y.device())?, share)?;
        let totals = (losses.reshape(shape)?.sum(1)? * f64::from(share))?;
        let read = move || {
            let totals = totals.to_vec1::<f32>().map_err(train_error)?;
            Ok(totals.into_iter().map(|total| of(total.into())).collect())
        };
        Ok((Verdict::later(read), grad))
    }
}
