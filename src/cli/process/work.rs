//! The jobs of a run, on several threads.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::ledger::{Ledger, key};
use super::plan::{End, Job, Run};
use crate::audio::{Sound, Written, could_be_folder, read_path, read_stream, write_path, write_stream};
use crate::cli::exit::{Tally, complain};
use crate::cli::{named, picture, print, stop};
use crate::engine::Processor;
use crate::{Error, Result};

/// What came of a job.
struct Report {
    line: String,
    /// Length of the sound; none if it had been done before.
    seconds: Option<f64>,
    clipped: u64,
}

/// What the threads share.
struct Shared<'a> {
    run: &'a Run,
    model: &'a named::Named,
    ledger: Option<Ledger>,
    bar: ProgressBar,
    next: AtomicUsize,
}

/// Runs every job; complains about each that fails.
pub fn run(run: &Run) -> Result<Tally> {
    let model = named::open(&run.model)?;
    // Wrong options are one complaint, not one for each file.
    Processor::open(&model.model, run.options)?;
    if let Some(folder) = &run.folder {
        could_be_folder(folder)?;
    }
    let ledger = run.folder.as_deref().map(Ledger::open);
    let shared = Shared { run, model: &model, ledger, bar: bar(run.jobs.len()), next: AtomicUsize::new(0) };
    let start = Instant::now();
    let results: Vec<Result<Report>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..run.threads).map(|_| scope.spawn(|| worker(&shared))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    shared.bar.finish_and_clear();
    if let Some(ledger) = &shared.ledger {
        ledger.save()?;
    }
    finish(run, &results, start.elapsed())
}

/// Takes jobs until none is left or the run is stopped.
fn worker(shared: &Shared<'_>) -> Vec<Result<Report>> {
    let mut results = Vec::new();
    let mut processor = match Processor::open(&shared.model.model, shared.run.options) {
        Ok(processor) => processor,
        Err(error) => return vec![Err(error)],
    };
    while let Some(job) = shared.run.jobs.get(shared.next.fetch_add(1, Ordering::Relaxed)) {
        let result = one(shared, &mut processor, job);
        match &result {
            Err(Error::Stopped(_)) => {
                shared.next.store(shared.run.jobs.len(), Ordering::Relaxed);
            }
            Err(error) => shared.bar.suspend(|| complain(&error.to_string())),
            Ok(report) if report.clipped > 0 => {
                let n = report.clipped;
                let line =
                    format!("{}: {n} samples beyond full scale cut (not with --depth 32f)", name(&job.to));
                shared.bar.suspend(|| complain(&line));
            }
            Ok(_) => {}
        }
        shared.bar.inc(1);
        results.push(result);
    }
    results
}

/// One sound, from its file to its file.
fn one(shared: &Shared<'_>, processor: &mut Processor<'_>, job: &Job) -> Result<Report> {
    let run = shared.run;
    let sound = match &job.from {
        // Before it has been read whole, nothing can be half-written: Ctrl-C may end the program.
        End::Pipe => read_stream(std::io::stdin().lock(), "standard input")?,
        End::File(_) if stop::flag()?.load(Ordering::Relaxed) => {
            return Err(Error::Stopped("before the next file".into()));
        }
        End::File(path) => {
            if let Some(report) = done_before(shared, path, &job.to) {
                return Ok(report);
            }
            read_path(path)?
        }
    };
    processor.stopped_by(stop::flag()?);
    let start = Instant::now();
    let clean = processor.process(&sound).map_err(|e| about(&job.from, e))?;
    let spent = start.elapsed();
    // Made for the first sound that is good.
    if let Some(folder) = &run.folder {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    }
    let written = write(&job.to, &clean, run)?;
    if let (Some(ledger), End::File(from), End::File(to)) = (&shared.ledger, &job.from, &job.to)
        && from.is_file()
    {
        ledger.add(to, &key(from, &shared.model.hash, &run.fingerprint())?)?;
    }
    if let Some(path) = &run.picture {
        draw(path, &sound, &clean)?;
    }
    let times = sound.seconds() / spent.as_secs_f64().max(1e-9);
    let line = format!(
        "{}: {:.3} s at {}, {} channel(s), {times:.1} × real time, level {:.1} → {:.1} dB of full scale",
        name(&job.to),
        sound.seconds(),
        sound.rate(),
        sound.channel_count(),
        level(&sound),
        level(&clean)
    );
    Ok(Report { line, seconds: Some(sound.seconds()), clipped: written.clipped })
}

/// A report if the ledger has this file. An input that cannot be hashed gets its error where it is read.
fn done_before(shared: &Shared<'_>, from: &Path, to: &End) -> Option<Report> {
    let (Some(ledger), End::File(to), false) = (&shared.ledger, to, shared.run.force) else {
        return None;
    };
    let key = from.is_file().then(|| key(from, &shared.model.hash, &shared.run.fingerprint()).ok())??;
    let report = || Report { line: format!("{}: done before", to.display()), seconds: None, clipped: 0 };
    ledger.has(to, &key).then(report)
}

fn write(to: &End, sound: &Sound, run: &Run) -> Result<Written> {
    match to {
        End::Pipe => write_stream(std::io::stdout().lock(), "standard output", sound, run.depth),
        End::File(path) => write_path(path, sound, run.depth),
    }
}

/// Both first channels, one above the other.
fn draw(path: &Path, before: &Sound, after: &Sound) -> Result<()> {
    let first = |sound: &'_ Sound| sound.channels().first().cloned().unwrap_or_default();
    let (x, y) = (first(before), first(after));
    picture::spectrogram_png(path, &[("before", &x), ("after", &y)], before.rate().hz())
}

/// The summary, and the tally or the stop.
fn finish(run: &Run, results: &[Result<Report>], spent: Duration) -> Result<Tally> {
    let reports: Vec<_> = results.iter().flatten().collect();
    if results.iter().any(|r| matches!(r, Err(Error::Stopped(_)))) {
        return Err(Error::Stopped(format!("{} of {} files done and kept", reports.len(), run.jobs.len())));
    }
    let tally = Tally { done: reports.len(), failed: run.jobs.len() - reports.len() };
    match (run.jobs.as_slice(), reports.as_slice()) {
        ([Job { to: End::Pipe, .. }], _) | ([_], []) => {}
        ([_], [report, ..]) => print::text(&format!("{}\n", report.line))?,
        _ => {
            let seconds: Vec<f64> = reports.iter().filter_map(|r| r.seconds).collect();
            let (total, fresh) = (seconds.iter().sum::<f64>(), seconds.len());
            let skipped = tally.done - fresh;
            let times = total / spent.as_secs_f64().max(1e-9);
            let speed =
                if fresh == 0 { String::new() } else { format!("; {total:.1} s at {times:.1} × real time") };
            let line = format!("{fresh} files done, {skipped} done before, {} failed{speed}\n", tally.failed);
            print::text(&line)?;
        }
    }
    Ok(tally)
}

/// A bar on a terminal for more than one file.
fn bar(jobs: usize) -> ProgressBar {
    if jobs < 2 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left");
    ProgressBar::new(jobs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn name(end: &End) -> String {
    match end {
        End::Pipe => "standard output".into(),
        End::File(path) => path.display().to_string(),
    }
}

/// The error with the input's name before it.
fn about(from: &End, error: Error) -> Error {
    let from = match from {
        End::Pipe => "standard input".into(),
        End::File(path) => path.display().to_string(),
    };
    match error {
        Error::Input { what, expected, got } => Error::input(format!("{from}: {what}"), expected, got),
        other => other,
    }
}

/// Root mean square of all channels, in dB of full scale.
fn level(sound: &Sound) -> f64 {
    let squares: f64 = sound.channels().iter().flatten().map(|x| f64::from(*x).powi(2)).sum();
    10.0 * (squares / (sound.frames() * sound.channel_count()) as f64).max(1e-12).log10()
}
