//! The training executor: a [`Plan`] as candle tensors with gradients, in f32, or in f64 for gradient checks.
//!
//! One tensor a value, so autograd sees no overwriting; a value with no row due in a call is absent. [`CandleModel::forward`]
//! is differentiable in the weights and in the initial state, and a signal cut anywhere gives the same outputs, final state
//! and gradients as the whole, to rounding. Every op that candle has only as a chain of passes over memory is a custom op
//! with a hand-written backward: [`scan`](mod@scan), `linear`, `norm`, `conv`, `frame`, `overlap` and the activations.
//!
//! **Threads.** Training is data-parallel outside: threads share one `&CandleModel` and each runs its own micro-batch. Candle
//! asks the environment at every matrix product how many threads to use; start the process with `RAYON_NUM_THREADS=1`, or
//! each product spreads over all cores (and, before that, counts them).
//!
//! ```
//! use cascabel::exec::candle::{CandleInput, CandleModel};
//! use cascabel::plan::{Act, PlanBuilder, Weights};
//! use candle_core::{DType, Device, Tensor};
//! let mut b = PlanBuilder::new();
//! let x = b.samples(2);
//! let y = b.conv("c", x, 3, true, Act::Silu)?;
//! let plan = b.build(y)?;
//! let model = CandleModel::new(&plan, &Weights::random(&plan, 1), DType::F32)?;
//! let x = Tensor::ones((1, 5, 2), DType::F32, &Device::Cpu).unwrap();
//! let (y, _state) = model.forward(&model.zero_state(1)?, CandleInput::Samples(&x))?;
//! let grads = model.gradients(&y.sum_all().unwrap().backward().unwrap());
//! assert_eq!(grads.len(), 2); // the taps and the bias
//! # Ok::<(), cascabel::Error>(())
//! ```

#[cfg(feature = "train-cuda")]
pub(crate) mod cuda;
mod discretise;
mod dropout;
mod elementwise;
mod history;
mod linear;
mod math;
mod norm;
mod run;
pub mod scan;
mod state;
mod tensors;
#[cfg(test)]
mod tests;

pub use dropout::Dropout;
pub use state::CandleState;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use crate::plan::{Plan, Weights};
use crate::{Error, Result};

/// Candle's error as the library's.
pub(crate) fn train_error(error: candle_core::Error) -> Error {
    Error::Train(error.to_string().lines().next().unwrap_or_default().to_string())
}

/// A device by its name: `cpu`, `cuda`, `cuda:1`.
pub fn device(name: &str) -> Result<Device> {
    let ordinal = match name.split_once(':').unwrap_or((name, "0")) {
        ("cpu", "0") => return Ok(Device::Cpu),
        ("cuda", ordinal) => ordinal.parse::<usize>().ok(),
        _ => None,
    };
    let Some(ordinal) = ordinal else {
        return Err(Error::input("device", "cpu, cuda or cuda:N", name));
    };
    if !cfg!(feature = "train-cuda") {
        return Err(Error::input("device", "a build with the feature train-cuda for a GPU", name));
    }
    let opened = Device::new_cuda(ordinal);
    opened.map_err(|e| {
        Error::input(format!("device {name}"), "an NVIDIA GPU with its driver", train_error(e).to_string())
    })
}

/// The input rows of a call.
#[derive(Clone, Copy, Debug)]
pub enum CandleInput<'a> {
    /// `[S, T, width]` samples of the model's dtype.
    Samples(&'a Tensor),
    /// `[S, T]` tokens, u32.
    Tokens(&'a Tensor),
}

/// A plan with its weights as variables. Clones share them.
#[derive(Clone, Debug)]
pub struct CandleModel {
    plan: Plan,
    vars: Vec<Var>,
    dtype: DType,
    device: Device,
}

impl CandleModel {
    /// A model with these weights on the CPU, computing in f32 or f64.
    pub fn new(plan: &Plan, weights: &Weights, dtype: DType) -> Result<Self> {
        Self::on(&Device::Cpu, plan, weights, dtype)
    }

    /// A model with these weights on a device; f64 on the CPU alone.
    pub fn on(device: &Device, plan: &Plan, weights: &Weights, dtype: DType) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            return Err(Error::input("training", "f32 or f64", format!("{dtype:?}")));
        }
        let var = |(param, values): (&crate::plan::Param, &Vec<f32>)| {
            let tensor = Tensor::from_slice(values, param.shape.as_slice(), device)?;
            Var::from_tensor(&tensor.to_dtype(dtype)?)
        };
        let vars: candle_core::Result<_> = plan.params.iter().zip(weights.tensors()).map(var).collect();
        Ok(Self { plan: plan.clone(), vars: vars.map_err(train_error)?, dtype, device: device.clone() })
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// f32 or f64.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where its weights lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The weights, in the plan's order.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// Zeros at position 0 for so many streams.
    pub fn zero_state(&self, streams: usize) -> Result<CandleState> {
        CandleState::zero(&self.plan, streams, self.dtype, &self.device)
    }

    /// The output rows `[S, T, width]` and the state after them.
    pub fn forward(&self, state: &CandleState, input: CandleInput<'_>) -> Result<(Tensor, CandleState)> {
        self.run(state, input, None)
    }

    /// As [`forward`](Self::forward), with dropout.
    pub fn forward_dropout(
        &self,
        state: &CandleState,
        input: CandleInput<'_>,
        dropout: Dropout,
    ) -> Result<(Tensor, CandleState)> {
        self.run(state, input, Some(dropout))
    }

    /// The gradients of the weights, in the plan's order; `None` where the loss does not depend on one.
    pub fn gradients(&self, grads: &GradStore) -> Vec<Option<Tensor>> {
        self.vars.iter().map(|var| grads.get(var).cloned()).collect()
    }

    /// The weights as f32 values.
    pub fn export(&self) -> Result<Weights> {
        let values = |var: &Var| var.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let tensors: candle_core::Result<_> = self.vars.iter().map(values).collect();
        Weights::new(&self.plan, tensors.map_err(train_error)?)
    }

    /// Replaces the weights' values.
    pub fn load(&self, weights: &Weights) -> Result<()> {
        for (var, values) in self.vars.iter().zip(weights.tensors()) {
            let set =
                || var.set(&Tensor::from_slice(values, var.shape(), &self.device)?.to_dtype(self.dtype)?);
            set().map_err(train_error)?;
        }
        Ok(())
    }
}
