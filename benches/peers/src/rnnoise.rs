//! RNNoise (the `nnnoiseless` port, weights inside) over a folder of 48 kHz mono WAV files.
//!
//!     rnnoise IN OUT
//!
//! Each file starts from a fresh state; frames of 480 samples go through one by one as in live use. The output is 32-bit float,
//! as long as the input less an unfinished frame, and late by RNNoise's own delay. Prints `{"audio_s":…,"spent_s":…}`: seconds
//! of sound and seconds of processor time in the denoiser (reading and writing not counted).

use cpu_time::ProcessTime;
use nnnoiseless::DenoiseState;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// RNNoise takes samples in the range of 16-bit integers.
const FULL_SCALE: f32 = 32_768.0;
const RATE: u32 = 48_000;

fn read(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut reader = hound::WavReader::open(path)?;
    let spec = reader.spec();
    if spec.sample_rate != RATE || spec.channels != 1 {
        let got = format!("{} Hz, {} channels", spec.sample_rate, spec.channels);
        return Err(format!("{}: expected {RATE} Hz mono, got {got}", path.display()).into());
    }
    let samples: Result<Vec<f32>, _> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect(),
        hound::SampleFormat::Int => {
            let scale = 1.0 / (1_i64 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|s| s.map(|s| s as f32 * scale)).collect()
        }
    };
    Ok(samples?)
}

fn write(path: &Path, samples: &[f32]) -> Result<(), Box<dyn Error>> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::create(path, spec)?;
    for s in samples {
        writer.write_sample(*s)?;
    }
    Ok(writer.finalize()?)
}

/// Denoises in place and returns the processor time it took.
fn denoise(samples: &mut [f32]) -> Duration {
    let mut state = DenoiseState::new();
    let mut out = [0.0; DenoiseState::FRAME_SIZE];
    let start = ProcessTime::now();
    for frame in samples.chunks_exact_mut(DenoiseState::FRAME_SIZE) {
        for s in frame.iter_mut() {
            *s *= FULL_SCALE;
        }
        state.process_frame(&mut out, frame);
        for (s, o) in frame.iter_mut().zip(out) {
            *s = o / FULL_SCALE;
        }
    }
    start.elapsed()
}

fn run(input: &Path, output: &Path) -> Result<(f64, f64), Box<dyn Error>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(input)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|p| p.extension().is_some_and(|e| e == "wav"));
    files.sort();
    std::fs::create_dir_all(output)?;
    let (mut audio_s, mut spent_s) = (0.0, 0.0);
    for path in &files {
        let mut samples = read(path)?;
        samples.truncate(samples.len() - samples.len() % DenoiseState::FRAME_SIZE);
        spent_s += denoise(&mut samples).as_secs_f64();
        audio_s += samples.len() as f64 / f64::from(RATE);
        if let Some(name) = path.file_name() {
            write(&output.join(name), &samples)?;
        }
    }
    Ok((audio_s, spent_s))
}

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = args.as_slice() else {
        eprintln!("rnnoise: expected IN OUT, got {} arguments", args.len());
        return ExitCode::from(2);
    };
    match run(input, output) {
        Ok((audio_s, spent_s)) => {
            println!("{{\"audio_s\":{audio_s:.3},\"spent_s\":{spent_s:.3}}}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("rnnoise: {}: {e}", input.display());
            ExitCode::from(2)
        }
    }
}
