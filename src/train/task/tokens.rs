//! What the wanted tokens cost, where the logits lie.

use candle_core::Tensor;

use super::{Judge, Verdict};
use crate::Result;
use crate::exec::candle::train_error;
use crate::train::examples::Examples;
use crate::train::loss::cross_entropy::cross_entropy;
use crate::train::loss::{LossParts, LossValues};

/// The cross-entropy of an example: the mean over its rows that count, in nats.
#[derive(Clone, Copy, Debug)]
pub struct TokenJudge;

impl Judge for TokenJudge {
    type Row = u32;

    fn judge(&mut self, y: &Tensor, examples: &Examples<u32>) -> Result<(Verdict, Tensor)> {
        #[cfg(feature = "train-cuda")]
        if y.device().is_cuda() {
            return on_device(y, examples).map_err(train_error);
        }
        let (rows, logits) = (examples.len().max(1), y.flatten_all().and_then(|y| y.to_vec1::<f32>()));
        let logits = logits.map_err(train_error)?;
        let (mut grad, each) = (vec![0.0; logits.len()], (logits.len() / examples.count().max(1)).max(1));
        let one = |((logits, grad), wanted): ((&[f32], &mut [f32]), &[u32])| {
            cross_entropy(logits, wanted, grad).map(of)
        };
        let examples = logits.chunks(each).zip(grad.chunks_mut(each)).zip(examples.wanted().chunks(rows));
        let values = examples.map(one).collect::<Result<_>>()?;
        let grad = Tensor::from_vec(grad, y.shape(), y.device()).map_err(train_error)?;
        Ok((Verdict::now(values), grad))
    }
}

fn of(total: f64) -> LossValues {
    LossValues { total, parts: LossParts::default() }
}

/// As many rows count in each example.
#[cfg(feature = "train-cuda")]
fn on_device(y: &Tensor, examples: &Examples<u32>) -> candle_core::Result<(Verdict, Tensor)> {
    use candle_core::DType;

    use crate::train::loss::cross_entropy::NOTHING;
    use crate::train::loss::cross_entropy::device::by_rows;
    let (shape, first) = ((examples.count(), examples.len()), examples.wanted().iter().take(examples.len()));
    let counted = first.filter(|token| **token != NOTHING).count();
    let wanted = if counted == examples.len() {
        Tensor::from_slice(examples.wanted(), shape, y.device())?.to_dtype(DType::F32)?
    } else {
        let number = |token: &u32| if *token == NOTHING { -1.0 } else { *token as f32 };
        Tensor::from_vec(examples.wanted().iter().map(number).collect::<Vec<f32>>(), shape, y.device())?
    };
    let share = 1.0 / counted.max(1) as f32;
    let (losses, grad) = by_rows(y, &wanted, share)?;
    let means = (losses.reshape(shape)?.sum(1)? * f64::from(share))?;
    let read = move || {
        let means = means.to_vec1::<f32>().map_err(train_error)?;
        Ok(means.into_iter().map(|mean| of(mean.into())).collect())
    };
    Ok((Verdict::later(read), grad))
}
