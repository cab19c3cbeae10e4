//! A folder to work in, the program, and what it said.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cascabel::audio::{SampleRate, Sound, WavDepth, read_path, write_path};
use cascabel::model::{Card, Config, Model};
use cascabel::plan::Weights;

/// What a run came to.
pub struct Run {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Run {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.text());
        self
    }

    /// Refused: this code, nothing on standard output, one line that holds each part.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        assert!(self.err.ends_with('\n') && self.err.lines().count() == 1, "not one line: {:?}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in {:?}", self.err);
        }
    }
}

/// A temporary folder in which the program runs.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every file and every empty folder below, by relative path.
    pub fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let before = found.len();
                if path.is_dir() {
                    walk(&path, found);
                }
                if found.len() == before {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), &mut found);
        let name = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().display().to_string();
        let mut names: Vec<_> = found.iter().map(name).collect();
        names.sort();
        names
    }

    pub fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    /// Runs the program with these words and this standard input.
    pub fn run_with(&self, line: &str, input: &[u8]) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cascabel"))
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The program need not read it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn sound(&self, name: &str) -> Sound {
        read_path(&self.path(name)).unwrap()
    }

    /// Writes tones of other pitches in each channel.
    pub fn tone(&self, name: &str, rate: u32, channels: usize, frames: usize) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        write_path(&self.path(name), &tone(rate, channels, frames), WavDepth::Float32).unwrap();
    }

    /// Writes an untrained filter: its output follows its input, `latency` 69.
    pub fn filter(&self, name: &str) -> Model {
        let model = filter();
        model.save(self.path(name)).unwrap();
        model
    }
}

pub fn tone(rate: u32, channels: usize, frames: usize) -> Sound {
    let wave = |c: usize| {
        let step = std::f32::consts::TAU * (300 + 200 * c) as f32 / rate as f32;
        (0..frames).map(|n| 0.3 * (step * n as f32).sin()).collect()
    };
    Sound::new(SampleRate::new(rate).unwrap(), (0..channels).map(wave).collect()).unwrap()
}

pub fn filter() -> Model {
    let config: Config = serde_json::from_str(
        r#"{"kind": "filter", "rate": 16000, "hop": 16, "window": 64, "basis_window": 64, "lookahead": 5,
            "tiers": [{"d_model": 8, "blocks": 1, "mixer": {"kind": "s4d", "d_state": 4}}]}"#,
    )
    .unwrap();
    let weights = Weights::random(&config.plan().unwrap(), 3);
    Model::new(config, weights, Card { name: "untrained".into(), ..Card::default() }).unwrap()
}
