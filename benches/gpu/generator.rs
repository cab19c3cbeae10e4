//! A training step of a generator in the size of SC09's, on an NVIDIA GPU: 8-bit tokens, tiers of 64, 128 and 256 channels, pool 4
//! and 4, eight blocks of S4D (complex) and feed-forward each way outside, eight Mamba blocks in the centre, a head of 256 classes.
//!
//! ```text
//! cargo bench --features train-cuda --bench generator -- --write 6m.safetensors        # the model, for step.py
//! cargo bench --features train-cuda --bench generator -- --model 6m.safetensors --steps 40
//! ```
//!
//! A step: gradient of the cross-entropy of the next token over a batch of random tokens, clipping, AdamW and the weights' moving
//! average. Prints one line of JSON: of each step its milliseconds, up to its loss being read, its loss and the gradient's length.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Tensor};
use cascabel::exec::candle::{CandleInput, CandleModel, Products, device};
use cascabel::model::{Card, Config, Model};
use cascabel::plan::Weights;
use cascabel::train::adamw::{AdamW, AdamWSpec, Group};
use cascabel::train::learner::Learner;
use cascabel::train::loss::cross_entropy::device::cross_entropy;
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Writes the model with random weights, and ends.
    #[arg(long)]
    write: Option<PathBuf>,
    /// The model to train.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Conjugate pairs of states of a channel in the outer tiers.
    #[arg(long, default_value_t = 32)]
    pairs: usize,
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[arg(long, default_value_t = 16_000)]
    samples: usize,
    /// Rows of a segment; 0 takes examples whole.
    #[arg(long, default_value_t = 0)]
    segment: usize,
    #[arg(long, default_value_t = 40)]
    steps: usize,
    /// f32, tf32 or bf16.
    #[arg(long, default_value = "tf32")]
    products: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test --all-targets` runs it too, and wants no figures.
        return Ok(());
    }
    let args = Args::parse();
    match (&args.write, &args.model) {
        (Some(path), _) => write(args.pairs, path),
        (None, Some(path)) => time(&args, &Model::load(path)?),
        (None, None) => Err("expected --write or --model, got neither".into()),
    }
}

fn write(pairs: usize, path: &Path) -> Result<(), Box<dyn Error>> {
    let s4d = format!(r#""mixer": {{"kind": "s4d", "d_state": {pairs}}}, "feed_forward": 2"#);
    let text = format!(
        r#"{{"kind": "generator", "rate": 16000, "tiers": [
            {{"d_model": 64, "blocks": 8, {s4d}}},
            {{"d_model": 128, "blocks": 8, "pool": 4, {s4d}}},
            {{"d_model": 256, "blocks": 8, "pool": 4, "mixer": {{"kind": "mamba"}}}}]}}"#
    );
    let config: Config = serde_json::from_str(&text)?;
    let weights = Weights::random(&config.plan()?, 1);
    Ok(Model::new(config, weights, Card::default())?.save(path)?)
}

fn time(args: &Args, model: &Model) -> Result<(), Box<dyn Error>> {
    let products: Products = serde_json::from_value(args.products.as_str().into())?;
    let gpu = device("cuda")?;
    let plan = model.config.plan()?;
    let groups = plan.params.iter().zip(model.weights.tensors()).map(|(p, w)| Group::new(&p.name, w));
    let spec = AdamWSpec { clip: 1.0, ema: 0.999, weight_decay: 0.02, ..AdamWSpec::default() };
    let optimiser = AdamW::new(&spec, groups.collect())?;
    let mut net = CandleModel::on(&gpu, &plan, &model.weights, DType::F32)?.with_products(products);
    let mut learner = Learner::new(&optimiser, &net)?;
    let zero = net.zero_state(args.batch)?;
    let (batch, samples, mut seed) = (args.batch, args.samples, 1u32);
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 24
    };
    let (mut ms, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.steps {
        let tokens: Vec<u32> = (0..batch * (samples + 1)).map(|_| next()).collect();
        let begun = Instant::now();
        let tokens = Tensor::from_vec(tokens, (batch, samples + 1), &gpu)?;
        let part = |from| tokens.narrow(1, from, samples)?.contiguous();
        let (heard, wanted) = (part(0)?, part(1)?.to_dtype(DType::F32)?);
        let (grads, loss) = if args.segment == 0 {
            let (y, _, tape) = net.record(&zero, CandleInput::Tokens(&heard), None)?;
            let (loss, grad) = cross_entropy(&y, &wanted)?;
            (tape.of_weights().backward(&grad, None)?, loss)
        } else {
            let (y, _, tape) = net.record_segments(&zero, CandleInput::Tokens(&heard), None, args.segment)?;
            let (loss, grad) = cross_entropy(&y, &wanted)?;
            (tape.of_weights().backward(&grad, None)?, loss)
        };
        let flat = net.layout().gather(&grads, net.flat())?;
        norms.push(learner.step(&mut net, &flat, 1e-4, 1)?.norm);
        losses.push(loss.to_scalar::<f32>()?);
        ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let parameters = net.layout().len();
    let found = serde_json::json!({"parameters": parameters, "ms": ms, "losses": losses, "norms": norms});
    println!("{found}");
    Ok(())
}
