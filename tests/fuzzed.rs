//! The fuzzer's inputs: seeds, and what it once broke something with. Each must be answered.
//!
//! `CASCABEL_SEEDS=1 cargo test --test fuzzed` writes the seeds of the model file anew.

#[path = "fuzzed/checks.rs"]
mod checks;

use std::path::{Path, PathBuf};

use cascabel::model::{Card, Config, Model};
use cascabel::plan::Weights;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn each(name: &str, check: fn(&[u8])) {
    let mut files: Vec<_> =
        std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        check(&std::fs::read(file).unwrap());
    }
}

#[test]
fn recipes_are_answered() {
    each("fuzzed/recipe", checks::recipe);
}

#[test]
fn sounds_are_answered() {
    each("fuzzed/sound", checks::sound);
    each("data", checks::sound);
}

/// One model of each kind and mixer, as small as they get.
const SEEDS: [(&str, &str); 4] = [
    (
        "filter-s4d",
        r#"{"kind": "filter", "rate": 16000, "hop": 2, "window": 3, "basis_window": 4, "lookahead": 1,
            "tiers": [{"d_model": 2, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 2}, "feed_forward": 1}]}"#,
    ),
    (
        "generator-tiers",
        r#"{"kind": "generator", "rate": 8000, "vocabulary": 3, "tiers":
            [{"d_model": 2, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 1, "complex": false, "rule": "bilinear"}},
             {"d_model": 3, "blocks": 1, "pool": 2, "shift": 2, "norm": "rms",
              "mixer": {"kind": "mamba", "d_state": 2, "complex": true}}]}"#,
    ),
    (
        "language",
        r#"{"kind": "language", "vocabulary": 4, "d_model": 2, "layers": 1, "mamba": {"d_state": 2}}"#,
    ),
    (
        "nothing-within",
        r#"{"kind": "generator", "rate": 1000, "vocabulary": 1, "tied": true, "tiers":
            [{"d_model": 1, "blocks": 0, "mixer": {"kind": "mamba"}}]}"#,
    ),
];

#[test]
fn model_files_are_answered() {
    for (name, config) in SEEDS {
        let config: Config = serde_json::from_str(config).unwrap();
        let weights = Weights::random(&config.plan().unwrap(), 3);
        let mut model = Model::new(config, weights, Card { name: name.into(), ..Card::default() }).unwrap();
        model.settled = Some(model.plan.states.iter().map(|slot| vec![0.5; slot.len()]).collect());
        let path = folder("fuzzed/model_file").join(format!("{name}.safetensors"));
        if std::env::var_os("CASCABEL_SEEDS").is_some() {
            model.save(&path).unwrap();
        }
        let seed = Model::load(&path).unwrap();
        assert!(seed.config == model.config, "{name}: the format has moved on; write the seeds anew");
    }
    each("fuzzed/model_file", checks::model_file);
}
