//! What a stream carries, as a value: saved, restored, cloned, compared, written to bytes.
//!
//! The canonical form, the same for every executor: the position in input rows, and for each state slot of the plan its
//! `[rows, width]` f32 numbers. A history slot holds the last rows its op has seen, oldest first, zeros before the start; a
//! scan's slot holds h (complex: N real rows, then N imaginary rows).

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::plan::Plan;
use crate::{Error, Result};

/// Keys of a file's metadata: the position and the plan's hash; a word of the caller's.
const MARK: &str = "cascabel.state";
const WORD: &str = "cascabel.word";

/// The state of one stream under one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    plan: [u8; 32],
    /// Input rows consumed.
    pub position: u64,
    /// One `[rows, width]` block a slot, in the plan's order.
    pub slots: Vec<Vec<f32>>,
}

impl State {
    /// Zeros at position 0: where training starts.
    pub fn zero(plan: &Plan) -> Self {
        let slots = plan.states.iter().map(|s| vec![0.0; s.len()]).collect();
        Self { plan: plan.hash(), position: 0, slots }
    }

    /// A state from its parts, checked against the plan.
    pub fn new(plan: &Plan, position: u64, slots: Vec<Vec<f32>>) -> Result<Self> {
        let state = Self { plan: plan.hash(), position, slots };
        state.check(plan)?;
        Ok(state)
    }

    /// Whether this state fits a plan: same structure, every slot of the right size, all numbers finite.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        if self.plan != plan.hash() {
            return Err(Error::input("state", "the state of this model", "one of another model's plan"));
        }
        if self.slots.len() != plan.states.len() {
            return Err(Error::input(
                "state",
                format!("{} slots", plan.states.len()),
                self.slots.len().to_string(),
            ));
        }
        for (slot, values) in plan.states.iter().zip(&self.slots) {
            if values.len() != slot.len() || values.iter().any(|v| !v.is_finite()) {
                let got = format!("{} numbers, or one not finite", values.len());
                return Err(Error::input(
                    format!("state {}", slot.name),
                    format!("{} finite numbers", slot.len()),
                    got,
                ));
            }
        }
        Ok(())
    }

    /// The same contents at position 0: a state to begin from. Meaningful where the position is divisible by the plan's
    /// longest period, so that no phase changes.
    pub fn at_origin(mut self) -> Self {
        self.position = 0;
        self
    }

    /// The largest difference of any number, relative to the largest number of its slot (at least 10⁻⁶).
    pub fn distance(&self, other: &Self) -> f32 {
        let slot = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            let scale = a.iter().chain(b).fold(1e-6f32, |m, x| m.max(x.abs()));
            a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / scale
        };
        self.slots.iter().zip(&other.slots).map(slot).fold(0.0, f32::max)
    }

    /// The state as a safetensors file in memory: one tensor a slot, the position and the plan's hash in the metadata.
    pub fn to_bytes(&self, plan: &Plan) -> Result<Vec<u8>> {
        Self::all_to_bytes(&[self], plan, None)
    }

    /// States of one position in one file, the tensors of a slot on top of each other; with a word of the caller's, which
    /// [`word`](Self::word) finds.
    pub fn all_to_bytes(states: &[&Self], plan: &Plan, word: Option<String>) -> Result<Vec<u8>> {
        states.iter().try_for_each(|state| state.check(plan))?;
        let position = states.first().map_or(0, |state| state.position);
        if let Some(other) = states.iter().find(|state| state.position != position) {
            let expected = format!("all at position {position}");
            return Err(Error::input("states", expected, other.position.to_string()));
        }
        let bytes = |slot: usize| {
            let values = states.iter().filter_map(|state| state.slots.get(slot)).flatten();
            values.flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
        };
        let bytes: Vec<Vec<u8>> = (0..plan.states.len()).map(bytes).collect();
        let mut views = Vec::new();
        for (i, (slot, data)) in plan.states.iter().zip(&bytes).enumerate() {
            let view = TensorView::new(Dtype::F32, vec![states.len(), slot.rows, slot.width], data);
            views.push((format!("{i:04}.{}", slot.name), view.map_err(broken)?));
        }
        let hash: String = plan.hash().iter().map(|b| format!("{b:02x}")).collect();
        let meta = [(MARK.to_string(), format!("{position} {hash}"))];
        let word = word.map(|word| (WORD.to_string(), word));
        safetensors::serialize(views, Some(meta.into_iter().chain(word).collect())).map_err(broken)
    }

    /// The word that [`all_to_bytes`](Self::all_to_bytes) put in.
    pub fn word(bytes: &[u8]) -> Result<Option<String>> {
        let (_, meta) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        Ok(meta.metadata().as_ref().and_then(|m| m.get(WORD)).cloned())
    }

    /// A state written by [`to_bytes`](Self::to_bytes), checked against the plan.
    pub fn from_bytes(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let one = Self::all_from_bytes(plan, bytes, 1)?.pop();
        one.ok_or_else(|| Error::input("state", "one", "none"))
    }

    /// So many states written by [`all_to_bytes`](Self::all_to_bytes), checked against the plan.
    pub fn all_from_bytes(plan: &Plan, bytes: &[u8], count: usize) -> Result<Vec<Self>> {
        let (_, meta) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        let mark = meta.metadata().as_ref().and_then(|m| m.get(MARK)).cloned().unwrap_or_default();
        let hash: String = plan.hash().iter().map(|b| format!("{b:02x}")).collect();
        let position = match mark.split_once(' ') {
            Some((position, its)) if its == hash => position.parse().ok(),
            _ => None,
        };
        let Some(position) = position else {
            let got = if mark.is_empty() { "no saved state" } else { "that of another model" };
            return Err(Error::input("state", "the state of this model", got));
        };
        let mut states = vec![Vec::new(); count];
        for (i, slot) in plan.states.iter().enumerate() {
            let view = tensors.tensor(&format!("{i:04}.{}", slot.name)).map_err(broken)?;
            if view.dtype() != Dtype::F32 {
                return Err(Error::input(
                    format!("state {}", slot.name),
                    "f32",
                    format!("{:?}", view.dtype()),
                ));
            }
            let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            let values: Vec<f32> = view.data().chunks_exact(4).map(number).collect();
            if values.len() != count * slot.len() {
                let (expected, got) = (count * slot.len(), values.len());
                return Err(Error::input(
                    format!("state {}", slot.name),
                    format!("{expected} numbers"),
                    got.to_string(),
                ));
            }
            // A slot may be of no rows.
            for (k, slots) in states.iter_mut().enumerate() {
                slots.push(values[k * slot.len()..(k + 1) * slot.len()].to_vec());
            }
        }
        states.into_iter().map(|slots| Self::new(plan, position, slots)).collect()
    }
}

fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::input("state", "a whole safetensors file of a saved state", error.to_string())
}
