//! The command as a user meets it: every verb, every kind of bad input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cascabel::audio::{SampleRate, Sound, WavDepth, read_path, write_path};

/// A folder that goes away with the test, and the command run in it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command starts")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascabel"));
        command.current_dir(self.0.path()).args(args);
        command
    }

    fn sound(&self, name: &str, rate: u32, channels: usize, frames: usize) -> PathBuf {
        let wave = |c: usize| (0..frames).map(|n| 0.3 * ((n * (c + 3)) as f32 * 0.01).sin()).collect();
        let sound = Sound::new(SampleRate::new(rate).unwrap(), (0..channels).map(wave).collect()).unwrap();
        let path = self.path(name);
        write_path(&path, &sound, WavDepth::Int16).unwrap();
        path
    }

    /// Everything in the folder, hidden files included.
    fn files(&self) -> Vec<String> {
        let name =
            |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = std::fs::read_dir(self.0.path()).unwrap().map(name).collect();
        names.sort();
        names
    }

    /// Runs, and expects exit code 2, one line on standard error that holds every word, and no new file.
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let before = self.files();
        let out = self.run(args);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{args:?}: {word:?} is not in {text}"));
        assert_eq!(self.files(), before, "{args:?} left something behind");
    }
}

fn succeeds(out: Output) -> Output {
    assert!(out.status.success(), "{:?}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    out
}

fn model_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/denoise.safetensors")
}

#[test]
fn a_file_comes_out_as_long_as_it_went_in() {
    let bench = Bench::new();
    for (rate, channels, frames) in
        [(16_000, 1, 1), (16_000, 2, 4_001), (44_100, 1, 12_347), (8_000, 3, 999), (48_000, 2, 5)]
    {
        bench.sound("in.wav", rate, channels, frames);
        succeeds(bench.run(&["process", "in.wav", "-o", "out.wav"]));
        let out = read_path(&bench.path("out.wav")).unwrap();
        assert_eq!((out.rate().hz(), out.channel_count(), out.frames()), (rate, channels, frames));
    }
}

#[test]
fn a_pipe_gives_what_a_file_gives() {
    let bench = Bench::new();
    let input = bench.sound("in.wav", 22_050, 2, 9_000);
    succeeds(bench.run(&["process", "in.wav", "-o", "out.wav", "--depth", "32f", "--mix", "0.7"]));
    let mut child = bench
        .command(&["process", "-", "-o", "-", "--depth", "32f", "--mix", "0.7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(input).unwrap()).unwrap();
    let out = succeeds(child.wait_with_output().unwrap());
    assert!(out.stdout == std::fs::read(bench.path("out.wav")).unwrap());
}

#[test]
fn mix_zero_is_the_input_and_no_align_is_late() {
    let bench = Bench::new();
    let input = read_path(&bench.sound("in.wav", 16_000, 1, 8_000)).unwrap();
    succeeds(bench.run(&["process", "in.wav", "-o", "dry.wav", "--mix", "0"]));
    assert_eq!(read_path(&bench.path("dry.wav")).unwrap().channels(), input.channels());
    succeeds(bench.run(&["process", "in.wav", "-o", "a.wav", "--depth", "32f"]));
    succeeds(bench.run(&["process", "in.wav", "-o", "b.wav", "--depth", "32f", "--no-align"]));
    let (a, b) = (read_path(&bench.path("a.wav")).unwrap(), read_path(&bench.path("b.wav")).unwrap());
    assert_eq!(a.channels()[0][..8_000 - 96], b.channels()[0][96..]);
}

#[test]
fn every_format_is_read() {
    let bench = Bench::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for name in [
        "chirp.wav",
        "chirp.flac",
        "chirp.ogg",
        "chirp.mp3",
        "chirp.m4a",
        "chirp.aiff",
        "chirp.caf",
        "chirp.mkv",
    ] {
        let file = data.join(name);
        succeeds(bench.run(&["process", file.to_str().unwrap(), "-o", "out.wav"]));
        let (input, out) = (read_path(&file).unwrap(), read_path(&bench.path("out.wav")).unwrap());
        assert_eq!((out.rate(), out.frames()), (input.rate(), input.frames()), "{name}");
    }
}

#[test]
fn of_many_files_the_good_are_done_and_then_skipped() {
    let bench = Bench::new();
    bench.sound("a.wav", 16_000, 1, 3_000);
    bench.sound("b.wav", 48_000, 2, 3_000);
    std::fs::write(bench.path("bad.wav"), b"not a sound at all").unwrap();
    let args = ["process", "a.wav", "bad.wav", "b.wav", "-o", "cleaned/", "--jobs", "2"];
    let out = bench.run(&args);
    assert_eq!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("bad.wav"));
    assert!(bench.path("cleaned/a.wav").exists() && bench.path("cleaned/b.wav").exists());
    assert!(!bench.path("cleaned/bad.wav").exists());
    let written = || std::fs::metadata(bench.path("cleaned/a.wav")).unwrap().modified().unwrap();
    let before = written();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.run(&args).status.code(), Some(1));
    assert_eq!(written(), before, "a file that was done was done again");
    succeeds(bench.run(&["process", "a.wav", "b.wav", "-o", "cleaned/", "--force"]));
    assert_ne!(written(), before);
}

#[test]
fn bad_sound_is_refused_in_one_line() {
    let bench = Bench::new();
    let whole = std::fs::read(bench.sound("good.wav", 16_000, 1, 4_000)).unwrap();
    std::fs::write(bench.path("empty.wav"), b"").unwrap();
    std::fs::write(bench.path("short.wav"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(bench.path("text.flac"), b"some words").unwrap();
    let mut slow = whole.clone();
    slow[24..28].copy_from_slice(&8u32.to_le_bytes());
    std::fs::write(bench.path("slow.wav"), slow).unwrap();
    let mut none = whole.clone();
    none[22..24].copy_from_slice(&0u16.to_le_bytes());
    std::fs::write(bench.path("none.wav"), none).unwrap();
    let spec = Sound::new(SampleRate::new(16_000).unwrap(), vec![vec![0.5; 100]]).unwrap();
    write_path(&bench.path("nan.wav"), &spec, WavDepth::Float32).unwrap();
    let mut nan = std::fs::read(bench.path("nan.wav")).unwrap();
    let at = nan.len() - 40;
    nan[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(bench.path("nan.wav"), nan).unwrap();
    std::fs::create_dir(bench.path("folder")).unwrap();
    for name in
        ["empty.wav", "short.wav", "text.flac", "slow.wav", "none.wav", "nan.wav", "folder", "missing.wav"]
    {
        bench.refuses(&["process", name, "-o", "out.wav"], &[name]);
    }
    bench.refuses(&["process", "good.wav", "-o", "no/such/folder/out.wav"], &["out.wav"]);
    bench.refuses(&["process", "good.wav", "-o", "out.wav", "--mix", "1.5"], &["mix", "1.5"]);
}

#[test]
fn a_damaged_model_is_refused_in_one_line() {
    let bench = Bench::new();
    bench.sound("in.wav", 16_000, 1, 100);
    let whole = std::fs::read(model_path()).unwrap();
    for cut in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(bench.path("m.safetensors"), &whole[..cut]).unwrap();
        bench
            .refuses(&["process", "in.wav", "-o", "out.wav", "--model", "m.safetensors"], &["m.safetensors"]);
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(bench.path("m.safetensors"), huge).unwrap();
    bench.refuses(&["info", "m.safetensors"], &["m.safetensors"]);
    let swap = |from: &str, to: &str| {
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let text = String::from_utf8(whole[8..header].to_vec()).unwrap();
        assert!(text.contains(from));
        let text = text.replacen(from, to, 1);
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &whole[header..]].concat()
    };
    std::fs::write(
        bench.path("m.safetensors"),
        swap("\\\"format_version\\\":1", "\\\"format_version\\\":99"),
    )
    .unwrap();
    bench.refuses(&["info", "m.safetensors"], &["version", "99"]);
    bench.refuses(&["info", "no-such-model"], &["denoise"]);
    let mut nan = whole.clone();
    let at = nan.len() - 8;
    nan[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(bench.path("m.safetensors"), nan).unwrap();
    bench.refuses(&["info", "m.safetensors"], &["finite"]);
}

#[test]
fn info_and_eval_speak_json() {
    let bench = Bench::new();
    let out = succeeds(bench.run(&["info", "denoise", "--plan", "--json"]));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["latency_frames"], 96);
    assert!(document["plan"].as_array().unwrap().len() > 20);
    assert!(document["gmac_per_second"].as_f64().unwrap() <= 0.1);
    for folder in ["noisy", "clean"] {
        std::fs::create_dir(bench.path(folder)).unwrap();
        bench.sound(&format!("{folder}/x.wav"), 16_000, 1, 16_000);
    }
    let out = succeeds(bench.run(&["eval", "noisy", "--reference", "clean", "--json"]));
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert!(document["mean"]["processed"]["si_sdr"].is_number());
}

#[test]
fn import_takes_both_namings() {
    let bench = Bench::new();
    for naming in ["hf", "original"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/mamba_lm/tiny").join(naming);
        succeeds(bench.run(&["import", folder.to_str().unwrap(), "-o", "lm.safetensors"]));
        succeeds(bench.run(&["info", "lm.safetensors", "--plan"]));
    }
    bench.sound("in.wav", 16_000, 1, 100);
    bench.refuses(
        &["process", "in.wav", "-o", "out.wav", "--model", "lm.safetensors"],
        &["filter", "language"],
    );
    bench.refuses(&["import", "nowhere", "-o", "x.safetensors"], &["nowhere"]);
}

#[test]
fn a_small_training_stops_and_resumes() {
    let bench = Bench::new();
    for folder in ["speech", "noise"] {
        std::fs::create_dir(bench.path(folder)).unwrap();
        bench.sound(&format!("{folder}/a.wav"), 16_000, 1, 32_000);
    }
    let recipe = r#"
name = "tiny"
seed = 1
model = { kind = "filter", rate = 16000, hop = 32, window = 64, basis_window = 64, tiers = [{ d_model = 8, blocks = 1, mixer = { kind = "mamba", d_state = 4 } }] }
data = { clean = ["speech"], noise = ["noise"], valid_clean = ["speech"], valid_noise = ["noise"] }
mix = { seconds = 0.5 }
loss = { l1 = 1.0, resolutions = [[256, 64]] }
schedule = { peak = 1e-3, last = 1e-4, warm_up = 1, steps = 6 }
run = { batch = 2, valid_every = 3, valid_examples = 2 }
"#;
    std::fs::write(bench.path("tiny.toml"), recipe).unwrap();
    succeeds(bench.run(&["train", "tiny.toml", "--out", "whole", "--threads", "2"]));
    succeeds(bench.run(&["train", "tiny.toml", "--out", "cut", "--threads", "1", "--minutes", "0.0005"]));
    succeeds(bench.run(&["train", "tiny.toml", "--out", "cut", "--threads", "1", "--resume"]));
    let model = |run: &str| std::fs::read(bench.path(&format!("{run}/tiny.safetensors"))).unwrap();
    let weights = |bytes: &[u8]| cascabel::model::Model::from_bytes(bytes, "tiny").unwrap().weights;
    assert!(weights(&model("whole")) == weights(&model("cut")), "a resumed run went another way");
    assert!(bench.path("whole/tiny.loss.png").exists());
    std::fs::write(bench.path("typo.toml"), recipe.replace("peak", "peek")).unwrap();
    bench.refuses(&["train", "typo.toml", "--out", "typo"], &["typo.toml", "peek"]);
}
