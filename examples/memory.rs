//! The papers' tests of memory: a model is trained on sequences of one length and asked at longer ones.
//!
//! cargo run --release --example memory -- induction-heads mamba [--steps 20000] [--batch 8] [--length 256] [--longest 1048576] [--rate 2e-3] [--dt-min 1e-3] [--eps 1e-8] [--seed 1] [--sequences 128] [--device cuda] [--resume] [--from MODEL] [--trained MODEL]
use cascabel::exec::candle::device;
use cascabel::model::Model;
use cascabel::train::recipe::Recipe;
use cascabel::train::run::{Event, RunOptions, train};
use cascabel::train::task::recall::{RecallSpec, right};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// induction-heads or selective-copying
    puzzle: String,
    /// mamba or s4d
    mixer: String,
    #[arg(long, default_value_t = 20_000)]
    steps: u64,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    length: usize,
    #[arg(long, default_value_t = 1 << 20)]
    longest: usize,
    #[arg(long, default_value_t = 2e-3)]
    rate: f32,
    /// The least Δ that Mamba's channels begin with; s4d has none
    #[arg(long, default_value_t = 1e-3)]
    dt_min: f32,
    /// AdamW's ε; gradients well below it change little
    #[arg(long, default_value_t = 1e-8)]
    eps: f32,
    /// Sequences of each length that the trained model is asked
    #[arg(long, default_value_t = 128)]
    sequences: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Go on from the checkpoint in target/memory, if there is one
    #[arg(long)]
    resume: bool,
    /// A model to begin with, of shorter sequences say
    #[arg(long)]
    from: Option<std::path::PathBuf>,
    /// A model that was trained before, and is only asked
    #[arg(long, conflicts_with_all = ["from", "resume"])]
    trained: Option<std::path::PathBuf>,
}

fn main() -> cascabel::Result<()> {
    let args = Args::parse();
    let Args { puzzle, mixer, steps, batch, length, longest, rate, dt_min, eps, seed, .. } = args;
    // As many parameters, to 3%.
    let blocks = if mixer == "s4d" { 4 } else { 2 };
    let dt_min = if mixer == "mamba" { format!(", dt_min = {dt_min:e}") } else { String::new() };
    let (last, warm_up) = (rate / 2.0, (steps / 2).min(100));
    let recipe = format!(
        "name = '{puzzle}-{mixer}-{length}-{seed}'\nseed = {seed}\nrecall = {{ puzzle = '{puzzle}', length = {length} }}
        model = {{ kind = 'generator', rate = 8000, vocabulary = 16, tiers = [{{ d_model = 64, blocks = {blocks}, norm = 'rms', mixer = {{ kind = '{mixer}'{dt_min} }} }}] }}
        optimiser = {{ eps = {eps:e}, weight_decay = 0.0, clip = 1.0, ema = 0.99 }}
        schedule = {{ peak = {rate}, last = {last}, warm_up = {warm_up}, steps = {steps} }}
        run = {{ batch = {batch}, group = 1, valid_every = 500, valid_examples = 256 }}"
    );
    let recipe = Recipe::parse(&recipe, &puzzle)?;
    let mut tell = |event: &Event| match event {
        Event::Valid { step, figures } => println!("step {step}: {figures}"),
        Event::Recipe { step, was, now } => println!("from step {step} on: {now} (was {was})"),
        _ => {}
    };
    let model = match args.trained {
        Some(path) => Some(Model::load(path)?),
        None => {
            let from = args.from.map(Model::load).transpose()?;
            let options = RunOptions::new("target/memory".into(), device(&args.device)?, &mut tell);
            train(&recipe, &mut RunOptions { resume: args.resume, from, ..options })?
        }
    };
    let (Some(model), Some(spec)) = (model, recipe.recall) else { unreachable!("alone, of a puzzle") };
    for length in
        std::iter::successors(Some(length), |length| Some(2 * length)).take_while(|length| *length <= longest)
    {
        let share = right(&model.plan, &model.weights, RecallSpec { length, ..spec }, args.sequences, 2)?;
        println!("length {length}: {:.2}% right", 100.0 * share);
    }
    Ok(())
}
