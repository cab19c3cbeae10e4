//! The training executor: a [`Plan`] as candle tensors with gradients, in f32, or in f64 for gradient checks.
//!
//! One tensor a value, so that all are there on the way back; a value with no row due in a call is absent.
//! [`CandleModel::record`] leaves a [`Tape`], whose [`backward`](Tape::backward) gives the gradients of the weights, of the
//! initial state and of the input; a signal cut anywhere gives the same outputs, final state and gradients as the whole, to
//! rounding. Each op is a pair of functions, forward and back, in a file of its own: [`scan`](mod@scan), `linear`, `norm`,
//! `embed`, `history` (conv, frame, overlap), `elementwise`. Candle gives tensors, devices and matrix products; its autograd adds every
//! first gradient to zeros, a third of a step's time on a GPU, and is not used.
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
//! let (y, _state, tape) = model.record(&model.zero_state(1)?, CandleInput::Samples(&x), None)?;
//! let grads = tape.backward(&y.ones_like().unwrap(), None)?; // of the sum of y
//! assert_eq!(grads.params.len(), 2); // the taps and the bias
//! # Ok::<(), cascabel::Error>(())
//! ```

mod columns;
#[cfg(feature = "train-cuda")]
pub(crate) mod cuda;
mod discretise;
mod dropout;
mod elementwise;
mod embed;
mod flat;
pub(crate) mod history;
mod linear;
mod math;
mod norm;
mod run;
pub mod scan;
mod segments;
mod state;
mod tape;
mod tensors;
#[cfg(test)]
mod tests;

pub use dropout::Dropout;
pub use flat::Layout;
pub use linear::Products;
pub use segments::Segments;
pub use state::CandleState;
pub use tape::{Gradients, Tape};

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::plan::{ParamId, Plan, Weights};
use crate::{Error, Result};

/// Candle's error as the library's.
pub(crate) fn train_error(error: candle_core::Error) -> Error {
    Error::Train(plain(error.to_string().lines().next().unwrap_or_default()))
}

/// The driver's codes that a user can do something about, and what.
const DRIVER: [(&str, &str); 8] = [
    ("CUDA_ERROR_NO_DEVICE", "no NVIDIA GPU was found"),
    ("CUDA_ERROR_INVALID_DEVICE", "there is no GPU of this number"),
    ("CUDA_ERROR_INSUFFICIENT_DRIVER", "the NVIDIA driver is too old for CUDA 13"),
    ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the NVIDIA driver and its libraries are of different versions"),
    ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the NVIDIA driver is too old for these kernels"),
    (
        "CUDA_ERROR_OUT_OF_MEMORY",
        "the GPU's memory is full: a smaller batch, or segments ([run] segment), need less",
    ),
    ("CUDA_ERROR_ECC_UNCORRECTABLE", "the GPU's memory has failed"),
    ("CUDA_ERROR_LAUNCH_FAILED", "the GPU has failed"),
];

/// The driver's words as a user's.
fn plain(text: &str) -> String {
    match DRIVER.iter().find(|(code, _)| text.contains(code)) {
        Some((code, words)) => format!("{words} ({code})"),
        None => text.to_string(),
    }
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
    let found = |e: candle_core::Error| plain(e.to_string().lines().next().unwrap_or_default());
    Device::new_cuda(ordinal)
        .map_err(|e| Error::input(format!("device {name}"), "an NVIDIA GPU with its driver", found(e)))
}

/// The input rows of a call.
#[derive(Clone, Copy, Debug)]
pub enum CandleInput<'a> {
    /// `[S, T, width]` samples of the model's dtype.
    Samples(&'a Tensor),
    /// `[S, T]` tokens, u32.
    Tokens(&'a Tensor),
}

/// A plan with its weights, side by side in one tensor. Clones share them.
#[derive(Clone, Debug)]
pub struct CandleModel {
    plan: Arc<Plan>,
    layout: Arc<Layout>,
    flat: Tensor,
    params: Vec<Tensor>,
    products: Products,
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
        let layout = Layout::new(plan);
        let numbers = layout.join(weights.tensors());
        let flat = Tensor::from_vec(numbers, layout.len(), device).and_then(|flat| flat.to_dtype(dtype));
        let flat = flat.map_err(train_error)?;
        let params = layout.split(plan, &flat).map_err(train_error)?;
        Ok(Self {
            plan: Arc::new(plan.clone()),
            layout: Arc::new(layout),
            flat,
            params,
            products: Products::F32,
        })
    }

    /// The same model with its products as asked for, where it lies on a GPU.
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where each weight lies in [`flat`](Self::flat).
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// f32 or f64.
    pub fn dtype(&self) -> DType {
        self.flat.dtype()
    }

    /// Where its weights lie.
    pub fn device(&self) -> &Device {
        self.flat.device()
    }

    /// A weight.
    pub fn param(&self, id: ParamId) -> &Tensor {
        &self.params[id.0]
    }

    /// All weights.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Replaces all weights.
    pub fn set_flat(&mut self, flat: Tensor) -> Result<()> {
        let fits = (flat.dims(), flat.dtype()) == (self.flat.dims(), self.dtype());
        if !fits || !flat.device().same_device(self.device()) {
            let shape =
                |t: &Tensor| format!("{:?} of {:?} on {:?}", t.dims(), t.dtype(), t.device().location());
            return Err(Error::input("weights", shape(&self.flat), shape(&flat)));
        }
        self.params = self.layout.split(&self.plan, &flat).map_err(train_error)?;
        self.flat = flat;
        Ok(())
    }

    /// Zeros at position 0 for so many streams.
    pub fn zero_state(&self, streams: usize) -> Result<CandleState> {
        CandleState::zero(&self.plan, streams, self.dtype(), self.device())
    }

    /// The output rows `[S, T, width]` and the state after them.
    pub fn forward(&self, state: &CandleState, input: CandleInput<'_>) -> Result<(Tensor, CandleState)> {
        let (y, end, _) = self.run(state, input, None, false)?;
        Ok((y, end))
    }

    /// As [`forward`](Self::forward), with dropout if asked for, and with the tape that leads back.
    pub fn record(
        &self,
        state: &CandleState,
        input: CandleInput<'_>,
        dropout: Option<Dropout>,
    ) -> Result<(Tensor, CandleState, Tape)> {
        self.run(state, input, dropout, true)
    }

    /// The weights as f32 values.
    pub fn export(&self) -> Result<Weights> {
        let numbers = self.flat.to_dtype(DType::F32).and_then(|flat| flat.to_vec1::<f32>());
        Weights::new(&self.plan, self.layout.part(&numbers.map_err(train_error)?))
    }

    /// Replaces the weights' values.
    pub fn load(&mut self, weights: &Weights) -> Result<()> {
        let flat = Tensor::from_vec(self.layout.join(weights.tensors()), self.layout.len(), self.device());
        self.set_flat(flat.and_then(|flat| flat.to_dtype(self.dtype())).map_err(train_error)?)
    }
}
