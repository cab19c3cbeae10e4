//! `train` of a generator: from files whose names tell their class to a model that `eval` and `generate` take.

use serde_json::Value;

use cascabel::audio::{SampleRate, Sound, WavDepth, write_path};
use cascabel::model::Model;

use crate::support::Folder;

/// Two sounds that repeat, of two classes, and the recipe.
fn folder() -> Folder {
    let folder = Folder::new();
    for (name, period, frames) in [
        ("train/low-1", 40, 9_000),
        ("train/low-2", 40, 300),
        ("train/high-1", 16, 8_000),
        ("valid/low-9", 40, 700),
        ("valid/high-9", 16, 900),
    ] {
        let wave = |t: usize| 0.7 * ((t % period) as f32 / (period / 2) as f32 - 1.0);
        let sound = Sound::new(SampleRate::new(8_000).unwrap(), vec![(0..frames).map(wave).collect()]);
        let path = folder.path(&format!("{name}.wav"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_path(&path, &sound.unwrap(), WavDepth::Int16).unwrap();
    }
    folder.write("tiny.toml", RECIPE.as_bytes());
    folder
}

#[track_caller]
fn train(folder: &Folder, line: &str) -> String {
    let run = folder.run(&format!("train tiny.toml {line}"));
    assert_eq!(run.code, 0, "{}", run.err);
    run.err
}

fn model(folder: &Folder, run: &str) -> Model {
    Model::load(folder.path(&format!("{run}/tiny.safetensors"))).unwrap()
}

/// One kind of event in a run's log.
fn logged(folder: &Folder, run: &str, event: &str) -> Vec<Value> {
    let text = String::from_utf8(folder.bytes(&format!("{run}/tiny.log.jsonl"))).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

#[test]
fn a_generator_is_trained_measured_and_heard() {
    let folder = folder();
    let told = train(&folder, "--out run --threads 2");
    assert!(told.contains("h of sound, ") && told.contains("bits a sample"), "{told}");
    let bits = |line: &Value| line["loss"].as_f64().unwrap();
    let steps = logged(&folder, "run", "step");
    assert!(bits(&steps[0]) > 6.0 && bits(&steps[59]) < 3.5, "{} {}", steps[0], steps[59]);
    assert!(
        steps[0].get("parts").is_none() && logged(&folder, "run", "data")[0].get("noise_seconds").is_none()
    );
    // Eval on the same files gives the figure of the log and of the card.
    let valid = logged(&folder, "run", "valid");
    let valid = valid[1]["figures"]["bits_per_sample"].as_f64().unwrap();
    let found = folder.run("eval --model run/tiny.safetensors valid --json").ok().text();
    let found: Value = serde_json::from_str(&found).unwrap();
    let mean = found["mean"]["bits_per_sample"].as_f64().unwrap();
    assert!((mean - valid).abs() < 1e-9 && mean < 3.5, "{mean} {valid}");
    let card = model(&folder, "run").card;
    assert!((card.figures["valid_bits_per_sample"] - mean).abs() < 1e-9, "{:?}", card.figures);
    assert!(folder.path("run/tiny.loss.png").exists());
    // It makes sound of either class, and not the same.
    for class in ["low", "high"] {
        let line =
            format!("generate --model run/tiny.safetensors --class {class} --seconds 0.1 -o {class}.wav");
        folder.run(&line).ok();
    }
    assert!(folder.sound("low.wav").frames() == 800 && folder.sound("low.wav") != folder.sound("high.wav"));
    // Another run begins with its weights.
    folder.write("tiny.toml", RECIPE.replace("steps = 60", "steps = 3").as_bytes());
    train(&folder, "--out more --from run/tiny.safetensors");
    assert!(bits(&logged(&folder, "more", "step")[0]) < 4.0);
}

#[test]
fn a_generators_run_that_was_cut_ends_as_one_that_was_not() {
    let folder = folder();
    folder.write("tiny.toml", RECIPE.replace("steps = 60", "steps = 10").as_bytes());
    train(&folder, "--out whole --threads 2");
    train(&folder, "--out cut --threads 1 --minutes 0.00001");
    let cut = logged(&folder, "cut", "saved").last().unwrap()["step"].as_u64().unwrap();
    assert!((1..10).contains(&cut), "stopped after {cut} steps");
    // In the middle of a visit, too.
    while logged(&folder, "cut", "step").len() < 10 {
        train(&folder, "--out cut --minutes 0.00001 --resume");
    }
    assert!(
        model(&folder, "whole").weights == model(&folder, "cut").weights,
        "the resumed run went another way"
    );
    // Segments teach the same.
    let parts = RECIPE.replace("steps = 60", "steps = 10").replace("[run]", "[run]\nsegment = 64");
    folder.write("tiny.toml", parts.as_bytes());
    train(&folder, "--out parts");
    let (whole, parts) = (model(&folder, "whole").weights, model(&folder, "parts").weights);
    assert!(whole != parts, "the segments were not used");
    for (a, b) in whole.tensors().iter().zip(parts.tensors()) {
        let most = a.iter().fold(0f32, |m, x| m.max(x.abs()));
        let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 1e-2 * most.max(1e-2), "{off:e} of {most}");
    }
}

#[test]
fn two_processes_teach_a_generator_what_one_teaches() {
    let folder = folder();
    folder.write("tiny.toml", RECIPE.replace("steps = 60", "steps = 7").as_bytes());
    train(&folder, "--out one");
    let port = crate::train::free_port();
    let start = |rank| crate::train::one_of_two(&folder, rank, port, "train tiny.toml --out two --threads 1");
    for process in [1, 0].map(start) {
        let ended = process.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    assert!(model(&folder, "one").weights == model(&folder, "two").weights, "two processes give other bits");
}

#[test]
fn what_a_generators_recipe_may_not_say() {
    let folder = folder();
    folder.write("valid-odd/mid.wav", &folder.bytes("valid/low-9.wav"));
    let before = folder.files();
    for (from, to, parts) in [
        ("[clips]", "[clip]", &["tiny.toml, line", "clip"][..]),
        ("windows = 2", "window = 2", &["tiny.toml, line", "window"]),
        ("seconds = 0.02", "seconds = 0.0", &["recipe [clips] seconds: expected a sample at least"]),
        ("seconds = 0.02", "seconds = nan", &["recipe [clips] seconds: expected a sample at least"]),
        ("windows = 2", "windows = 0", &["recipe [clips] seconds: expected a sample at least", "got 0 of"]),
        (
            "seconds = 0.02",
            "seconds = 0.02025",
            &["recipe [clips] seconds: expected examples of a multiple of 4 samples", "got 162 samples"],
        ),
        ("windows = 2", "gain_db = [0.0, -3.0]", &["recipe [clips] gain_db: expected [least, greatest]"]),
        ("windows = 2", "speed = [0.0, 1.0]", &["recipe [clips] speed: expected [least, greatest]"]),
        ("windows = 2", "valid_seconds = 0.0", &["recipe [clips] valid_seconds: expected a number above 0"]),
        ("[data]", "[data]\nnoise = [\"train\"]", &["recipe [data] noise: expected none for a generator"]),
        ("[clips]", "[mix]\n[clips]", &["recipe [mix]: expected none for a generator"]),
        ("[clips]", "[loss]\nl1 = 1.0\n[clips]", &["recipe [loss]", "expected none for a generator"]),
        ("[run]", "[run]\ndry = 0.1", &["recipe [run] dry: expected none for a generator"]),
        (
            "[run]",
            "[run]\nsettle_seconds = 1",
            &["recipe [run] settle_seconds: expected none for a generator"],
        ),
        (
            "[run]",
            "[run]\nbegin = { carried = 0.5 }",
            &["recipe [run.begin]", "expected none for a generator"],
        ),
        (
            "rate = 8000",
            "rate = 8000\nvocabulary = 99",
            &["a generator of mu-law's 256 tokens, got one of 99"],
        ),
        ("\"low\", \"high\"", "\"low\"", &["a name that begins with one of low, got high-1"]),
        ("[\"valid\"]", "[\"valid-odd\"]", &["a name that begins with one of low, high, got mid"]),
        ("[\"valid\"]", "[\"nowhere\"]", &["nowhere"]),
        ("valid_examples = 4", "valid_examples = 0", &["clips: expected at least one"]),
        ("[\"train\"]", "[\"train\"]\nleave_out = [\"low\", \"high\"]", &["clips: expected at least one"]),
        (
            "kind = \"generator\"\nrate = 8000\nclasses = [\"low\", \"high\"]\ntiers = [",
            "kind = \"language\"\nvocabulary = 256\nd_model = 8\nlayers = 1\n#",
            &["recipe [model]: expected a model of sound, got one of text"],
        ),
    ] {
        assert!(RECIPE.contains(from), "{from}");
        folder.write("tiny.toml", RECIPE.replace(from, to).as_bytes());
        folder.run("train tiny.toml --out run").refused(2, parts);
        assert_eq!(folder.files(), before, "{to}");
    }
}

#[test]
fn what_a_filters_recipe_must_say() {
    let folder = folder();
    for (from, to, part) in [
        ("noise = [\"noise\"]\n", "", "recipe [data] noise: expected one for a filter, got none"),
        ("valid_noise = [\"noise\"]\n", "", "recipe [data] valid_noise: expected one for a filter, got none"),
        (
            "[loss]\nl1 = 1.0\nresolutions = [[64, 16]]\n",
            "",
            "recipe [loss]: expected one for a filter, got none",
        ),
        ("[loss]", "[clips]\n[loss]", "recipe [clips]: expected none for a filter, got one"),
    ] {
        assert!(crate::train::RECIPE.contains(from), "{from}");
        folder.write("f.toml", crate::train::RECIPE.replacen(from, to, 1).as_bytes());
        folder.run("train f.toml --out run").refused(2, &[part]);
    }
}

const RECIPE: &str = r#"
name = "tiny"
seed = 1
[model]
kind = "generator"
rate = 8000
classes = ["low", "high"]
tiers = [{ d_model = 8, blocks = 1, mixer = { kind = "s4d", d_state = 2 } }, { d_model = 12, pool = 4, blocks = 1, mixer = { kind = "mamba", d_state = 4 } }]
[data]
clean = ["train"]
valid_clean = ["valid"]
[clips]
seconds = 0.02
windows = 2
[optimiser]
ema = 0.9
[schedule]
peak = 2e-2
last = 1e-3
warm_up = 2
steps = 60
[run]
batch = 4
valid_every = 30
valid_examples = 4
store = "f16"
"#;
