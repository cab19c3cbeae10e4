//! `cascabel train`: a recipe becomes a model file.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

mod together;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::exit::Tally;
use super::picture::{Series, curve_png};
use super::{print, stop};
use crate::exec::candle::device;
use crate::train::peers::Place;
use crate::train::recipe::{Lesson, Recipe};
use crate::train::run::{Event, Files, RunOptions, train};
use crate::{Error, Result};

/// Train a filter or a generator of sound, or a test of memory, by a recipe; Ctrl-C writes a checkpoint and the model so far
///
/// The recipe's folders are looked for from where the command runs. Without --resume a run of the same name in OUT is replaced.
///
/// OUT gets NAME.safetensors (the model), NAME.checkpoint.safetensors (in parts where `[run] checkpoint_mib` says so),
/// NAME.log.jsonl and NAME.loss.png.
#[derive(clap::Args)]
pub struct Args {
    /// The recipe, TOML
    recipe: PathBuf,
    /// Continue from the checkpoint in OUT, if there is one
    #[arg(long)]
    resume: bool,
    /// Begin with the weights of a model of the same shape, bundled or a file, instead of random ones
    #[arg(long, value_name = "MODEL")]
    from: Option<String>,
    /// The folder for model, checkpoint, log and loss curve
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Stop after so many minutes, with a checkpoint
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Where the model learns: cpu, cuda, cuda:1
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Train on several GPUs of this machine, one process each: 0,1; under torchrun, Slurm or Open MPI leave it out
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "device")]
    devices: Vec<usize>,
    /// Threads; as many as there are processors without it
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

pub fn run(args: Args) -> Result<Tally> {
    let recipe = Recipe::load(&args.recipe)?;
    if let Some(first) = args.devices.first() {
        if !cfg!(feature = "train-cuda") {
            device(&format!("cuda:{first}"))?;
        }
        return together::run(&args.devices);
    }
    let place = Place::from_launcher(|name| std::env::var(name).ok())?;
    // Under a launcher each process of a machine has a GPU of its own.
    let named = match &place {
        Some(place) if args.device == "cuda" => format!("cuda:{}", place.local_rank),
        _ => args.device,
    };
    let from = args.from.as_deref().map(super::named::open).transpose()?.map(|named| named.model);
    let leads = place.as_ref().is_none_or(|place| place.rank == 0);
    let files = Files::of(&recipe, &args.out);
    let bar = ProgressBar::new(recipe.schedule.steps);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let unit = match recipe.lesson()? {
        Lesson::Filter(..) => "loss",
        Lesson::Generator(..) => "bits a sample",
        Lesson::Recall(..) => "bits an answer",
    };
    let mut reached = 0;
    let mut observe = |event: &Event| {
        if let Event::Saved { step } = event {
            reached = *step;
        }
        show(&bar, event, unit);
    };
    let mut options = RunOptions {
        out: args.out,
        resume: args.resume,
        from,
        minutes: args.minutes,
        device: device(&named)?,
        threads: args.threads.map(NonZeroUsize::get),
        place,
        commit: option_env!("CASCABEL_COMMIT").unwrap_or("").into(),
        stop: stop::flag()?,
        observe: &mut observe,
    };
    let trained = train(&recipe, &mut options);
    bar.finish_and_clear();
    trained?;
    if !leads {
        return Ok(Tally::ONE);
    }
    draw(&files, unit)?;
    let (name, steps) = (files.model.display(), recipe.schedule.steps);
    let left = format!("{name}: {reached} of {steps} steps trained; --resume goes on");
    if reached >= steps {
        print::text(&format!("{name}: trained\n"))?;
    } else if stop::flag()?.load(Ordering::Relaxed) {
        return Err(Error::Stopped(left));
    } else {
        print::text(&format!("{left}\n"))?;
    }
    Ok(Tally::ONE)
}

/// Shows an event on the bar; the loss is in these units.
fn show(bar: &ProgressBar, event: &Event, unit: &str) {
    let line = match event {
        Event::Step { step, loss, parts, speed, seconds, .. } => {
            let loss = match parts {
                Some(_) => format!("loss {loss:.4}"),
                None => format!("{loss:.4} {unit}"),
            };
            bar.set_position(step + 1);
            let speed =
                if unit == "bits an answer" { String::new() } else { format!("  {speed:.0} s of sound/s") };
            bar.set_message(format!("{loss}{speed}"));
            if bar.is_hidden() && step % 50 == 0 {
                Some(format!("step {step}: {loss}, {seconds:.0} s"))
            } else {
                None
            }
        }
        Event::Data { clean_seconds, noise_seconds, parameters, .. } => {
            let hours = |seconds: f64| seconds / 3600.0;
            let sound = match noise_seconds {
                Some(noise) => {
                    format!("{:.2} h of clean sound, {:.2} h of noise", hours(*clean_seconds), hours(*noise))
                }
                None if *clean_seconds == 0.0 => "sequences without end".into(),
                None => format!("{:.2} h of sound", hours(*clean_seconds)),
            };
            Some(format!("{sound}, {parameters} parameters"))
        }
        Event::Together { processes, way } => {
            Some(format!("{processes} processes train together, over {way}"))
        }
        Event::Recipe { step, was, now } => Some(format!(
            "step {step}: the recipe is not the checkpoint's (first `{now}`, there `{was}`); going on with the new one"
        )),
        Event::Valid { step, figures } => Some(format!("step {step}: {figures}")),
        Event::Saved { step } => Some(format!("step {step}: checkpoint written")),
    };
    if let Some(line) = line {
        if std::io::stderr().is_terminal() { bar.println(line) } else { eprintln!("{line}") }
    }
}

/// A line of the log, as far as the curve needs it.
#[derive(Deserialize)]
struct LogLine {
    step: Option<u64>,
    loss: Option<f64>,
    figures: Option<LoggedFigures>,
}

#[derive(Deserialize)]
struct LoggedFigures {
    #[serde(alias = "bits_per_sample")]
    loss: Option<f64>,
}

/// Draws the loss curve from the whole log, earlier sittings included.
fn draw(files: &Files, loss: &str) -> Result<()> {
    let text = std::fs::read_to_string(&files.log).map_err(|e| Error::io("read", &files.log, e))?;
    let lines: Vec<LogLine> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let steps: Vec<(f64, f64)> = lines.iter().filter_map(|l| Some((l.step? as f64, l.loss?))).collect();
    let mean = |w: &[(f64, f64)]| {
        let sum = |f: fn(&(f64, f64)) -> f64| w.iter().map(f).sum::<f64>() / w.len() as f64;
        (sum(|p| p.0), sum(|p| p.1))
    };
    let smooth: Vec<(f64, f64)> = steps.chunks(20).map(mean).collect();
    let valid: Vec<(f64, f64)> =
        lines.iter().filter_map(|l| Some((l.step? as f64, l.figures.as_ref()?.loss?))).collect();
    let series = [
        Series { name: "training, mean of 20", points: &smooth },
        Series { name: "validation", points: &valid },
    ];
    let path = files.model.with_extension("loss.png");
    curve_png(&path, loss, "step", loss, &series)
}
