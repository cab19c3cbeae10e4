//! Models run whole, on the scalar reference: the outside judge of the language model, and the filter's latency.

use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;

use super::{Config, Model, import};
use crate::exec::reference::Reference;
use crate::exec::{Limits, Rows};
use crate::plan::Weights;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mamba_lm").join(name)
}

fn open<F: crate::exec::reference::Scalar>(model: &Model) -> Reference<F> {
    Reference::open(&model.plan, &model.weights, Limits { max_rows: 64, max_streams: 1 })
}

#[test]
fn both_namings_of_the_judges_models_give_equal_tensors() {
    for name in ["tiny", "odd"] {
        let (hf, original) = (golden(name).join("hf"), golden(name).join("original"));
        let (hf, original) = (import(&hf).unwrap(), import(&original).unwrap());
        assert_eq!(hf.config, original.config);
        assert_eq!(hf.weights, original.weights);
        assert!(matches!(&hf.config, Config::Language(c) if c.tied));
    }
}

#[test]
fn an_imported_model_gives_the_judges_logits_and_next_tokens() {
    for name in ["tiny", "odd"] {
        let model = import(&golden(name).join("original")).unwrap();
        let bytes = std::fs::read(golden(name).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tokens = |tensor: &str| -> Vec<u32> {
            let data = file.tensor(tensor).unwrap().data();
            data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
        };
        let expected = super::tensors::numbers("logits", &file.tensor("logits").unwrap()).unwrap();
        let vocabulary = model.plan.value(model.plan.output).width;
        for (prompt, (expected, next)) in tokens("prompts")
            .chunks(40)
            .zip(expected.chunks(40 * vocabulary).zip(tokens("next_tokens").chunks(64)))
        {
            let mut executor = open::<f32>(&model);
            let mut logits = executor.advance_one(0, prompt.len(), Rows::Tokens(prompt));
            let worst = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{name}: {worst}");
            for (step, expected) in next.iter().enumerate() {
                let last = logits.chunks(vocabulary).last().unwrap();
                let best = (0..vocabulary).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap() as u32;
                assert_eq!(best, *expected, "{name}, token {step}");
                logits = executor.advance_one(0, 1, Rows::Tokens(&[best]));
            }
        }
    }
}

#[test]
fn an_untrained_filter_with_an_open_mask_is_a_delay_of_its_latency() {
    let text = r#"{"kind": "filter", "rate": 16000, "hop": 4, "window": 20, "basis_window": 12, "lookahead": 3, "mask": "none",
        "features": 9, "features_act": "gelu",
        "tiers": [{"d_model": 6, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 2}, "feed_forward": 2},
                  {"d_model": 8, "pool": 2, "shift": 2, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 4}}]}"#;
    let config: Config = serde_json::from_str(text).unwrap();
    let plan = config.plan().unwrap();
    let mut weights = Weights::random(&plan, 11);
    weights.tensors_mut()[plan.find_param("mask.weight").unwrap().0].fill(0.0);
    let latency = config.latency();
    let model = Model::new(config, weights, Default::default()).unwrap();
    let input: Vec<f32> = (0..301).map(|i| ((i * i) as f32 * 0.011).sin()).collect();
    let (mut executor, mut output) = (open::<f32>(&model), Vec::new());
    let mut rest = input.as_slice();
    for rows in [1, 2, 3, 5, 7, 13].into_iter().cycle() {
        let (now, later) = rest.split_at(rows.min(rest.len()));
        output.extend(executor.advance_one(0, now.len(), Rows::Samples(now)));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    for (n, y) in output.iter().enumerate() {
        let x = n.checked_sub(latency).map_or(0.0, |n| input[n]);
        assert!((x - y).abs() < 1e-6, "{n}: {x} and {y}");
    }
}

#[test]
fn dynamics_norms_and_biases_do_not_decay_and_matrices_do() {
    let still = ["A_log", "A_imag", "C", "D", "log_dt", "bias"];
    let plans = crate::exec::testing::built().unwrap().into_iter().map(|case| case.plan);
    let language =
        r#"{"kind": "language", "vocabulary": 9, "d_model": 8, "layers": 1, "mamba": {"complex": true}}"#;
    let language = serde_json::from_str::<Config>(language).unwrap().plan().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for param in plans.chain([language]).flat_map(|plan| plan.params) {
        let last = param.name.rsplit('.').next().unwrap_or_default();
        let norm = param.name.ends_with(".weight") && param.name.contains("norm");
        assert_eq!(param.decay, !norm && !still.contains(&last), "{}", param.name);
        seen.extend(still.into_iter().find(|name| *name == last));
    }
    assert_eq!(seen.len(), still.len(), "{seen:?}");
}
