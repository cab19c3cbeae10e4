//! One step of Mamba (T = 1, a 256-way tied head, f32, one thread): Cascabel, mamba-rs and candle-transformers with the same
//! weights, in one interleaved run.
//!
//!     mamba [--rounds N] [--json FILE]
//!
//! Every round gives each engine the same number of steps, one engine after the other, so that what disturbs the machine
//! disturbs all. Printed: the median over rounds of microseconds a step, and the 10th and 90th percentile. Before that the
//! logits of 64 tokens are compared; more than 1e-4 of the greatest logit apart is an error. All three see other tokens at every
//! step; embedding, head and the copying of logits are inside what is timed.

mod candle;
mod mamba_rs;
mod ours;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use ::cascabel::model::{Config, LanguageConfig, MambaConfig};
use ::cascabel::plan::{Plan, Weights};
use serde_json::{Value, json};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Tokens, and outputs of the head.
pub const VOCABULARY: usize = 256;
const TOLERANCE: f32 = 1e-4;

/// A model in an engine, with one stream's state.
pub trait Engine {
    /// Its name and version.
    fn name(&self) -> String;
    /// One token in, the logits of the next one out.
    fn step(&mut self, token: u32, logits: &mut [f32]) -> Result<()>;
}

/// What all engines are made from: shapes, and weights by their names in the original checkpoints.
pub struct Model {
    pub d_model: usize,
    pub layers: usize,
    pub plan: Plan,
    pub weights: Weights,
}

impl Model {
    fn random(d_model: usize, layers: usize) -> Result<Self> {
        let mamba = MambaConfig::default();
        let config = LanguageConfig { vocabulary: VOCABULARY, d_model, layers, mamba, tied: true, eps: 1e-5 };
        let plan = Config::Language(config).plan()?;
        let mut weights = Weights::random(&plan, 1);
        // As trained models have them, not all ones and zeros.
        for (param, values) in plan.params.iter().zip(weights.tensors_mut()) {
            if ["norm.weight", "norm_f.weight", ".D"].iter().any(|end| param.name.ends_with(end)) {
                values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.2 * (i as f32).sin());
            }
        }
        Ok(Self { d_model, layers, plan, weights })
    }

    /// A tensor by its name without `backbone.`.
    pub fn tensor(&self, name: &str) -> Result<&[f32]> {
        let id =
            self.plan.find_param(&format!("backbone.{name}")).ok_or_else(|| format!("no tensor {name}"))?;
        Ok(self.weights.get(id))
    }
}

fn token(step: usize) -> u32 {
    (step * 37 % VOCABULARY) as u32
}

/// The greatest distance from the first engine's logits over 64 tokens, as a share of the greatest logit.
fn distances(engines: &mut [Box<dyn Engine>]) -> Result<Vec<f32>> {
    let mut apart = vec![0f32; engines.len()];
    let mut size = 0f32;
    for step in 0..64 {
        let mut first = Vec::new();
        for (engine, apart) in engines.iter_mut().zip(&mut apart) {
            let mut logits = vec![0.0; VOCABULARY];
            engine.step(token(step), &mut logits)?;
            if first.is_empty() {
                first = logits.clone();
            }
            for (a, b) in first.iter().zip(&logits) {
                size = size.max(a.abs());
                let distance = (a - b).abs();
                *apart = apart.max(if distance.is_nan() { f32::INFINITY } else { distance });
            }
        }
    }
    Ok(apart.into_iter().map(|x| x / size).collect())
}

/// Microseconds a step of each engine in each round.
fn race(engines: &mut [Box<dyn Engine>], rounds: usize, steps: usize) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::with_capacity(rounds); engines.len()];
    let mut logits = vec![0.0; VOCABULARY];
    for round in 0..=rounds {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            // The caches were another engine's: the first step is not counted where there are many.
            if steps > 1 {
                engine.step(token(round), &mut logits)?;
            }
            let begun = Instant::now();
            for step in 0..steps {
                engine.step(token(round * steps + step), &mut logits)?;
            }
            // Round 0 warms up.
            if round > 0 {
                times.push(1e6 * begun.elapsed().as_secs_f64() / steps as f64);
            }
        }
    }
    Ok(times)
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * (sorted.len() - 1) as f64).round() as usize]
}

fn measure(d_model: usize, layers: usize, rounds: usize, steps: usize) -> Result<Value> {
    let model = Model::random(d_model, layers)?;
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(ours::Ours::new(&model)),
        Box::new(mamba_rs::MambaRs::new(&model)?),
        Box::new(candle::Candle::new(&model)?),
    ];
    let apart = distances(&mut engines)?;
    let times = race(&mut engines, rounds, steps)?;
    println!(
        "\nMamba d{d_model}×{layers}, {} parameters, {rounds} rounds of {steps} steps",
        model.plan.param_count()
    );
    let mut rows = Vec::new();
    let mut first = None;
    for ((engine, mut times), apart) in engines.iter().zip(times).zip(apart) {
        if apart > TOLERANCE {
            return Err(format!("{}: expected logits within {TOLERANCE}, got {apart}", engine.name()).into());
        }
        times.sort_by(f64::total_cmp);
        let [median, low, high] = [0.5, 0.1, 0.9].map(|share| at(&times, share));
        let ratio = median / *first.get_or_insert(median);
        let name = engine.name();
        println!("  {name:<28} {median:>10.2} µs  ({low:.2} to {high:.2})  {ratio:>6.2}×  apart {apart:.1e}");
        rows.push(json!({"engine": name, "us": median, "us_p10": low, "us_p90": high, "ratio": ratio, "apart": apart}));
    }
    Ok(
        json!({"model": format!("d{d_model}x{layers}"), "parameters": model.plan.param_count(), "rounds": rounds,
              "steps": steps, "engines": rows}),
    )
}

fn run(args: &[String]) -> Result<()> {
    let (mut rounds, mut file) = (101, None);
    for pair in args.chunks(2) {
        match pair {
            [flag, n] if flag == "--rounds" => rounds = n.parse::<usize>()?.max(1),
            [flag, name] if flag == "--json" => file = Some(name),
            other => return Err(format!("expected [--rounds N] [--json FILE], got {other:?}").into()),
        }
    }
    let models = [(64, 8, rounds, 100), (128, 8, rounds, 30), (768, 24, rounds.div_ceil(5), 2)];
    let models = models.into_iter().map(|(d, n, rounds, steps)| measure(d, n, rounds, steps));
    let document = json!({"schema": 1, "threads": 1, "weights": "the same in all engines", "models": models.collect::<Result<Vec<_>>>()?});
    if let Some(file) = file {
        std::fs::write(file, format!("{document:#}\n"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    // SAFETY: no other thread runs yet that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mamba: {error}");
            ExitCode::from(2)
        }
    }
}
