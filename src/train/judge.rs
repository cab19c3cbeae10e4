//! Who holds a batch's outputs against the clean sound: the losses on this processor, or on the GPU where the outputs lie.

use candle_core::{Device, Tensor};

use super::examples::Examples;
use super::loss::{Loss, LossSpec, LossValues};
use crate::Result;
use crate::exec::candle::train_error;

/// A loss where the model runs.
pub enum Judge {
    /// One example after the other.
    Host(Box<Loss>),
    /// All at once.
    #[cfg(feature = "train-cuda")]
    Device(Box<super::loss::device::DeviceLoss>),
}

/// The losses of a batch, perhaps still being computed.
pub enum Verdict {
    /// One an example.
    Values(Vec<LossValues>),
    /// On a device.
    #[cfg(feature = "train-cuda")]
    Device(super::loss::device::DeviceValues),
}

impl Verdict {
    /// The losses, one an example; waits for a device.
    pub fn values(self) -> Result<Vec<LossValues>> {
        match self {
            Self::Values(values) => Ok(values),
            #[cfg(feature = "train-cuda")]
            Self::Device(values) => values.read(),
        }
    }
}

impl Judge {
    /// The loss of `spec` for sound at `rate` Hz where `device` is.
    pub fn new(spec: &LossSpec, rate: u32, device: &Device) -> Result<Self> {
        #[cfg(feature = "train-cuda")]
        if device.is_cuda() {
            return Ok(Self::Device(Box::new(super::loss::device::DeviceLoss::new(spec, rate, device)?)));
        }
        let _ = device;
        Ok(Self::Host(Box::new(Loss::new(spec, rate)?)))
    }

    /// The losses of outputs `y [S, T, 1]`, which are `latency` samples late, and the gradient of their sum by y.
    ///
    /// y from `latency` on is held against the clean sounds' beginnings.
    pub fn judge(&mut self, y: &Tensor, latency: usize, examples: &Examples) -> Result<(Verdict, Tensor)> {
        match self {
            Self::Host(loss) => {
                let estimates = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(train_error)?;
                let (values, grad) = one_by_one(loss, latency, &estimates, examples)?;
                let grad = Tensor::from_vec(grad, y.shape(), y.device()).map_err(train_error)?;
                Ok((Verdict::Values(values), grad))
            }
            #[cfg(feature = "train-cuda")]
            Self::Device(loss) => {
                let (count, len) = (examples.count(), examples.len());
                let kept = len - latency;
                let parts = || {
                    let estimate = y.reshape((count, len))?.narrow(1, latency, kept)?.contiguous()?;
                    let clean = Tensor::from_slice(examples.clean(), (count, len), y.device())?;
                    Ok((estimate, clean.narrow(1, 0, kept)?.contiguous()?))
                };
                let (estimate, clean) = parts().map_err(train_error)?;
                let (values, grad) = loss.values_and_grad(&estimate, &clean)?;
                let grad = grad.pad_with_zeros(1, latency, 0).and_then(|g| g.reshape(y.shape()));
                Ok((Verdict::Device(values), grad.map_err(train_error)?))
            }
        }
    }
}

fn one_by_one(
    loss: &mut Loss,
    latency: usize,
    estimates: &[f32],
    examples: &Examples,
) -> Result<(Vec<LossValues>, Vec<f32>)> {
    let len = examples.len();
    let mut grad = vec![0.0; estimates.len()];
    let clips = estimates.chunks(len).zip(grad.chunks_mut(len)).zip(examples.clean().chunks(len));
    let value = |((estimate, grad), clean): ((&[f32], &mut [f32]), &[f32])| {
        loss.value_and_grad(&estimate[latency..], &clean[..len - latency], &mut grad[latency..])
    };
    let values = clips.map(value).collect::<Result<_>>()?;
    Ok((values, grad))
}
