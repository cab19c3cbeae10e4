//! What a batch of streams carries between calls of the training executor.

use candle_core::{DType, Device, Result as Candle, Tensor};

use super::train_error;
use crate::exec::State;
use crate::plan::Plan;
use crate::{Error, Result};

/// One tensor `[S, rows, width]` a state slot of the plan; all streams of a batch share one position.
#[derive(Clone, Debug)]
pub struct CandleState {
    /// The slots, in the plan's order, in the canonical form of [`State`].
    pub slots: Vec<Tensor>,
    /// Input rows consumed.
    pub position: u64,
}

impl CandleState {
    /// Zeros at position 0.
    pub fn zero(plan: &Plan, streams: usize, dtype: DType, device: &Device) -> Result<Self> {
        let slot = |s: &crate::plan::StateSlot| Tensor::zeros((streams, s.rows, s.width), dtype, device);
        let slots: Candle<_> = plan.states.iter().map(slot).collect();
        Ok(Self { slots: slots.map_err(train_error)?, position: 0 })
    }

    /// The states of some streams, all at one position.
    pub fn stack(plan: &Plan, states: &[State], dtype: DType) -> Result<Self> {
        let Some(first) = states.first() else {
            return Err(Error::input("states", "at least one", "none"));
        };
        for state in states {
            state.check(plan)?;
            if state.position != first.position {
                let expected = format!("one position for all streams ({})", first.position);
                return Err(Error::input("states", expected, state.position.to_string()));
            }
        }
        let slot = |(i, slot): (usize, &crate::plan::StateSlot)| {
            let numbers: Vec<f32> = states.iter().flat_map(|s| &s.slots[i]).copied().collect();
            Tensor::from_vec(numbers, (states.len(), slot.rows, slot.width), &Device::Cpu)?.to_dtype(dtype)
        };
        let slots: Candle<_> = plan.states.iter().enumerate().map(slot).collect();
        Ok(Self { slots: slots.map_err(train_error)?, position: first.position })
    }

    /// One stream's state in the canonical form.
    pub fn stream(&self, plan: &Plan, stream: usize) -> Result<State> {
        let slot = |s: &Tensor| s.get(stream)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let slots: Candle<Vec<_>> = self.slots.iter().map(slot).collect();
        State::new(plan, self.position, slots.map_err(train_error)?)
    }

    /// How many streams.
    pub fn streams(&self) -> Option<usize> {
        self.slots.first().and_then(|s| s.dims().first().copied())
    }
}
