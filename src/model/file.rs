//! The model file: one `.safetensors` file with everything a model needs.
//!
//! Its metadata has one key, `cascabel`, whose value is a JSON document:
//!
//! ```text
//! {"format_version": 1, "kind": "filter", "rate": 16000, "channels": 1, "latency": 64,     facts, for readers
//!  "card": {"name", "recipe", "data", "licence", "seed", "commit", "figures"},            how it was made
//!  "config": {"kind": "filter", …}}                                                       what it is
//! ```
//!
//! The tensors are the plan's parameters by name, and optionally `settled.{slot}` `[rows, width]` for every state slot that holds
//! anything. A tensor is written in f16 if that holds each of its numbers exactly, else in f32; f16, bf16 and f32 are read. A file is checked whole before it is used: every tensor present,
//! none besides, each of the right shape, type and finite. Saving is atomic and deterministic: the same model gives the same
//! bytes.
//!
//! ```
//! use cascabel::model::{Card, Config, Model};
//! use cascabel::plan::Weights;
//! let config: Config = serde_json::from_str(
//!     r#"{"kind": "generator", "rate": 16000,
//!         "tiers": [{"d_model": 4, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 2}}]}"#).unwrap();
//! let weights = Weights::random(&config.plan()?, 7);
//! let model = Model::new(config, weights, Card { name: "tiny".into(), seed: 7, ..Card::default() })?;
//! let same = Model::from_bytes(&model.to_bytes()?, "tiny")?;
//! assert_eq!((same.weights, same.card), (model.weights, model.card));
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Config, tensors};
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

/// The format written, and the only one read.
pub const FORMAT_VERSION: u32 = 1;
const KEY: &str = "cascabel";
const SETTLED: &str = "settled.";

/// A model, whole and checked.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is.
    pub config: Config,
    /// What it computes.
    pub plan: Plan,
    /// Its parameters, in the plan's order.
    pub weights: Weights,
    /// How it was made.
    pub card: Card,
    /// The state after long silence: one block for each of the plan's state slots.
    pub settled: Option<Vec<Vec<f32>>>,
}

/// How a model was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// The recipe it was trained by, as text; empty if imported.
    pub recipe: String,
    /// The data it was trained on.
    pub data: String,
    /// The licence of the weights, and what the data's licences mean for them.
    pub licence: String,
    /// The seed.
    pub seed: u64,
    /// The commit of the program that trained it.
    pub commit: String,
    /// Its figures by name.
    pub figures: BTreeMap<String, f64>,
}

/// Only the version, to tell a newer file from a damaged one.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format_version: u32,
    kind: String,
    rate: Option<u32>,
    channels: Option<usize>,
    latency: usize,
    card: Card,
    config: Config,
}

impl Document {
    fn new(config: &Config, card: &Card) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            kind: config.kind().into(),
            rate: config.rate(),
            channels: config.channels(),
            latency: config.latency(),
            card: card.clone(),
            config: config.clone(),
        }
    }

    fn read(text: &str) -> Result<Self> {
        let wrong = |e: serde_json::Error| {
            Error::input("metadata", "a JSON document of format version 1", e.to_string())
        };
        let Version { format_version } = serde_json::from_str(text).map_err(wrong)?;
        if format_version != FORMAT_VERSION {
            let age = if format_version > FORMAT_VERSION { "a newer" } else { "an older" };
            let expected = format!("{FORMAT_VERSION} ({age} file needs {age} cascabel)");
            return Err(Error::input("format version", expected, format_version.to_string()));
        }
        let document: Self = serde_json::from_str(text).map_err(wrong)?;
        let facts = Self::new(&document.config, &document.card);
        if document != facts {
            let show = |d: &Self| {
                format!("{} at {:?} Hz, {:?} channels, latency {}", d.kind, d.rate, d.channels, d.latency)
            };
            return Err(Error::input("metadata", show(&facts), show(&document)));
        }
        Ok(document)
    }
}

impl Model {
    /// A model from its parts, with no settled state; the weights must fit the configuration's plan.
    pub fn new(config: Config, weights: Weights, card: Card) -> Result<Self> {
        let plan = config.plan()?;
        let lengths: Vec<_> = weights.tensors().iter().map(Vec::len).collect();
        let expected: Vec<_> = plan.params.iter().map(|p| p.len()).collect();
        if lengths != expected {
            let what = "weights of the configuration's plan";
            return Err(Error::input("model", what, format!("{} other tensors", lengths.len())));
        }
        Ok(Self { config, plan, weights, card, settled: None })
    }

    /// Reads and checks a model file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read model", path, e))?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// Checks the bytes of a model file; `name` stands in the errors.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        Self::read(bytes).map_err(|e| e_in(name, e))
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let (file, metadata) = tensors::open(bytes)?;
        let Some(text) = metadata.metadata().as_ref().and_then(|m| m.get(KEY)) else {
            let got = "none (`cascabel import` reads Mamba checkpoints)";
            return Err(Error::input("metadata", format!("the key {KEY}"), got));
        };
        let Document { card, config, .. } = Document::read(text)?;
        let plan = config.plan()?;
        let values = plan.params.iter().map(|p| tensor(&file, &p.name, &p.shape)).collect::<Result<_>>()?;
        let weights = Weights::new(&plan, values)?;
        let settled = settled(&file, &plan)?;
        let slots = plan.states.iter().filter(|s| settled.is_some() && !s.is_empty()).count();
        if file.len() != plan.params.len() + slots {
            let known = |name: &str| {
                let slot = |wanted: &str| plan.states.iter().any(|s| s.name == wanted);
                plan.find_param(name).is_some() || name.strip_prefix(SETTLED).is_some_and(slot)
            };
            let extra = file.names().into_iter().filter(|name| !known(name)).min().unwrap_or("one twice");
            return Err(Error::input("tensors", format!("{} of the config", plan.params.len()), extra));
        }
        Ok(Self { config, plan, weights, card, settled })
    }

    /// The bytes of the model file; a function of the model alone.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if let Some((name, value)) = self.card.figures.iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::input(format!("figure {name}"), "a finite number", value.to_string()));
        }
        let document = serde_json::to_string(&Document::new(&self.config, &self.card))
            .map_err(|e| Error::input("model card", "text and numbers", e.to_string()))?;
        let params = self.plan.params.iter().zip(self.weights.tensors());
        let mut named: Vec<(String, Vec<usize>, &[f32])> =
            params.map(|(p, values)| (p.name.clone(), p.shape.clone(), values.as_slice())).collect();
        if let Some(settled) = &self.settled {
            let slots = self.plan.states.iter().zip(settled).filter(|(slot, _)| !slot.is_empty());
            named.extend(slots.map(|(slot, values)| {
                (format!("{SETTLED}{}", slot.name), vec![slot.rows, slot.width], values.as_slice())
            }));
            if settled.len() != self.plan.states.len() {
                let expected = format!("{} slots", self.plan.states.len());
                return Err(Error::input("settled state", expected, settled.len().to_string()));
            }
        }
        let mut bytes = Vec::with_capacity(named.len());
        for (name, _, values) in &named {
            tensors::finite(name, values)?;
            bytes.push(tensors::bytes(values));
        }
        let wrong = |e: safetensors::SafeTensorError| {
            Error::input("model", "tensors that fit the plan", e.to_string())
        };
        let mut views = Vec::with_capacity(named.len());
        for ((name, shape, _), (dtype, bytes)) in named.into_iter().zip(&bytes) {
            views.push((name, TensorView::new(*dtype, shape, bytes).map_err(wrong)?));
        }
        safetensors::serialize(views, Some(HashMap::from([(KEY.to_string(), document)]))).map_err(wrong)
    }

    /// Writes the model file under a temporary name beside `path` and renames it when whole.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_bytes().map_err(|e| e_in(&path.display().to_string(), e))?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = |e: std::io::Error| Error::io("write model", path, e);
        let mut file = temporary().tempfile_in(folder).map_err(write)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(write)?;
        file.persist(path).map_err(|e| Error::io("rename model to", path, e.error))?;
        Ok(())
    }

    /// Samples a second, of models of sound.
    pub fn rate(&self) -> Option<u32> {
        self.config.rate()
    }

    /// Frames of sound by which the output lags.
    pub fn latency(&self) -> usize {
        self.config.latency()
    }
}

/// Temporary files that, once renamed, have the permissions of any other new file.
fn temporary() -> tempfile::Builder<'static, 'static> {
    #[allow(unused_mut, reason = "changed on Unix only")]
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

fn tensor(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let what = || format!("tensor {name}");
    let view = file.tensor(name).map_err(|_| Error::input(what(), format!("shape {shape:?}"), "none"))?;
    if view.shape() != shape {
        return Err(Error::input(what(), format!("shape {shape:?}"), format!("{:?}", view.shape())));
    }
    tensors::numbers(name, &view)
}

/// The settled state, if the file has one; then it has all of it.
fn settled(file: &SafeTensors<'_>, plan: &Plan) -> Result<Option<Vec<Vec<f32>>>> {
    if !file.names().iter().any(|name| name.starts_with(SETTLED)) {
        return Ok(None);
    }
    let slots = plan.states.iter().map(|slot| match slot.is_empty() {
        true => Ok(Vec::new()),
        false => tensor(file, &format!("{SETTLED}{}", slot.name), &[slot.rows, slot.width]),
    });
    slots.collect::<Result<_>>().map(Some)
}

/// The error with the file's name before it.
pub(super) fn e_in(name: &str, error: Error) -> Error {
    match error {
        Error::Input { what, expected, got } => Error::input(format!("model {name}: {what}"), expected, got),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::tensor::Dtype;

    use super::*;

    const CONFIG: &str = r#"{"kind": "filter", "rate": 16000, "hop": 2, "window": 4, "basis_window": 4, "lookahead": 2,
        "tiers": [{"d_model": 3, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 2}, "feed_forward": 2},
                  {"d_model": 4, "pool": 2, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 2, "d_conv": 1}}]}"#;

    fn model() -> Model {
        let config: Config = serde_json::from_str(CONFIG).unwrap();
        let weights = Weights::random(&config.plan().unwrap(), 5);
        let figures = BTreeMap::from([("si_sdr".to_string(), 12.5)]);
        let card = Card { name: "small".into(), licence: "CC0".into(), seed: 5, figures, ..Card::default() };
        let mut model = Model::new(config, weights, card).unwrap();
        let slots = model.plan.states.iter().map(|s| (0..s.len()).map(|i| i as f32).collect());
        model.settled = Some(slots.collect());
        model
    }

    fn equal(a: &Model, b: &Model) -> bool {
        (&a.config, &a.weights, &a.card, &a.settled) == (&b.config, &b.weights, &b.card, &b.settled)
            && a.plan.hash() == b.plan.hash()
    }

    /// The model's bytes with its tensors and its JSON document changed.
    fn spoiled(
        text: impl Fn(String) -> String,
        tensors: impl Fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
    ) -> String {
        let bytes = model().to_bytes().unwrap();
        let (file, metadata) = tensors::open(&bytes).unwrap();
        let document = text(metadata.metadata().as_ref().unwrap()[KEY].clone());
        let mut all: BTreeMap<_, _> = file
            .iter()
            .map(|(name, view)| {
                (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            })
            .collect();
        tensors(&mut all);
        let views = all
            .iter()
            .map(|(name, (t, shape, data))| (name, TensorView::new(*t, shape.clone(), data).unwrap()));
        let info = HashMap::from([(KEY.to_string(), document)]);
        let bytes = safetensors::serialize(views, Some(info)).unwrap();
        Model::from_bytes(&bytes, "m").map(|_| "accepted".to_string()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn a_saved_model_returns_whole_and_its_bytes_are_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let saved = model();
        saved.save(&path).unwrap();
        saved.save(&path).unwrap();
        let loaded = Model::load(&path).unwrap();
        assert!(equal(&saved, &loaded));
        assert_eq!(std::fs::read(&path).unwrap(), loaded.to_bytes().unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays");
        assert!(loaded.settled.unwrap().iter().any(Vec::is_empty), "a slot that holds nothing is kept");
    }

    #[test]
    fn each_damage_is_one_line_that_names_it() {
        let keep = |text: String| text;
        let none = |_: &mut BTreeMap<_, _>| {};
        let cases = [
            (spoiled(keep, none), "accepted"),
            (
                spoiled(|t| t.replace("\"format_version\":1", "\"format_version\":2,\"new\":0"), none),
                "model m: format version: expected 1 (a newer file needs a newer cascabel), got 2",
            ),
            (
                spoiled(|t| t.replace("\"format_version\":1", "\"format_version\":0"), none),
                "format version: expected 1 (an older file needs an older cascabel), got 0",
            ),
            (spoiled(|t| t.replace("\"card\"", "\"cards\""), none), "unknown field `cards`"),
            (spoiled(|t| t.replace("\"latency\":6", "\"latency\":7"), none), "latency 6, got filter"),
            (spoiled(|t| t.replace("\"hop\":2", "\"hop\":0"), none), "hop: expected 1 to 4096, got 0"),
            (
                spoiled(keep, |t| drop(t.remove("tiers.0.down.0.mixer.D"))),
                "model m: tensor tiers.0.down.0.mixer.D: expected shape [3], got none",
            ),
            (
                spoiled(keep, |t| drop(t.insert("spare".into(), (Dtype::F32, vec![1], vec![0; 4])))),
                "of the config, got spare",
            ),
            (
                spoiled(keep, |t| t.get_mut("mask.bias").unwrap().1 = vec![2, 2]),
                "model m: tensor mask.bias: expected shape [4], got [2, 2]",
            ),
            (
                spoiled(keep, |t| t.get_mut("mask.bias").unwrap().0 = Dtype::I16),
                "model m: tensor mask.bias: expected f32, f16 or bf16, got I16",
            ),
            (
                spoiled(keep, |t| t.get_mut("mask.bias").unwrap().2[2..4].fill(255)),
                "model m: tensor mask.bias: expected finite numbers, got NaN at element 1",
            ),
            (spoiled(keep, |t| drop(t.remove("settled.output"))), "tensor settled.output: expected shape"),
        ];
        for (message, expected) in cases {
            assert!(
                message.contains(expected) && !message.contains('\n'),
                "{message}\n  without: {expected}"
            );
        }
    }

    #[test]
    fn a_file_of_another_kind_or_place_is_refused() {
        let plain: [(&str, TensorView<'_>); 0] = [];
        let bytes = safetensors::serialize(plain, None).unwrap();
        let message = Model::from_bytes(&bytes, "m").unwrap_err().to_string();
        assert!(message.contains("expected the key cascabel, got none"), "{message}");
        assert!(Model::load(std::env::temp_dir()).is_err());
        assert!(model().save("/no/such/folder/m.safetensors").is_err());
        let mut nan = model();
        nan.card.figures.insert("pesq".into(), f64::NAN);
        assert!(nan.to_bytes().unwrap_err().to_string().contains("figure pesq"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn bytes_cut_anywhere_are_refused(cut in any::<prop::sample::Index>()) {
            let bytes = model().to_bytes().unwrap();
            prop_assert!(Model::from_bytes(&bytes[..cut.index(bytes.len())], "m").is_err());
        }

        #[test]
        fn flipped_bits_are_refused_or_leave_a_checked_model(
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
            in_header in any::<bool>(),
        ) {
            let mut bytes = model().to_bytes().unwrap();
            let length = if in_header { bytes.len() / 2 } else { bytes.len() };
            for (at, bit) in flips {
                bytes[at.index(length)] ^= 1 << bit;
            }
            if let Ok(model) = Model::from_bytes(&bytes, "m") {
                prop_assert!(Weights::new(&model.plan, model.weights.tensors().to_vec()).is_ok());
                prop_assert!(model.to_bytes().is_ok());
            }
        }
    }
}
