//! The ops on an NVIDIA GPU: f32, one file an op, kernels compiled beforehand (`kernels/`, PTX for sm_80 and newer).
//!
//! Every op of [`candle`](super) asks for its results here when its tensors lie on a GPU. A call is: views of the inputs, new
//! results, whole-number sizes, a grid. All sums have a fixed order, so that a run gives the same bits twice.

pub(crate) mod call;
pub(super) mod columns;
pub(super) mod discretise;
pub(super) mod dropout;
pub(super) mod elementwise;
pub(super) mod embed;
pub(super) mod flat;
pub(crate) mod history;
pub(super) mod invariant;
pub(super) mod linear;
pub(super) mod norm;
pub(super) mod scan;
#[cfg(test)]
mod tests;

pub(crate) use call::with_all;
