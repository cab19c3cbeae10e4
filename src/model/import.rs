//! Mamba checkpoints of the published kinds, read as language models.
//!
//! A folder with `config.json` and the weights in `model.safetensors`, `pytorch_model.bin`, or shards of either with their
//! `….index.json`. Two namings are known, told apart by config.json:
//!
//! | | original (`mamba_ssm`) | Transformers (`MambaForCausalLM`) |
//! |---|---|---|
//! | width, blocks | `d_model`, `n_layer` | `hidden_size`, `num_hidden_layers` |
//! | state, taps, Δ's rank | `ssm_cfg.{d_state, d_conv, dt_rank}` | `state_size`, `conv_kernel`, `time_step_rank` |
//! | vocabulary | `vocab_size` rounded up to `pad_vocab_size_multiple` | `vocab_size` |
//! | embedding | `backbone.embedding.weight` | `backbone.embeddings.weight` |
//!
//! All other tensors have the same names; `conv1d.weight` loses its axis of length 1. A head that equals the embedding, or is
//! absent where config.json ties the two, is tied.
//!
//! ```no_run
//! let model = cascabel::model::import("mamba-130m".as_ref())?;
//! model.save("mamba-130m-imported.safetensors")?;
//! # Ok::<(), cascabel::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Card, Config, LanguageConfig, MambaConfig, Model, pickle, tensors};
use crate::plan::{Plan, Weights};
use crate::{Error, Result};

/// Beginnings of names, and what they are here. The last two are of models saved without their head.
const NAMES: [(&str, &str); 5] = [
    ("backbone.embeddings.", "backbone.embedding."),
    ("embeddings.", "backbone.embedding."),
    ("embedding.", "backbone.embedding."),
    ("layers.", "backbone.layers."),
    ("norm_f.", "backbone.norm_f."),
];
const EMBEDDING: &str = "backbone.embedding.weight";
const HEAD: &str = "lm_head.weight";

/// Takes a tensor's name, shape and values.
pub(super) type Sink<'a> = dyn FnMut(&str, &[usize], Vec<f32>) -> Result<()> + 'a;

/// Reads the checkpoint in a folder.
pub fn import(folder: &Path) -> Result<Model> {
    let (config, naming) = read_config(&folder.join("config.json"))?;
    // With a head of its own first: whether it is tied shows in the tensors.
    let untied = Config::Language(LanguageConfig { tied: false, ..config.clone() }).plan()?;
    let mut found = Found { plan: &untied, values: vec![None; untied.params.len()] };
    for file in weight_files(folder)? {
        let mut sink = |name: &str, shape: &[usize], values| found.take(name, shape, values);
        match file.extension().is_some_and(|e| e == "bin") {
            true => pickle::each_tensor(&file, &mut sink),
            false => each_tensor(&file, &mut sink),
        }
        .map_err(|e| at(&file, e))?;
    }
    let mut values = found.values;
    let place = |name: &str| untied.find_param(name).map_or(usize::MAX, |id| id.0);
    let (embedding, head) = (place(EMBEDDING), place(HEAD));
    let same = |a: usize, b: usize| values.get(a) == values.get(b);
    let tied = config.tied && (values.get(head).is_some_and(Option::is_none) || same(head, embedding));
    if tied {
        values.remove(head);
    }
    let config = Config::Language(LanguageConfig { tied, ..config });
    let plan = config.plan()?;
    let present = plan.params.iter().zip(values).map(|(param, values)| {
        let missing =
            || Error::input(format!("tensor {}", param.name), format!("shape {:?}", param.shape), "none");
        values.ok_or_else(missing)
    });
    let weights = Weights::new(&plan, present.collect::<Result<_>>().map_err(|e| at(folder, e))?)?;
    let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    let card = Card {
        name: name.unwrap_or_else(|| "mamba".into()),
        data: format!("imported from a Mamba checkpoint in the {naming} naming"),
        licence: "that of the checkpoint".into(),
        ..Card::default()
    };
    Model::new(config, weights, card)
}

/// The tensors found so far, by the plan's numbers.
struct Found<'p> {
    plan: &'p Plan,
    values: Vec<Option<Vec<f32>>>,
}

impl Found<'_> {
    fn take(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<()> {
        let ours = rename(name);
        let wrong = |expected: String, got: String| Error::input(format!("tensor {name}"), expected, got);
        let Some(id) = self.plan.find_param(&ours) else {
            return Err(wrong("a tensor of a Mamba language model".into(), format!("{shape:?}")));
        };
        let expected = &self.plan.param(id).shape;
        let fits = match (shape, expected.as_slice()) {
            ([d, 1, k], [rows, taps]) if ours.ends_with(".conv1d.weight") => (d, k) == (rows, taps),
            (shape, expected) => shape == expected,
        };
        if !fits {
            return Err(wrong(format!("shape {expected:?}"), format!("{shape:?}")));
        }
        if self.values[id.0].replace(values).is_some() {
            return Err(wrong("it once".into(), "it twice".into()));
        }
        Ok(())
    }
}

fn rename(name: &str) -> String {
    let renamed =
        NAMES.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)));
    renamed.unwrap_or_else(|| name.into())
}

/// The tensors of one safetensors file.
fn each_tensor(path: &Path, sink: &mut Sink<'_>) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let (file, _) = tensors::open(&bytes)?;
    file.iter().try_for_each(|(name, view)| sink(name, view.shape(), tensors::numbers(name, &view)?))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files that hold the weights: whole before shards, safetensors before PyTorch's.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    for whole in ["model.safetensors", "pytorch_model.bin"] {
        let (path, index) = (folder.join(whole), folder.join(format!("{whole}.index.json")));
        if path.exists() {
            return Ok(vec![path]);
        }
        if index.exists() {
            let Index { weight_map } = read_json(&index)?;
            let shards: BTreeSet<_> = weight_map.into_values().collect();
            let shard = |name: String| match Path::new(&name).file_name() == Some(name.as_ref()) {
                true => Ok(folder.join(name)),
                false => Err(Error::input(index.display().to_string(), "names of files beside it", name)),
            };
            return shards.into_iter().map(shard).collect();
        }
    }
    let expected = "model.safetensors or pytorch_model.bin, whole or with its .index.json";
    Err(Error::input(folder.display().to_string(), expected, "none of them"))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::input(path.display().to_string(), "JSON of a Mamba checkpoint", e.to_string()))
}

/// Δ's rank: a number or "auto".
#[derive(Deserialize)]
#[serde(untagged)]
enum Rank {
    Number(usize),
    Word(String),
}

#[derive(Deserialize)]
struct Transformers {
    #[serde(default)]
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    state_size: usize,
    conv_kernel: usize,
    expand: usize,
    time_step_rank: Rank,
    #[serde(default = "eps")]
    layer_norm_epsilon: f32,
    #[serde(default)]
    use_bias: bool,
    #[serde(default = "yes")]
    use_conv_bias: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct Original {
    d_model: usize,
    n_layer: usize,
    vocab_size: usize,
    #[serde(default)]
    ssm_cfg: Ssm,
    #[serde(default = "yes")]
    rms_norm: bool,
    #[serde(default = "eight")]
    pad_vocab_size_multiple: usize,
    #[serde(default = "yes")]
    tie_embeddings: bool,
    #[serde(default)]
    d_intermediate: usize,
    #[serde(default)]
    attn_layer_idx: Vec<usize>,
}

#[derive(Default, Deserialize)]
struct Ssm {
    #[serde(default)]
    layer: Option<String>,
    #[serde(default)]
    d_state: Option<usize>,
    #[serde(default)]
    d_conv: Option<usize>,
    #[serde(default)]
    expand: Option<usize>,
    #[serde(default)]
    dt_rank: Option<Rank>,
    #[serde(default)]
    bias: bool,
    #[serde(default = "yes")]
    conv_bias: bool,
}

fn yes() -> bool {
    true
}
fn eps() -> f32 {
    1e-5
}
fn eight() -> usize {
    8
}
fn silu() -> String {
    "silu".into()
}

/// The configuration, and which naming it is in.
fn read_config(path: &Path) -> Result<(LanguageConfig, &'static str)> {
    let value: serde_json::Value = read_json(path)?;
    let parse = |e: serde_json::Error| {
        Error::input(path.display().to_string(), "the fields of a Mamba config", e.to_string())
    };
    if value.get("hidden_size").is_some() {
        let theirs = serde_json::from_value(value).map_err(parse)?;
        Ok((transformers(theirs).map_err(|e| at(path, e))?, "Transformers"))
    } else if value.get("d_model").is_some() {
        let theirs = serde_json::from_value(value).map_err(parse)?;
        Ok((original(theirs).map_err(|e| at(path, e))?, "original"))
    } else {
        let expected = "hidden_size (Transformers naming) or d_model (original naming)";
        Err(Error::input(path.display().to_string(), expected, "neither"))
    }
}

fn transformers(c: Transformers) -> Result<LanguageConfig> {
    let model_type = c.model_type.as_deref().unwrap_or("mamba");
    only("model_type", model_type, "mamba")?;
    only("use_bias", c.use_bias, false)?;
    only("use_conv_bias", c.use_conv_bias, true)?;
    only("hidden_act", c.hidden_act.as_str(), "silu")?;
    let mamba = MambaConfig {
        d_state: c.state_size,
        d_conv: c.conv_kernel,
        expand: c.expand,
        complex: false,
        dt_rank: rank(Some(c.time_step_rank), c.hidden_size)?,
        ..MambaConfig::default()
    };
    Ok(LanguageConfig {
        vocabulary: c.vocab_size,
        d_model: c.hidden_size,
        layers: c.num_hidden_layers,
        mamba,
        tied: c.tie_word_embeddings,
        eps: c.layer_norm_epsilon,
    })
}

fn original(c: Original) -> Result<LanguageConfig> {
    only("ssm_cfg.layer", c.ssm_cfg.layer.as_deref().unwrap_or("Mamba1"), "Mamba1")?;
    only("ssm_cfg.bias", c.ssm_cfg.bias, false)?;
    only("ssm_cfg.conv_bias", c.ssm_cfg.conv_bias, true)?;
    only("rms_norm", c.rms_norm, true)?;
    only("d_intermediate", c.d_intermediate, 0)?;
    only("number of attention layers", c.attn_layer_idx.len(), 0)?;
    let default = MambaConfig::default();
    let mamba = MambaConfig {
        d_state: c.ssm_cfg.d_state.unwrap_or(default.d_state),
        d_conv: c.ssm_cfg.d_conv.unwrap_or(default.d_conv),
        expand: c.ssm_cfg.expand.unwrap_or(default.expand),
        complex: false,
        dt_rank: rank(c.ssm_cfg.dt_rank, c.d_model)?,
        ..default
    };
    let multiple = c.pad_vocab_size_multiple.max(1);
    let Some(vocabulary) = c.vocab_size.checked_next_multiple_of(multiple) else {
        return Err(Error::input("vocab_size", "a number of tokens", c.vocab_size.to_string()));
    };
    let (d_model, layers, tied) = (c.d_model, c.n_layer, c.tie_embeddings);
    Ok(LanguageConfig { vocabulary, d_model, layers, mamba, tied, eps: eps() })
}

/// The rank, left out where it is the usual one.
fn rank(rank: Option<Rank>, d_model: usize) -> Result<Option<usize>> {
    match rank {
        None => Ok(None),
        Some(Rank::Word(word)) => only("dt_rank", word.as_str(), "auto").map(|()| None),
        Some(Rank::Number(number)) => Ok((number != d_model.div_ceil(16)).then_some(number)),
    }
}

fn only<T: PartialEq + ToString>(field: &str, got: T, known: T) -> Result<()> {
    if got == known { Ok(()) } else { Err(Error::input(field, known.to_string(), got.to_string())) }
}

/// The error with the file's path before it.
fn at(path: &Path, error: Error) -> Error {
    match error {
        Error::Input { what, expected, got } => {
            Error::input(format!("{}: {what}", path.display()), expected, got)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    const ORIGINAL: &str = r#"{"d_model": 20, "n_layer": 2, "vocab_size": 13, "ssm_cfg": {"d_state": 4}, "rms_norm": true,
        "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8}"#;
    const TRANSFORMERS: &str = r#"{"model_type": "mamba", "hidden_size": 20, "num_hidden_layers": 2, "vocab_size": 16,
        "state_size": 4, "conv_kernel": 4, "expand": 2, "time_step_rank": 2, "layer_norm_epsilon": 1e-05,
        "tie_word_embeddings": true, "use_bias": false, "use_conv_bias": true, "hidden_act": "silu"}"#;

    type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

    /// Random tensors of the small model above, in the original naming; tied, and so with a head like the embedding.
    fn checkpoint() -> Tensors {
        let text =
            r#"{"kind": "language", "vocabulary": 16, "d_model": 20, "layers": 2, "mamba": {"d_state": 4}}"#;
        let plan = serde_json::from_str::<Config>(text).unwrap().plan().unwrap();
        let weights = Weights::random(&plan, 9);
        let mut all: Tensors = BTreeMap::new();
        for (param, values) in plan.params.iter().zip(weights.tensors()) {
            let mut shape = param.shape.clone();
            if param.name.ends_with("conv1d.weight") {
                shape.insert(1, 1);
            }
            all.insert(param.name.clone(), (shape, values.clone()));
        }
        all.insert(HEAD.into(), all[EMBEDDING].clone());
        all
    }

    fn in_transformers_naming(mut all: Tensors) -> Tensors {
        let embedding = all.remove(EMBEDDING).unwrap();
        all.insert("backbone.embeddings.weight".into(), embedding);
        all.remove(HEAD);
        all
    }

    fn write(path: &Path, all: &Tensors) {
        let bytes: Vec<Vec<u8>> =
            all.values().map(|(_, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = all
            .iter()
            .zip(&bytes)
            .map(|((name, (shape, _)), b)| (name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
        fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn import_of(config: &str, all: &Tensors) -> Result<Model> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        write(&folder.path().join("model.safetensors"), all);
        import(folder.path())
    }

    #[test]
    fn both_namings_give_the_same_model() {
        let original = import_of(ORIGINAL, &checkpoint()).unwrap();
        let transformers = import_of(TRANSFORMERS, &in_transformers_naming(checkpoint())).unwrap();
        assert_eq!(original.config, transformers.config);
        assert_eq!(original.weights, transformers.weights);
        for (param, values) in original.plan.params.iter().zip(original.weights.tensors()) {
            assert_eq!(&checkpoint()[&param.name].1, values, "{}", param.name);
        }
        let headless: Tensors = checkpoint()
            .into_iter()
            .filter(|(name, _)| name != HEAD)
            .map(|(name, tensor)| (name.trim_start_matches("backbone.").to_string(), tensor))
            .collect();
        assert_eq!(import_of(ORIGINAL, &headless).unwrap().weights, original.weights);
    }

    #[test]
    fn a_head_of_its_own_is_kept() {
        let mut all = checkpoint();
        all.get_mut(HEAD).unwrap().1[3] += 1.0;
        let model = import_of(ORIGINAL, &all).unwrap();
        assert!(matches!(&model.config, Config::Language(c) if !c.tied));
        assert_eq!(model.weights.get(model.plan.find_param(HEAD).unwrap()), all[HEAD].1);
    }

    #[test]
    fn shards_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (first, second): (Tensors, Tensors) =
            checkpoint().into_iter().partition(|(name, _)| name.contains("layers.0"));
        let names = first.keys().map(|k| (k, "a.safetensors"));
        let map: BTreeMap<_, _> = names.chain(second.keys().map(|k| (k, "b.safetensors"))).collect();
        fs::write(at("config.json"), ORIGINAL).unwrap();
        let index = |map: &BTreeMap<&String, &str>| serde_json::json!({"metadata": {}, "weight_map": map});
        fs::write(at("model.safetensors.index.json"), index(&map).to_string()).unwrap();
        write(&at("a.safetensors"), &first);
        write(&at("b.safetensors"), &second);
        let whole = import_of(ORIGINAL, &checkpoint()).unwrap();
        assert_eq!(import(folder.path()).unwrap().weights, whole.weights);

        let outside: BTreeMap<_, _> = map.keys().map(|k| (*k, "../a.safetensors")).collect();
        fs::write(at("model.safetensors.index.json"), index(&outside).to_string()).unwrap();
        let message = import(folder.path()).unwrap_err().to_string();
        assert!(message.contains("names of files beside it"), "{message}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let spoiled = |spoil: fn(&mut Tensors)| {
            let mut all = checkpoint();
            spoil(&mut all);
            import_of(ORIGINAL, &all).unwrap_err().to_string()
        };
        let config = |from: &str, to: &str| {
            import_of(&ORIGINAL.replace(from, to), &checkpoint()).unwrap_err().to_string()
        };
        let cases = [
            (
                spoiled(|t| drop(t.remove("backbone.norm_f.weight"))),
                "norm_f.weight: expected shape [20], got none",
            ),
            (spoiled(|t| drop(t.insert("x".into(), (vec![1], vec![0.0])))), "tensor x: expected a tensor of"),
            (
                spoiled(|t| t.get_mut("backbone.layers.1.mixer.D").unwrap().0 = vec![5, 8]),
                "tensor backbone.layers.1.mixer.D: expected shape [40], got [5, 8]",
            ),
            (
                spoiled(|t| t.get_mut("backbone.layers.1.mixer.D").unwrap().1[1] = f32::INFINITY),
                "expected finite numbers, got inf at element 1",
            ),
            (
                spoiled(|t| drop(t.insert("embedding.weight".into(), t[EMBEDDING].clone()))),
                "embedding.weight: expected it once, got it twice",
            ),
            (
                config("\"rms_norm\": true", "\"rms_norm\": false"),
                "config.json: rms_norm: expected true, got false",
            ),
            (config("\"d_state\": 4", "\"layer\": \"Mamba2\""), "ssm_cfg.layer: expected Mamba1, got Mamba2"),
            (
                config("\"d_model\": 20", "\"width\": 20"),
                "expected hidden_size (Transformers naming) or d_model",
            ),
            (config("\"n_layer\": 2,", ""), "missing field `n_layer`"),
        ];
        for (message, expected) in cases {
            assert!(
                message.contains(expected) && !message.contains('\n'),
                "{message}\n  without: {expected}"
            );
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(import(empty.path()).unwrap_err().to_string().contains("config.json"));
        fs::write(empty.path().join("config.json"), ORIGINAL).unwrap();
        assert!(import(empty.path()).unwrap_err().to_string().contains("none of them"));
    }
}
