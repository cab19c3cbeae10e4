//! The ops on an NVIDIA GPU: f32, one file an op, kernels compiled beforehand (`kernels/`, PTX for sm_80 and newer).
//!
//! Every op of [`candle`](super) asks for its results here when its tensors lie on a GPU. A call is: views of the inputs, new
//! results, whole-number sizes, a grid. All sums have a fixed order, so that a run gives the same bits twice.

pub(crate) mod call;
pub(super) mod columns;
pub(super) mod discretise;
pub(super) mod elementwise;
pub(super) mod flat;
pub(crate) mod history;
pub(super) mod linear;
pub(super) mod norm;
pub(super) mod scan;
#[cfg(test)]
mod tests;

pub(crate) use call::with_all;
use candle_core::cuda_backend::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};

/// Whether matrix products of f32 round their factors to TF32 from here on, in the whole process; returns how it was.
pub(crate) fn round_products(round: bool) -> bool {
    let before = gemm_reduced_precision_f32();
    set_gemm_reduced_precision_f32(round);
    before
}
