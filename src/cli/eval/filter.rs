//! A filter against clean references.
//!
//! Files pair by name without extension. Both sounds are brought to the model's rate; each channel is measured and the channels'
//! figures are averaged, then the files'. PESQ and STOI need their reference programs: see `models/data/evaluate.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::{Args, files};
use crate::audio::{SampleRate, Sound, read_path, resample};
use crate::cli::exit::{Tally, complain};
use crate::cli::{SCHEMA, print};
use crate::engine::{ProcessOptions, Processor};
use crate::model::Model;
use crate::train::metrics::{Figures, Meter};
use crate::{Error, Result};

#[derive(Serialize)]
struct Document {
    schema: u32,
    model: String,
    latency_ms: f64,
    files: Vec<Line>,
    mean: Line,
}

/// One file, or the mean of all.
#[derive(Serialize)]
struct Line {
    file: String,
    seconds: f64,
    noisy: Figures,
    processed: Figures,
    /// Seconds of sound a second, on one thread, resampling included.
    times_real_time: f64,
}

pub fn run(args: &Args, model: &Model) -> Result<Tally> {
    let Some(reference) = &args.reference else {
        return Err(Error::input("--reference", "the folder of clean files, for a filter", "nothing"));
    };
    let mut processor = Processor::open(model, ProcessOptions::default())?;
    let rate = SampleRate::new(model.rate().unwrap_or(0))?;
    let pairs = pairs(&args.folder, reference)?;
    let (mut meter, mut lines) = (Meter::new()?, Vec::new());
    for (noisy, clean) in &pairs {
        match measure(&mut processor, &mut meter, rate, noisy, clean) {
            Ok(line) => lines.push(line),
            Err(error) => complain(&error.to_string()),
        }
    }
    let tally = Tally { done: lines.len(), failed: pairs.len() - lines.len() };
    if lines.is_empty() {
        return Ok(tally);
    }
    let latency_ms = 1e3 * rate.seconds(model.latency());
    let document =
        Document { schema: SCHEMA, model: args.model.clone(), latency_ms, mean: mean(&lines), files: lines };
    if args.json {
        print::json(&document)?
    } else {
        print::text(&table(&document))?
    }
    Ok(tally)
}

/// The noisy files in order of name, each with its clean one.
fn pairs(noisy: &Path, clean: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut references = by_stem(clean)?;
    let pair = |(stem, noisy): (String, PathBuf)| {
        let clean = references.remove(&stem).ok_or_else(|| {
            let expected = format!("a clean file of that name in {}", clean.display());
            Error::input(noisy.display().to_string(), expected, "none")
        })?;
        Ok((noisy, clean))
    };
    let pairs = by_stem(noisy)?.into_iter().map(pair).collect::<Result<Vec<_>>>()?;
    if pairs.is_empty() {
        return Err(Error::input(noisy.display().to_string(), "a folder with sound files", "none in it"));
    }
    Ok(pairs)
}

/// The files of a folder by name without extension.
fn by_stem(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut stems = BTreeMap::new();
    for path in files(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(other) = stems.insert(stem, path.clone()) {
            let what = format!("{} and {}", other.display(), path.display());
            return Err(Error::input(what, "names that differ before the extension", "one name"));
        }
    }
    Ok(stems)
}

fn measure(
    processor: &mut Processor<'_>,
    meter: &mut Meter,
    rate: SampleRate,
    noisy: &Path,
    clean: &Path,
) -> Result<Line> {
    let (sound, clean_sound) = (read_path(noisy)?, resample(&read_path(clean)?, rate)?);
    let start = Instant::now();
    let processed = processor.process(&sound)?;
    let spent = start.elapsed().as_secs_f64();
    let (before, after) = (resample(&sound, rate)?, resample(&processed, rate)?);
    let shape = |sound: &Sound| format!("{} channels of {} frames", sound.channel_count(), sound.frames());
    if shape(&before) != shape(&clean_sound) {
        let what = format!("{} at {rate}", clean.display());
        return Err(Error::input(what, shape(&before), shape(&clean_sound)));
    }
    Ok(Line {
        file: noisy.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        seconds: sound.seconds(),
        noisy: figures(meter, &before, &clean_sound)?,
        processed: figures(meter, &after, &clean_sound)?,
        times_real_time: sound.seconds() / spent.max(1e-9),
    })
}

fn figures(meter: &mut Meter, estimate: &Sound, reference: &Sound) -> Result<Figures> {
    let channels = estimate.channels().iter().zip(reference.channels());
    let each = channels.map(|(x, y)| meter.measure(x, y)).collect::<Result<Vec<_>>>()?;
    Ok(mean_figures(&each))
}

/// Means; of the ratios over those that have one.
fn mean_figures(all: &[Figures]) -> Figures {
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let present = |values: Vec<f64>| (!values.is_empty()).then(|| mean(values));
    Figures {
        si_sdr: present(all.iter().filter_map(|f| f.si_sdr).collect()),
        snr: present(all.iter().filter_map(|f| f.snr).collect()),
        lsd: mean(all.iter().map(|f| f.lsd).collect()),
        stft: mean(all.iter().map(|f| f.stft).collect()),
    }
}

fn mean(lines: &[Line]) -> Line {
    let of = |figures: fn(&Line) -> Figures| mean_figures(&lines.iter().map(figures).collect::<Vec<_>>());
    let seconds: f64 = lines.iter().map(|line| line.seconds).sum();
    let spent: f64 = lines.iter().map(|line| line.seconds / line.times_real_time).sum();
    Line {
        file: "mean".into(),
        seconds: seconds / lines.len() as f64,
        noisy: of(|line| line.noisy),
        processed: of(|line| line.processed),
        times_real_time: seconds / spent,
    }
}

fn table(document: &Document) -> String {
    let lines = || document.files.iter().chain([&document.mean]);
    let width = lines().map(|line| line.file.chars().count()).max().unwrap_or(0).max(4);
    let ratio = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let change = |a: Option<f64>, b: Option<f64>| format!("{:>7} → {:>6}", ratio(a), ratio(b));
    let mut text = format!(
        "{:<width$}  {:>8}  {:>16}  {:>16}  {:>16}  {:>16}  {:>9}\n",
        "file", "seconds", "SI-SDR, dB", "SNR, dB", "LSD, dB", "STFT", "× real"
    );
    for Line { file, seconds, noisy: a, processed: b, times_real_time } in lines() {
        text += &format!(
            "{file:<width$}  {seconds:>8.2}  {}  {}  {}  {}  {times_real_time:>9.1}\n",
            change(a.si_sdr, b.si_sdr),
            change(a.snr, b.snr),
            change(Some(a.lsd), Some(b.lsd)),
            change(Some(a.stft), Some(b.stft)),
        );
    }
    text + &format!("latency {:.3} ms\n", document.latency_ms)
}
