//! `cascabel bench`: microseconds a row on this machine, and where they go.
//!
//! Inputs vary from row to row; figures are medians over calls. An op's share is measured by running it alone on warm caches, so
//! shares add up to less than a call that streams all weights. The machine's own limits are measured in the same run ([`floors`]), and of a
//! generator of sound what a sample takes as it is made ([`made`]).

mod floors;
mod made;

use std::time::Instant;

use serde::Serialize;

use self::floors::{Floors, Work};
use self::made::Made;
use super::exit::Tally;
use super::{SCHEMA, named, print};
use crate::exec::cpu::{Cpu, Isa};
use crate::exec::{Executor, Feed, Limits, Rows};
use crate::model::{Config, DrawConfig, GeneratorConfig, MambaConfig, Mixer, TierConfig};
use crate::plan::{Input, NormKind, Plan, Weights};
use crate::{Error, Result};

/// Measure microseconds a row on this machine, for flat Mamba models with random weights or for a model; of a generator of sound, a sample as
/// it is made
#[derive(clap::Args)]
pub struct Args {
    /// A bundled model or a model file, in place of the standard set
    #[arg(long, value_name = "NAME|PATH")]
    model: Option<String>,
    /// Add the 130-million-parameter shape, d768×24 (half a gigabyte)
    #[arg(long)]
    large: bool,
    /// Seconds to spend on each figure
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u32,
    isa: String,
    floors: Floors,
    models: Vec<Figures>,
}

#[derive(Serialize)]
struct Figures {
    model: String,
    parameters: usize,
    /// Bytes of packed weights, and how fast a buffer of that size is read.
    weight_bytes: usize,
    read_gb_per_s: f64,
    rows: Vec<Timing>,
    /// How many times the rows a second of one row a call the longest calls reach: T = 512 over T = 1.
    long_over_single: f64,
    /// Of a generator of sound that has a name or a file.
    made: Option<Made>,
    /// Microseconds of each kind of op in a call of one row.
    ops: Vec<(String, f64)>,
}

#[derive(Serialize)]
struct Timing {
    rows: usize,
    /// The median over calls; of tiers whose work comes in bursts, over the means of as many calls as make a period.
    us_per_row: f64,
    p99_us_per_row: f64,
    /// What 999 of 1,000 calls keep to, where there were so many.
    p999_us_per_row: Option<f64>,
    gflops: f64,
    /// What the machine's limits leave at least, and its share of the time taken.
    floor_us_per_row: f64,
    share_of_floor: f64,
}

pub fn run(args: &Args) -> Result<Tally> {
    if !(args.seconds > 0.0 && args.seconds <= 600.0) {
        return Err(Error::input("--seconds", "above 0, at most 600", args.seconds.to_string()));
    }
    let floors = Floors::measure();
    let mut models = Vec::new();
    if let Some(name) = &args.model {
        let model = named::open(name)?.model;
        let made = Made::measure(&model, args.seconds)?;
        models.push(Figures { made, ..measure(name, &model.plan, &model.weights, &floors, args.seconds) });
    } else {
        let shapes = [(64, 8), (128, 8), (256, 8)].into_iter().chain(args.large.then_some((768, 24)));
        for (d_model, blocks) in shapes {
            let plan = flat(d_model, blocks).plan()?;
            let weights = Weights::random(&plan, 1);
            models.push(measure(
                &format!("Mamba d{d_model}×{blocks}, 256-way head"),
                &plan,
                &weights,
                &floors,
                args.seconds,
            ));
        }
    }
    let document = Document { schema: SCHEMA, isa: format!("{:?}", Isa::best()), floors, models };
    if args.json {
        print::json(&document)?
    } else {
        print::text(&page(&document))?
    }
    Ok(Tally::ONE)
}

fn flat(d_model: usize, blocks: usize) -> Config {
    let tier = TierConfig {
        d_model,
        pool: 1,
        shift: 1,
        blocks,
        blocks_up: None,
        mixer: Mixer::Mamba(MambaConfig::default()),
        feed_forward: None,
        norm: NormKind::Rms,
        dropout: 0.0,
    };
    Config::Generator(GeneratorConfig {
        rate: 16_000,
        vocabulary: 256,
        classes: Vec::new(),
        nameless: false,
        tied: false,
        draw: DrawConfig::default(),
        tiers: vec![tier],
    })
}

fn measure(name: &str, plan: &Plan, weights: &Weights, floors: &Floors, seconds: f64) -> Figures {
    let flop = plan.cost().flop_per_row();
    let mut ops: Vec<(String, f64)> = Vec::new();
    let mut timings = Vec::new();
    let weight_bytes = Cpu::open(plan, weights, Limits { max_rows: 1, max_streams: 1 }).weight_bytes();
    let work = Work::of(plan, weight_bytes);
    for rows in [1, 16, 64, 512] {
        let mut cpu = Cpu::open(plan, weights, Limits { max_rows: rows, max_streams: 1 });
        let mut calls = time_calls(&mut cpu, rows, seconds);
        // As many calls as come back to the same phase.
        let phases =
            (1..=plan.period()).find(|calls| (calls * rows).is_multiple_of(plan.period())).unwrap_or(1);
        let means = calls.chunks_exact(phases);
        let mut means: Vec<f64> = means.map(|of| of.iter().sum::<f64>() / of.len() as f64).collect();
        let us = |share: f64, of: &mut [f64]| 1e6 * quantile(share, of) / rows as f64;
        let us_per_row = us(0.5, &mut means);
        let p99_us_per_row = us(0.99, &mut calls);
        let p999_us_per_row = (calls.len() >= 1000).then(|| us(0.999, &mut calls));
        let floor_us_per_row = work.floor_us_per_row(floors, rows);
        timings.push(Timing {
            rows,
            us_per_row,
            p99_us_per_row,
            p999_us_per_row,
            gflops: flop / us_per_row / 1e3,
            floor_us_per_row,
            share_of_floor: floor_us_per_row / us_per_row,
        });
        if rows == 1 {
            let rows = plan.period();
            let mut cpu = Cpu::open(plan, weights, Limits { max_rows: rows, max_streams: 1 });
            time_calls(&mut cpu, rows, 0.0);
            ops = shares(plan, &cpu.time_steps(rows, 20, 20));
        }
    }
    let us = |timing: Option<&Timing>| timing.map_or(f64::NAN, |timing| timing.us_per_row);
    let long_over_single = us(timings.first()) / us(timings.last());
    let (parameters, read_gb_per_s) = (plan.param_count(), work.read_gb_per_s);
    let model = name.into();
    Figures {
        model,
        parameters,
        weight_bytes,
        read_gb_per_s,
        rows: timings,
        long_over_single,
        made: None,
        ops,
    }
}

/// What this share of the values is at most.
fn quantile(share: f64, values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((share * values.len().saturating_sub(1) as f64) as usize).copied().unwrap_or(f64::NAN)
}

/// Seconds of each call of `rows` rows, for `seconds` in all, at least five and a period's.
fn time_calls(cpu: &mut Cpu, rows: usize, seconds: f64) -> Vec<f64> {
    let (input, width) = (cpu.plan().input, cpu.plan().value(cpu.plan().output).width);
    let wave = |n: usize| ((n * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.4;
    let samples: Vec<f32> = match input {
        Input::Samples(width) => (0..rows * width).map(wave).collect(),
        Input::Tokens(_) => Vec::new(),
    };
    let tokens: Vec<u32> = match input {
        Input::Tokens(n) => (0..rows).map(|i| (i * 37 % n) as u32).collect(),
        Input::Samples(_) => Vec::new(),
    };
    let rows_in = if samples.is_empty() { Rows::Tokens(&tokens) } else { Rows::Samples(&samples) };
    let (mut output, mut calls, begun) = (vec![0.0; rows * width], Vec::new(), Instant::now());
    let least = cpu.plan().period().max(5);
    while calls.len() < least || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        if cpu.advance(&[Feed { stream: 0, rows }], rows_in, &mut output).is_err() {
            break;
        }
        calls.push(start.elapsed().as_secs_f64());
    }
    calls
}

/// Microseconds by kind of op and last part of its name, most first.
fn shares(plan: &Plan, seconds: &[f64]) -> Vec<(String, f64)> {
    let mut sums = std::collections::BTreeMap::new();
    for (op, seconds) in plan.ops.iter().zip(seconds) {
        let last = op.name.rsplit('.').next().unwrap_or_default();
        *sums.entry(format!("{last} ({})", op.kind.name())).or_insert(0.0) += 1e6 * seconds;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums
}

fn page(document: &Document) -> String {
    let Floors { gflops, scan_g_per_s, .. } = document.floors;
    let reads = [
        document.floors.read_half_mb_gb_per_s,
        document.floors.read_8_mb_gb_per_s,
        document.floors.read_256_mb_gb_per_s,
    ];
    let mut text = format!("instruction set: {}\n", document.isa);
    text += &format!(
        "this machine, one core: {gflops:.0} GFLOP/s; reads of 0.5, 8 and 256 MB {:.0}, {:.0} and {:.0} GB/s; {scan_g_per_s:.1} G scan elements/s\n",
        reads[0], reads[1], reads[2]
    );
    for figures in &document.models {
        text += &format!(
            "\n{} ({} parameters, {:.2} MB of weights, read at {:.0} GB/s)\n",
            figures.model,
            figures.parameters,
            figures.weight_bytes as f64 / 1e6,
            figures.read_gb_per_s
        );
        for t in &figures.rows {
            text += &format!(
                "  {:>4} rows a call: {:>10.3} µs a row (99%: {:.3}{}), {:.1} GFLOP/s, floor {:.3} µs: {:.0}%\n",
                t.rows,
                t.us_per_row,
                t.p99_us_per_row,
                t.p999_us_per_row.map_or(String::new(), |us| format!(", 99.9%: {us:.3}")),
                t.gflops,
                t.floor_us_per_row,
                100.0 * t.share_of_floor
            );
        }
        text += &format!("  T = 512 over T = 1: {:.2} times the rows a second\n", figures.long_over_single);
        text += &figures.made.as_ref().map_or(String::new(), Made::line);
        let all: f64 = figures.ops.iter().map(|(_, us)| us).sum();
        for (name, us) in &figures.ops {
            text += &format!("    {name:<32} {us:>9.3} µs {:>5.1}%\n", 100.0 * us / all);
        }
    }
    text
}
