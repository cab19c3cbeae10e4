//! Dropout whose mask is a function of (seed, step, op, stream, position, channel): the same however a clip is cut, and on
//! whichever thread a stream runs.

use candle_core::{Result, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda;

/// What the masks of one training step depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser step.
    pub step: u64,
    /// The number, in the whole batch, of the first stream of this call.
    pub first_stream: u64,
}

impl Dropout {
    /// m/(1 − rate) for `x [S, T, d]`, with m = 0 for a share `rate` of its numbers and 1 elsewhere; `position` is that of its
    /// first row.
    pub(super) fn mask(&self, x: &Tensor, rate: f32, op: usize, position: u64) -> Result<Tensor> {
        let (streams, rows, d) = x.dims3()?;
        let keep = 1.0 / (1.0 - f64::from(rate));
        let bar = (f64::from(rate) * 2f64.powi(32)) as u64;
        let key = mix(mix(mix(self.seed) ^ self.step) ^ op as u64);
        #[cfg(feature = "train-cuda")]
        if x.device().is_cuda() {
            return cuda::dropout::mask(x, [key, self.first_stream, position, bar], keep as f32);
        }
        let mut mask = Vec::with_capacity(streams * rows * d);
        for stream in 0..streams as u64 {
            let key = mix(key ^ (self.first_stream + stream));
            for row in 0..rows as u64 {
                let key = mix(key ^ (position + row));
                let kept = |c: u64| if mix(key ^ c) >> 32 < bar { 0.0 } else { keep };
                mask.extend((0..d as u64).map(kept));
            }
        }
        Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())
    }
}

/// SplitMix64's step: a bijection that scatters its bits.
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn masks_follow_position_and_stream_and_keep_the_mean() -> Result<()> {
        let x = Tensor::ones((2, 100, 50), DType::F64, &Device::Cpu)?;
        let dropout = Dropout { seed: 1, step: 2, first_stream: 0 };
        let whole = dropout.mask(&x, 0.25, 3, 10)?;
        let mean = whole.mean_all()?.to_scalar::<f64>()?;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let second = Dropout { first_stream: 1, ..dropout };
        let tail = second.mask(&x.narrow(0, 0, 1)?.narrow(1, 0, 40)?, 0.25, 3, 70)?;
        let same = whole.narrow(0, 1, 1)?.narrow(1, 60, 40)?;
        assert_eq!(tail.flatten_all()?.to_vec1::<f64>()?, same.flatten_all()?.to_vec1::<f64>()?);
        let other = Dropout { step: 3, ..dropout }.mask(&x, 0.25, 3, 10)?;
        assert!((other - whole)?.abs()?.sum_all()?.to_scalar::<f64>()? > 1000.0);
        Ok(())
    }
}
