//! Who holds a filter's outputs against the clean sound: the losses on this processor, or on the GPU where the outputs lie.

use candle_core::{Device, Tensor};

use crate::Result;
use crate::exec::candle::train_error;
use crate::train::examples::Examples;
#[cfg(feature = "train-cuda")]
use crate::train::loss::device::DeviceLoss;
use crate::train::loss::{Loss, LossSpec, LossValues};
use crate::train::task::{Judge, Verdict};

/// A loss where the model runs, for outputs that are `latency` samples late: they are held from there on against the clean sounds'
/// beginnings.
pub struct SoundJudge {
    latency: usize,
    loss: Place,
}

enum Place {
    /// One example after the other.
    Host(Box<Loss>),
    /// All at once.
    #[cfg(feature = "train-cuda")]
    Device(Box<DeviceLoss>),
}

impl SoundJudge {
    /// The loss of `spec` for sound at `rate` Hz where `device` is.
    pub fn new(spec: &LossSpec, rate: u32, latency: usize, device: &Device) -> Result<Self> {
        #[cfg(feature = "train-cuda")]
        if device.is_cuda() {
            let loss = Place::Device(Box::new(DeviceLoss::new(spec, rate, device)?));
            return Ok(Self { latency, loss });
        }
        let _ = device;
        Ok(Self { latency, loss: Place::Host(Box::new(Loss::new(spec, rate)?)) })
    }
}

impl Judge for SoundJudge {
    type Row = f32;

    fn judge(&mut self, y: &Tensor, examples: &Examples<f32>) -> Result<(Verdict, Tensor)> {
        let latency = self.latency;
        match &mut self.loss {
            Place::Host(loss) => {
                let estimates = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(train_error)?;
                let (values, grad) = one_by_one(loss, latency, &estimates, examples)?;
                let grad = Tensor::from_vec(grad, y.shape(), y.device()).map_err(train_error)?;
                Ok((Verdict::now(values), grad))
            }
            #[cfg(feature = "train-cuda")]
            Place::Device(loss) => {
                let (count, len) = (examples.count(), examples.len());
                let kept = len - latency;
                let parts = || {
                    let estimate = y.reshape((count, len))?.narrow(1, latency, kept)?.contiguous()?;
                    let clean = Tensor::from_slice(examples.wanted(), (count, len), y.device())?;
                    Ok((estimate, clean.narrow(1, 0, kept)?.contiguous()?))
                };
                let (estimate, clean) = parts().map_err(train_error)?;
                let (values, grad) = loss.values_and_grad(&estimate, &clean)?;
                let grad = grad.pad_with_zeros(1, latency, 0).and_then(|g| g.reshape(y.shape()));
                Ok((Verdict::later(move || values.read()), grad.map_err(train_error)?))
            }
        }
    }
}

fn one_by_one(
    loss: &mut Loss,
    latency: usize,
    estimates: &[f32],
    examples: &Examples<f32>,
) -> Result<(Vec<LossValues>, Vec<f32>)> {
    let len = examples.len();
    let mut grad = vec![0.0; estimates.len()];
    let clips = estimates.chunks(len).zip(grad.chunks_mut(len)).zip(examples.wanted().chunks(len));
    let value = |((estimate, grad), clean): ((&[f32], &mut [f32]), &[f32])| {
        loss.value_and_grad(&estimate[latency..], &clean[..len - latency], &mut grad[latency..])
    };
    let values = clips.map(value).collect::<Result<_>>()?;
    Ok((values, grad))
}
