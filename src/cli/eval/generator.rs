//! The bits that a sample costs a generator: −log₂ of the share it gave to what came, over whole files with carried state.
//!
//! A file is heard as `generate` hears a prompt: the mean of its channels, resampled, in mu-law as it is, after one token of silence. Where the
//! model has classes, a file is of the class that its name begins with. The mean is over files; its interval is of their bootstrap
//! (Efron 1979; 2,000 draws, 95%).

use std::time::Instant;

use serde::Serialize;

use super::{Args, files};
use crate::audio::SampleRate;
use crate::cli::exit::{Tally, complain};
use crate::cli::tokens::heard;
use crate::cli::{SCHEMA, print};
use crate::engine::{Generator, GeneratorOptions, Spot};
use crate::model::{GeneratorConfig, Model};
use crate::plan::Draws;
use crate::{Error, Result};

#[derive(Serialize)]
struct Document {
    schema: u32,
    model: String,
    files: Vec<Line>,
    mean: Mean,
}

#[derive(Serialize)]
struct Line {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    samples: usize,
    bits_per_sample: f64,
}

#[derive(Serialize)]
struct Mean {
    files: usize,
    samples: usize,
    bits_per_sample: f64,
    /// 95%, of the mean over files.
    interval: [f64; 2],
    /// Seconds of sound a second, on one thread.
    times_real_time: f64,
}

pub fn run(args: &Args, model: &Model, config: &GeneratorConfig) -> Result<Tally> {
    if args.reference.is_some() {
        return Err(Error::input(
            "--reference",
            "not with a generator, which is judged by files alone",
            "it",
        ));
    }
    let rate = SampleRate::new(config.rate)?;
    config.of_mu_law()?;
    let files = files(&args.folder)?;
    if files.is_empty() {
        let folder = args.folder.display().to_string();
        return Err(Error::input(folder, "a folder with sound files", "none in it"));
    }
    let mut generator = Generator::open(model, GeneratorOptions::default())?;
    let begin = generator.spot(0);
    let (mut lines, mut spent) = (Vec::new(), 0.0);
    for path in &files {
        let mut measure = || {
            let class = config.class_of(&path.file_stem().unwrap_or_default().to_string_lossy())?;
            let (tokens, _) = heard(path, rate)?;
            let start = Instant::now();
            let nats = cost(&mut generator, begin.as_ref(), class, &tokens)?;
            spent += start.elapsed().as_secs_f64();
            Ok(Line {
                file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                class: config.classes.get(class).cloned(),
                samples: tokens.len(),
                bits_per_sample: nats / std::f64::consts::LN_2 / tokens.len() as f64,
            })
        };
        match measure() {
            Ok(line) => lines.push(line),
            Err(error) => complain(&Error::to_string(&error)),
        }
    }
    let tally = Tally { done: lines.len(), failed: files.len() - lines.len() };
    if lines.is_empty() {
        return Ok(tally);
    }
    let samples = lines.iter().map(|line| line.samples).sum();
    let bits: Vec<f64> = lines.iter().map(|line| line.bits_per_sample).collect();
    let mean = Mean {
        files: lines.len(),
        samples,
        bits_per_sample: bits.iter().sum::<f64>() / bits.len() as f64,
        interval: interval(&bits),
        times_real_time: rate.seconds(samples) / spent.max(1e-9),
    };
    let document = Document { schema: SCHEMA, model: args.model.clone(), files: lines, mean };
    if args.json {
        print::json(&document)?
    } else {
        print::text(&table(&document))?
    }
    Ok(tally)
}

/// Nats of a whole file, from the beginning.
fn cost(generator: &mut Generator, begin: Option<&Spot>, class: usize, tokens: &[u32]) -> Result<f64> {
    if let Some(begin) = begin {
        generator.go_to(0, begin)?;
    }
    generator.set_class(0, class)?;
    generator.surprise(0, tokens)
}

/// Where 95% of the means of as many draws from `values` lie.
fn interval(values: &[f64]) -> [f64; 2] {
    const DRAWS: usize = 2_000;
    let mean = |draw: usize| {
        let mut draws = Draws::new(1, draw as u64);
        let one = |_| values.get(draws.below(values.len())).copied().unwrap_or(0.0);
        (0..values.len()).map(one).sum::<f64>() / values.len() as f64
    };
    let mut means: Vec<f64> = (0..DRAWS).map(mean).collect();
    means.sort_by(f64::total_cmp);
    [means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40]]
}

fn table(document: &Document) -> String {
    let width = document.files.iter().map(|line| line.file.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("{:<width$}  {:>9}  {:>15}\n", "file", "samples", "bits per sample");
    for Line { file, samples, bits_per_sample, .. } in &document.files {
        text += &format!("{file:<width$}  {samples:>9}  {bits_per_sample:>15.4}\n");
    }
    let Mean { files, samples, bits_per_sample, interval: [low, high], times_real_time } = &document.mean;
    let name = format!("mean of {files}");
    text += &format!("{name:<width$}  {samples:>9}  {bits_per_sample:>15.4}  [{low:.4}, {high:.4}]\n");
    text + &format!("{times_real_time:.1} × real time\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_means() {
        // 400 values of deviation 1: a mean's is 0.05, and 95% lie within 1.96 of that.
        let values: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 1.0 } else { 3.0 }).collect();
        let [low, high] = interval(&values);
        assert!((low - (2.0 - 0.098)).abs() < 0.012 && (high - 2.098).abs() < 0.012, "{low} {high}");
        assert_eq!(interval(&[1.5]), [1.5, 1.5]);
    }
}
