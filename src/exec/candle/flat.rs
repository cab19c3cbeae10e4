//! All weights of a plan side by side, so that one call moves, sums or updates them all.

use candle_core::{DType, Result, Tensor};

use super::Gradients;
use super::columns::packed;
use crate::plan::{Param, Plan};

/// Each weight begins at a multiple of so many numbers: 256 bytes, as matrix products on a GPU like it.
const ALIGNED: usize = 64;

/// Where each weight lies. Between two there may be zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First number and count, in the plan's order.
    places: Vec<(usize, usize)>,
    len: usize,
}

impl Layout {
    /// Of a plan's weights.
    pub fn new(plan: &Plan) -> Self {
        let mut len = 0;
        let place = |param: &Param| {
            let at = len;
            len += param.len().next_multiple_of(ALIGNED);
            (at, param.len())
        };
        let places = plan.params.iter().map(place).collect();
        Self { places, len }
    }

    /// Numbers in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The numbers of each weight.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.places.iter().map(|(at, len)| *at..at + len)
    }

    /// Vectors in the plan's order as one.
    pub fn join(&self, parts: &[Vec<f32>]) -> Vec<f32> {
        let mut flat = vec![0.0; self.len];
        for (range, part) in self.ranges().zip(parts) {
            flat[range].copy_from_slice(part);
        }
        flat
    }

    /// What [`join`](Self::join) was given.
    pub fn part(&self, flat: &[f32]) -> Vec<Vec<f32>> {
        self.ranges().map(|range| flat[range].to_vec()).collect()
    }

    /// Views of each weight.
    pub(super) fn split(&self, plan: &Plan, flat: &Tensor) -> Result<Vec<Tensor>> {
        let view = |((at, len), param): (&(usize, usize), &Param)| {
            flat.narrow(0, *at, *len)?.reshape(param.shape.as_slice())
        };
        self.places.iter().zip(&plan.params).map(view).collect()
    }

    /// Gradients as one f32 tensor, laid out as the weights.
    pub fn gather(&self, grads: &Gradients, like: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "train-cuda")]
        if like.device().is_cuda() {
            let places = self.ranges().zip(&grads.params);
            let parts: Vec<_> = places.filter_map(|(range, grad)| Some((range, grad.as_ref()?))).collect();
            return super::cuda::flat::gather(&parts, self.len, like.device());
        }
        let zeros = |n: usize| Tensor::zeros(n, DType::F32, like.device());
        let mut parts = Vec::with_capacity(2 * self.places.len());
        for ((_, len), grad) in self.places.iter().zip(&grads.params) {
            parts.push(match grad {
                Some(grad) => packed(grad)?.flatten_all()?.to_dtype(DType::F32)?,
                None => zeros(*len)?,
            });
            let gap = len.next_multiple_of(ALIGNED) - len;
            if gap > 0 {
                parts.push(zeros(gap)?);
            }
        }
        Tensor::cat(&parts, 0)
    }
}
