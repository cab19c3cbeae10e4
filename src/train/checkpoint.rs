//! A run's memory: weights, optimiser, position in the data, in one safetensors file that is replaced whole.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::begins;
use crate::audio::write_whole;
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

const KEY: &str = "cascabel.checkpoint";

/// Where a run stands. The next example's index follows from the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps begun, skipped ones included.
    pub step: u64,
    /// Steps that the optimiser took.
    pub optimiser_steps: u64,
    /// The recipe's text.
    pub recipe: String,
    /// Seconds spent so far.
    pub seconds: f64,
    /// What the card says of the model that the run began with, if with one.
    #[serde(default)]
    pub begun_from: String,
}

/// The states of [`Begins`](super::begins::Begins), by name.
pub type Heard = HashMap<String, Vec<f32>>;

/// Writes a checkpoint, atomically; `heard` are the states that examples may begin from.
pub fn save(
    path: &Path,
    plan: &Plan,
    weights: &Weights,
    optimiser: &AdamW,
    heard: &Heard,
    progress: &Progress,
) -> Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    for (param, values) in plan.params.iter().zip(weights.tensors()) {
        tensors.push((format!("w.{}", param.name), bytes(values)));
    }
    tensors.extend(optimiser.state().map(|(name, values)| (name, bytes(values))));
    tensors.extend(heard.iter().map(|(name, values)| (name.clone(), bytes(values))));
    let view = |(name, data)| -> Result<_> {
        let data: &Vec<u8> = data;
        Ok((
            name,
            TensorView::new(Dtype::F32, vec![data.len() / 4], data)
                .map_err(|e| broken(path, &e.to_string()))?,
        ))
    };
    let views = tensors.iter().map(|(name, data)| view((name.clone(), data))).collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string(progress).map_err(|e| broken(path, &e.to_string()))?;
    let meta = HashMap::from([(KEY.to_string(), text)]);
    let file = safetensors::serialize(views, Some(meta)).map_err(|e| broken(path, &e.to_string()))?;
    write_whole(path, |to| to.write_all(&file).map_err(|e| Error::io("write", path, e)))
}

/// Reads a checkpoint back into weights and optimiser; on an error neither has changed. The states come by name.
pub fn load(
    path: &Path,
    plan: &Plan,
    weights: &mut Weights,
    optimiser: &mut AdamW,
) -> Result<(Progress, Heard)> {
    let file = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let (_, meta) = SafeTensors::read_metadata(&file).map_err(|e| broken(path, &e.to_string()))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|e| broken(path, &e.to_string()))?;
    let text =
        meta.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| broken(path, "no progress in it"))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| broken(path, &e.to_string()))?;
    let numbers = |data: TensorView<'_>| {
        data.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>()
    };
    let find = |name: &str| tensors.tensor(name).ok().map(numbers);
    let named =
        plan.params.iter().map(|p| find(&format!("w.{}", p.name)).ok_or_else(|| broken(path, &p.name)));
    let loaded = Weights::new(plan, named.collect::<Result<_>>()?)?;
    optimiser.restore(progress.optimiser_steps, find)?;
    *weights = loaded;
    let heard = tensors.iter().filter(|(name, _)| name.starts_with(begins::PREFIX));
    Ok((progress, heard.map(|(name, data)| (name.to_string(), numbers(data))).collect()))
}

fn broken(path: &Path, got: &str) -> Error {
    Error::input(format!("checkpoint {}", path.display()), "a whole checkpoint of this recipe's model", got)
}
