//! The optimiser on the GPU where the model lies: all weights in one pass over flat tensors, nothing comes to the host but the
//! gradient's norm.
//!
//! [`AdamW`] is the definition, and keeps the state in checkpoints; `kernels/adamw.cu` is this step of it.

use candle_core::{Result as Candle, Tensor};

use super::adamw::{AdamW, AdamWSpec, Group, Pace, StepReport};
use crate::Result;
use crate::exec::candle::cuda::call::{Kernels, kernels, launch, room, tensor, with_all};
use crate::exec::candle::{CandleModel, Layout, train_error};

const KERNELS: Kernels = kernels!("adamw");

/// Blocks of both kernels.
const BLOCKS: usize = 264;

/// An optimiser's state on a device.
pub struct Learner {
    spec: AdamWSpec,
    steps: u64,
    /// m, v and the moving average, laid out as the weights.
    state: [Tensor; 3],
    /// Of each weight: its rate relative to the schedule's, and 1 where it decays.
    rates: Tensor,
    decays: Tensor,
}

impl Learner {
    /// Goes on from where `optimiser` stands, for the weights of `model`.
    pub fn new(optimiser: &AdamW, model: &CandleModel) -> Result<Self> {
        let layout = model.layout();
        let flat = |parts: Vec<Vec<f32>>| {
            Tensor::from_vec(layout.join(&parts), layout.len(), model.device()).map_err(train_error)
        };
        let each = |of: &dyn Fn(&Group) -> Vec<f32>| flat(optimiser.groups().iter().map(of).collect());
        let kind = |kind: usize| each(&|group| group.state()[kind].to_vec());
        let alike = |group: &Group, number: f32| vec![number; group.ema().len()];
        Ok(Self {
            spec: optimiser.spec().clone(),
            steps: optimiser.steps(),
            state: [kind(0)?, kind(1)?, kind(2)?],
            rates: each(&|group| alike(group, group.pace().1))?,
            decays: each(&|group| alike(group, f32::from(group.pace().0)))?,
        })
    }

    /// Moves the weights along `sum`, a gradient summed over `examples`, at rate `rate`.
    pub fn step(
        &mut self,
        model: &mut CandleModel,
        sum: &Tensor,
        rate: f32,
        examples: usize,
    ) -> Result<StepReport> {
        let (weights, state, norm) = self.moved(model.flat(), sum, rate, examples).map_err(train_error)?;
        model.set_flat(weights)?;
        self.state = state;
        let norm = norm.to_vec1::<f32>().map_err(train_error)?;
        let norm = norm.first().copied().map_or(f64::NAN, f64::from);
        let clip = f64::from(self.spec.clip);
        let skipped = !norm.is_finite();
        self.steps += u64::from(!skipped);
        Ok(StepReport { norm, clipped: !skipped && clip > 0.0 && norm > clip, skipped })
    }

    /// The weights, the state and the gradient's norm after a step.
    fn moved(
        &self,
        weights: &Tensor,
        sum: &Tensor,
        rate: f32,
        examples: usize,
    ) -> Candle<(Tensor, [Tensor; 3], Tensor)> {
        let (spec, pace, count) = (&self.spec, Pace::at(&self.spec, self.steps + 1), weights.elem_count());
        let [m, v, ema] = &self.state;
        with_all(
            [sum, weights, m, v, ema, &self.rates, &self.decays],
            |device, [g, w, m, v, ema, rates, decays]| {
                let mut part = room(device, BLOCKS)?;
                let grid = ((BLOCKS, 1), (256, 1));
                launch(device, (&KERNELS, "square_sums"), grid, &[&g], &mut [&mut part], &[count])?;
                let [mut w1, mut m1, mut v1, mut ema1] =
                    [room(device, count)?, room(device, count)?, room(device, count)?, room(device, count)?];
                let mut norm = room(device, 1)?;
                let bits = |x: f32| x.to_bits() as usize;
                let sizes = [
                    count,
                    BLOCKS,
                    bits(1.0 / examples as f32),
                    bits(spec.clip),
                    bits(spec.betas[0]),
                    bits(spec.betas[1]),
                    bits(spec.eps),
                    bits(spec.weight_decay),
                    bits(rate),
                    bits(pace.bias1 as f32),
                    bits(pace.bias2),
                    bits(pace.average),
                ];
                let inputs = [&g, &part.slice(..), &w, &m, &v, &ema, &rates, &decays];
                let results = &mut [&mut w1, &mut m1, &mut v1, &mut ema1, &mut norm];
                launch(device, (&KERNELS, "adamw"), grid, &inputs, results, &sizes)?;
                let of = |x| tensor(x, device, count);
                Ok((of(w1), [of(m1), of(v1), of(ema1)], tensor(norm, device, 1)))
            },
        )
    }

    /// Brings the state back to where checkpoints are made from.
    pub fn read_into(&self, layout: &Layout, optimiser: &mut AdamW) -> Result<()> {
        let numbers = |x: &Tensor| x.to_vec1::<f32>().map(|x| layout.part(&x)).map_err(train_error);
        let [m, v, ema] = &self.state;
        optimiser.take(self.steps, [numbers(m)?, numbers(v)?, numbers(ema)?]);
        Ok(())
    }
}
