//! A run's memory: weights, optimiser, position in the data, in safetensors that are replaced whole.
//!
//! One file, NAME.checkpoint.safetensors, or that one and parts of limited size beside it, NAME.checkpoint.a1.safetensors and so on.
//! The next checkpoint's parts are the set b, so that the old one is whole until the first file, which names the set, is replaced.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::begins;
use crate::audio::write_whole;
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

const KEY: &str = "cascabel.checkpoint";
const PARTS: &str = "cascabel.parts";
/// In a part: the step of the checkpoint that it belongs to.
const STEP: &str = "cascabel.step";

/// The parts beside a checkpoint's first file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Parts {
    set: Set,
    count: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Set {
    #[default]
    A,
    B,
}

impl Set {
    /// Part `number`, from 1 on, of the checkpoint at `path`.
    fn part(self, path: &Path, number: usize) -> PathBuf {
        let letter = if self == Self::A { 'a' } else { 'b' };
        path.with_extension(format!("{letter}{number}.safetensors"))
    }

    fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    /// Removes the parts after `kept`.
    fn remove_after(self, path: &Path, kept: usize) {
        (kept + 1..).find(|number| std::fs::remove_file(self.part(path, *number)).is_err());
    }
}

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

/// Writes a checkpoint, atomically; `heard` are the states that examples may begin from. Files have at most `limit` bytes of
/// numbers, or one tensor's.
pub fn save(
    path: &Path,
    plan: &Plan,
    weights: &Weights,
    optimiser: &AdamW,
    heard: &Heard,
    progress: &Progress,
    limit: usize,
) -> Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    for (param, values) in plan.params.iter().zip(weights.tensors()) {
        tensors.push((format!("w.{}", param.name), bytes(values)));
    }
    tensors.extend(optimiser.state().map(|(name, values)| (name, bytes(values))));
    tensors.extend(heard.iter().map(|(name, values)| (name.clone(), bytes(values))));
    let (first, more) = divided(&tensors, limit);
    let set = if more.is_empty() { Set::A } else { free(path)? };
    for (number, tensors) in (1..).zip(&more) {
        let meta = HashMap::from([(STEP.to_string(), progress.step.to_string())]);
        write(&set.part(path, number), tensors, meta)?;
    }
    let text = |of: serde_json::Result<String>| of.map_err(|e| broken(path, &e.to_string()));
    let mut meta = HashMap::from([(KEY.to_string(), text(serde_json::to_string(progress))?)]);
    let parts = Parts { set, count: more.len() };
    if parts.count > 0 {
        meta.insert(PARTS.to_string(), text(serde_json::to_string(&parts))?);
    }
    write(path, first, meta)?;
    set.remove_after(path, parts.count);
    set.other().remove_after(path, 0);
    Ok(())
}

type Named = (String, Vec<u8>);

/// Runs of tensors of at most `limit` bytes, or of one tensor.
fn divided(tensors: &[Named], limit: usize) -> (&[Named], Vec<&[Named]>) {
    let (mut runs, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (i, (_, data)) in tensors.iter().enumerate() {
        if i > from && bytes + data.len() > limit {
            runs.push(&tensors[from..i]);
            (from, bytes) = (i, 0);
        }
        bytes += data.len();
    }
    runs.push(&tensors[from..]);
    (runs.remove(0), runs)
}

/// The set of parts that the checkpoint there, if there is one, does not have.
fn free(path: &Path) -> Result<Set> {
    let file = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Set::A),
        file => file.map_err(|e| Error::io("read", path, e))?,
    };
    // What is no checkpoint has no parts.
    let there = parts(path, &file).unwrap_or_default();
    Ok(if there.count > 0 { there.set.other() } else { Set::A })
}

/// Writes a file, and waits until the disk has it: what it replaces may go then.
fn write(path: &Path, tensors: &[Named], meta: HashMap<String, String>) -> Result<()> {
    let failed = |e: safetensors::SafeTensorError| broken(path, &e.to_string());
    let views = tensors.iter().map(|(name, data)| {
        Ok((name, TensorView::new(Dtype::F32, vec![data.len() / 4], data).map_err(failed)?))
    });
    let file = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(meta)).map_err(failed)?;
    write_whole(path, |to| to.write_all(&file).map_err(|e| Error::io("write", path, e)))?;
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|e| Error::io("write", path, e))
}

/// What the first file says of parts beside it.
fn parts(path: &Path, file: &[u8]) -> Result<Parts> {
    let (_, meta) = SafeTensors::read_metadata(file).map_err(|e| broken(path, &e.to_string()))?;
    let text = meta.metadata().as_ref().and_then(|m| m.get(PARTS));
    let read = |text: &String| serde_json::from_str(text).map_err(|e| broken(path, &e.to_string()));
    text.map_or(Ok(Parts::default()), read)
}

/// Adds the numbers of a file's tensors.
fn read(path: &Path, file: &[u8], found: &mut HashMap<String, Vec<f32>>) -> Result<()> {
    let tensors = SafeTensors::deserialize(file).map_err(|e| broken(path, &e.to_string()))?;
    let numbers = |data: TensorView<'_>| {
        data.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>()
    };
    found.extend(tensors.iter().map(|(name, data)| (name.to_string(), numbers(data))));
    Ok(())
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
    let text =
        meta.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| broken(path, "no progress in it"))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| broken(path, &e.to_string()))?;
    let mut found = HashMap::new();
    read(path, &file, &mut found)?;
    let parts = parts(path, &file)?;
    for number in 1..=parts.count {
        let path = parts.set.part(path, number);
        let file = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let (_, meta) = SafeTensors::read_metadata(&file).map_err(|e| broken(&path, &e.to_string()))?;
        let step = meta.metadata().as_ref().and_then(|m| m.get(STEP));
        if step != Some(&progress.step.to_string()) {
            return Err(broken(&path, "a part of another step's"));
        }
        read(&path, &file, &mut found)?;
    }
    let find = |name: &str| found.get(name).cloned();
    let named =
        plan.params.iter().map(|p| find(&format!("w.{}", p.name)).ok_or_else(|| broken(path, &p.name)));
    let loaded = Weights::new(plan, named.collect::<Result<_>>()?)?;
    optimiser.restore(progress.optimiser_steps, find)?;
    *weights = loaded;
    found.retain(|name, _| name.starts_with(begins::PREFIX));
    Ok((progress, found))
}

fn broken(path: &Path, got: &str) -> Error {
    Error::input(format!("checkpoint {}", path.display()), "a whole checkpoint of this recipe's model", got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Act, PlanBuilder};
    use crate::train::adamw::{AdamWSpec, Group};

    struct Run {
        plan: Plan,
        weights: Weights,
        optimiser: AdamW,
        heard: Heard,
        progress: Progress,
    }

    impl Run {
        fn new(seed: u64) -> Result<Self> {
            let mut b = PlanBuilder::new();
            let x = b.samples(3);
            let y = b.linear("a", x, 40, true, Act::Tanh)?;
            let y = b.linear("b", y, 7, true, Act::None)?;
            let plan = b.build(y)?;
            let weights = Weights::random(&plan, seed);
            let named = plan.params.iter().zip(weights.tensors());
            let groups = named.map(|(param, values)| Group::new(&param.name, values)).collect();
            let optimiser = AdamW::new(&AdamWSpec::default(), groups)?;
            let heard = Heard::from([(format!("{}x", begins::PREFIX), vec![seed as f32; 33])]);
            let (recipe, begun_from) = ("text".into(), String::new());
            let progress = Progress { step: seed, optimiser_steps: seed, recipe, seconds: 1.5, begun_from };
            Ok(Self { plan, weights, optimiser, heard, progress })
        }

        fn save(&self, path: &Path, limit: usize) -> Result<()> {
            save(path, &self.plan, &self.weights, &self.optimiser, &self.heard, &self.progress, limit)
        }

        fn load(&mut self, path: &Path) -> Result<()> {
            (self.progress, self.heard) = load(path, &self.plan, &mut self.weights, &mut self.optimiser)?;
            Ok(())
        }

        fn is(&self, other: &Self) -> bool {
            let state = |run: &Self| run.optimiser.state().map(|(_, x)| x.to_vec()).collect::<Vec<_>>();
            self.weights.tensors() == other.weights.tensors()
                && state(self) == state(other)
                && (&self.heard, &self.progress) == (&other.heard, &other.progress)
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn parts_are_as_one_file_and_an_old_checkpoint_is_whole_until_the_new_one_is() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|e| Error::io("create", Path::new("folder"), e))?;
        let path = folder.path().join("m.checkpoint.safetensors");
        let (first, second) = (Run::new(1)?, Run::new(2)?);
        let mut read = Run::new(9)?;
        first.save(&path, 600)?;
        let of_a = files(folder.path());
        assert!(of_a.len() > 3 && of_a.contains(&"m.checkpoint.a1.safetensors".to_string()), "{of_a:?}");
        for part in of_a.iter().filter(|name| name.contains(".a")) {
            let len = std::fs::metadata(folder.path().join(part)).map(|m| m.len()).unwrap_or(0);
            assert!(len < 600 + 1000, "{part}: {len}");
        }
        read.load(&path)?;
        assert!(read.is(&first));

        // A folder where a part of the next set goes: it is not written to its end.
        let away = folder.path().join("m.checkpoint.b3.safetensors");
        std::fs::create_dir(&away).map_err(|e| Error::io("create", &away, e))?;
        assert!(second.save(&path, 600).is_err());
        read.load(&path)?;
        assert!(read.is(&first));
        std::fs::remove_dir(&away).map_err(|e| Error::io("remove", &away, e))?;

        second.save(&path, 600)?;
        let of_b = files(folder.path());
        assert!(of_b.len() == of_a.len() && of_b.iter().all(|name| !name.contains(".a")), "{of_b:?}");
        read.load(&path)?;
        assert!(read.is(&second));

        let part = folder.path().join("m.checkpoint.b2.safetensors");
        std::fs::rename(&part, folder.path().join("away")).map_err(|e| Error::io("move", &part, e))?;
        let told = first_line(read.load(&path));
        assert!(told.contains("b2") && read.is(&second), "{told}");
        std::fs::rename(folder.path().join("away"), &part).map_err(|e| Error::io("move", &part, e))?;

        first.save(&path, usize::MAX)?;
        assert_eq!(files(folder.path()), ["m.checkpoint.safetensors"]);
        read.load(&path)?;
        assert!(read.is(&first));
        Ok(())
    }

    fn first_line(result: Result<()>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }
}
