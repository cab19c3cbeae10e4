//! Bad input: exit code 2, one line, and nothing that was not there before.

use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{Folder, filter, tone};

/// Runs a line that must be refused and must leave the folder as it was.
#[track_caller]
fn refused(folder: &Folder, line: &str, parts: &[&str]) {
    let before = folder.files();
    folder.run(line).refused(2, parts);
    assert_eq!(folder.files(), before, "{line}");
}

#[test]
fn sounds_that_are_none() {
    let folder = Folder::new();
    folder.tone("whole.wav", 16_000, 1, 2_000);
    let whole = folder.bytes("whole.wav");
    folder.write("empty.wav", b"");
    folder.write("cut.wav", &whole[..whole.len() / 2]);
    folder.write("header.wav", &whole[..20]);
    folder.write("text.wav", b"This is not a sound, but a sentence that is long enough to be read as one.\n");
    let mut nan = whole.clone();
    let middle = whole.len() - 400;
    nan[middle..middle + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    folder.write("nan.wav", &nan);
    // In the format chunk: channels at byte 22, rate at byte 24.
    let with = |at: usize, new: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    folder.write("silent.wav", &with(22, &0u16.to_le_bytes()));
    folder.write("slow.wav", &with(24, &8u32.to_le_bytes()));
    std::fs::create_dir(folder.path("folder")).unwrap();
    for (name, parts) in [
        ("empty.wav", &["empty.wav: expected a sound file, got an empty file"][..]),
        ("cut.wav", &["cut.wav", "truncated"]),
        ("header.wav", &["header.wav"]),
        ("text.wav", &["text.wav", "expected"]),
        ("nan.wav", &["nan.wav", "expected finite samples, got NaN at frame 1900"]),
        ("silent.wav", &["silent.wav"]),
        ("slow.wav", &["slow.wav", "expected a sample rate of 1000 to 768000 Hz, got 8 Hz"]),
        ("folder", &["folder: expected a sound file, got a folder"]),
        ("absent.wav", &["cannot open absent.wav"]),
    ] {
        refused(&folder, &format!("process {name} -o out.wav"), parts);
        refused(&folder, &format!("process {name} -o none/"), parts);
    }
}

/// With overflow checks, which a release build does without.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_a_decoder_is_one_line() {
    let folder = Folder::new();
    let caf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chirp.caf");
    // In the description, bytes of a packet at byte 36: symphonia counts their bits in 32 bits.
    let mut bytes = std::fs::read(caf).unwrap();
    bytes[36] = 255;
    folder.write("in.caf", &bytes);
    let parts = ["in.caf: expected a sound file, got one that is damaged"];
    refused(&folder, "process in.caf -o out.wav", &parts);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = Folder::new();
    folder.tone("in.wav", 16_000, 1, 500);
    folder.write("plain", b"a file");
    for (line, parts) in [
        ("process in.wav -o no/such/out.wav", &["cannot create no/such/out.wav"][..]),
        ("process in.wav -o plain/out.wav", &["plain/out.wav"]),
        ("process in.wav -o plain/", &["plain/: expected the name of a folder, got a file, plain"]),
        ("process in.wav -o plain/deep/", &["expected the name of a folder, got a file, plain"]),
        ("process in.wav -o in.wav", &["another file than the input"]),
        ("process in.wav in.wav -o out", &["expected different names"]),
        ("import . -o x.safetensors", &["config.json"]),
    ] {
        refused(&folder, line, parts);
    }
    assert_eq!(folder.bytes("plain"), b"a file");
    #[cfg(target_os = "linux")]
    refused(&folder, "process in.wav -o /dev/full", &["cannot write /dev/full"]);
}

#[test]
fn lines_that_make_no_sense() {
    let folder = Folder::new();
    folder.tone("in.wav", 16_000, 1, 500);
    for (line, parts) in [
        ("", &["expected a command"][..]),
        ("proces in.wav", &["unrecognized subcommand 'proces'"]),
        ("process", &["required arguments were not provided"]),
        ("process in.wav", &["--output <OUT>"]),
        ("process in.wav -o o.wav --mix 1.5", &["mix: expected a share of 0 to 1, got 1.5"]),
        ("process in.wav -o o.wav --mix NaN", &["mix: expected a share of 0 to 1, got NaN"]),
        ("process in.wav -o o.wav --mix much", &["invalid value 'much'"]),
        ("process in.wav -o o.wav --depth 8", &["invalid value '8'"]),
        (
            "process in.wav -o o.wav --model none",
            &["model none: expected denoise, digits, music or a model file"],
        ),
        ("eval . --reference absent", &["cannot list absent"]),
        ("completions tcl", &["invalid value 'tcl'"]),
    ] {
        refused(&folder, line, parts);
    }
}

#[test]
fn models_that_are_damaged() {
    let folder = Folder::new();
    folder.tone("in.wav", 16_000, 1, 500);
    let bytes = filter().to_bytes().unwrap();
    for cut in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        folder.write("m.safetensors", &bytes[..cut]);
        refused(&folder, "info m.safetensors", &["model m.safetensors"]);
        refused(&folder, "process in.wav -o out.wav --model m.safetensors", &["model m.safetensors"]);
    }
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    folder.write("m.safetensors", &huge);
    refused(&folder, "info m.safetensors", &["model m.safetensors"]);

    let newer = spoiled(&bytes, |text| text.replace("\"format_version\":1", "\"format_version\":2"), |_| {});
    let shape = spoiled(&bytes, |text| text, |tensors| tensors[0].2 = vec![1, 1]);
    let nan =
        spoiled(&bytes, |text| text, |tensors| tensors[0].3[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let typo = spoiled(&bytes, |text| text.replace("basis_window", "basis_widow"), |_| {});
    for (file, part) in [
        (newer, "format version: expected 1 (a newer file needs a newer cascabel), got 2"),
        (shape, "expected shape"),
        (nan, "expected finite numbers, got NaN"),
        (typo, "basis_widow"),
        (b"{}".to_vec(), "model m.safetensors"),
    ] {
        folder.write("m.safetensors", &file);
        refused(&folder, "process in.wav -o out.wav --model m.safetensors", &["model m.safetensors", part]);
    }
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A model file with its document and its tensors changed; the first tensor's bytes follow its shape.
fn spoiled(bytes: &[u8], text: impl Fn(String) -> String, change: impl Fn(&mut Vec<Tensor>)) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let document = text(header.metadata().as_ref().unwrap()["cascabel"].clone());
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut tensors: Vec<Tensor> = file
        .iter()
        .map(|(name, view)| (name.into(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    tensors.sort();
    change(&mut tensors);
    for (_, dtype, shape, data) in &mut tensors {
        data.resize(dtype.bitsize() / 8 * shape.iter().product::<usize>(), 0);
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let metadata = HashMap::from([("cascabel".to_string(), document)]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[test]
fn a_model_of_another_kind_is_not_a_filter() {
    let folder = Folder::new();
    folder.tone("in.wav", 16_000, 1, 500);
    let config: cascabel::model::Config = serde_json::from_str(
        r#"{"kind": "generator", "rate": 16000,
            "tiers": [{"d_model": 4, "blocks": 1, "mixer": {"kind": "mamba", "d_state": 2}}]}"#,
    )
    .unwrap();
    let weights = cascabel::plan::Weights::random(&config.plan().unwrap(), 1);
    let model = cascabel::model::Model::new(config, weights, Default::default()).unwrap();
    model.save(folder.path("g.safetensors")).unwrap();
    let parts = ["expected a filter (sound to sound), got generator"];
    refused(&folder, "process in.wav -o out.wav --model g.safetensors", &parts);
}

#[cfg(feature = "train")]
#[test]
fn recipes_with_mistakes() {
    let folder = Folder::new();
    let recipe =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/models/denoise.toml")).unwrap();
    let (before, after) = ("hop = 32", "hopp = 32");
    assert!(recipe.contains(before));
    folder.write("typo.toml", recipe.replace(before, after).as_bytes());
    folder.write("zero.toml", recipe.replace(before, "hop = 0").as_bytes());
    folder.write("plain.toml", recipe.as_bytes());
    folder.write("not.toml", b"\x00\xff");
    for (name, part) in [
        ("typo.toml", "hopp"),
        ("zero.toml", "hop: expected 1 to 4096, got 0"),
        ("not.toml", "cannot read not.toml"),
        ("absent.toml", "cannot read absent.toml"),
    ] {
        refused(&folder, &format!("train {name} --out run"), &[part]);
    }
    refused(
        &folder,
        "train plain.toml --out run --device gpu",
        &["device: expected cpu, cuda or cuda:N, got gpu"],
    );
    if !cfg!(feature = "train-cuda") {
        refused(&folder, "train plain.toml --out run --device cuda", &["the feature train-cuda", "got cuda"]);
    }
    // The data that it names is not here.
    refused(&folder, "train plain.toml --out run", &["data/denoise"]);
    refused(&folder, "train plain.toml --out plain.toml", &["plain.toml: expected the name of a folder"]);
}

#[test]
fn a_sound_beyond_the_models_numbers_is_refused() {
    let folder = Folder::new();
    let loud = tone(16_000, 1, 500).into_channels().remove(0).iter().map(|x| x * 1e38).collect();
    let rate = cascabel::audio::SampleRate::new(16_000).unwrap();
    let loud = cascabel::audio::Sound::new(rate, vec![loud]).unwrap();
    cascabel::audio::write_path(&folder.path("loud.wav"), &loud, cascabel::audio::WavDepth::Float32).unwrap();
    refused(&folder, "process loud.wav -o out.wav", &["loud.wav", "expected finite samples"]);
}
