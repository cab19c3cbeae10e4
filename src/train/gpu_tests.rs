//! Training on the GPU against training on the CPU. Run by `make gpu-test`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};

use super::adamw::{AdamW, AdamWSpec, Group};
use super::learner::Learner;
use super::random::Dice;
use super::recipe::{Data, Recipe, RunSpec};
use super::run::{Event, RunOptions, train};
use super::task::generator::ClipsSpec;
use crate::audio::{SampleRate, Sound, WavDepth, write_path};
use crate::exec::candle::{CandleModel, Products, device};
use crate::plan::{Act, PlanBuilder, Weights};
use crate::{Error, Result};

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_the_devices_optimiser_is_the_hosts() -> Result<()> {
    let gpu = device("cuda")?;
    let mut b = PlanBuilder::new();
    let x = b.samples(3);
    let y = b.linear("a", x, 101, true, Act::Tanh)?;
    let y = b.linear("b", y, 7, true, Act::None)?;
    let plan = b.build(y)?;
    let mut weights = Weights::random(&plan, 1);
    let groups = |weights: &Weights| -> Vec<Group> {
        let named = plan.params.iter().zip(weights.tensors());
        let group = |(i, (param, values)): (usize, (&crate::plan::Param, &Vec<f32>))| {
            let group = Group::new(&param.name, values);
            if i == 1 { group.no_decay().rate(0.3) } else { group }
        };
        named.enumerate().map(group).collect()
    };
    let spec = AdamWSpec { clip: 0.5, ema: 0.9, weight_decay: 0.1, ..AdamWSpec::default() };
    let mut host = AdamW::new(&spec, groups(&weights))?;
    let mut model = CandleModel::on(&gpu, &plan, &weights, DType::F32)?;
    let mut learner = Learner::new(&host, &model)?;
    let mut dice = Dice::new(3, 0);
    for step in 0..30 {
        // Sums over four examples: clipped, not clipped, not finite.
        let size = [3.0, 0.01, f32::NAN][step % 3];
        let sums: Vec<Vec<f32>> =
            plan.params.iter().map(|p| (0..p.len()).map(|_| size * dice.normal()).collect()).collect();
        let flat = Tensor::from_vec(model.layout().join(&sums), model.layout().len(), &gpu);
        let flat = flat.map_err(crate::exec::candle::train_error)?;
        let told = learner.step(&mut model, &flat, 1e-2, 4)?;
        let means: Vec<Vec<f32>> = sums.iter().map(|s| s.iter().map(|g| g / 4.0).collect()).collect();
        let means: Vec<&[f32]> = means.iter().map(Vec::as_slice).collect();
        let mut slices: Vec<&mut [f32]> = weights.tensors_mut().iter_mut().map(Vec::as_mut_slice).collect();
        let want = host.step(1e-2, &mut slices, &means)?;
        assert_eq!((told.clipped, told.skipped), (want.clipped, want.skipped), "step {step}");
        assert!(want.skipped || (told.norm / want.norm - 1.0).abs() < 1e-5, "{} {}", told.norm, want.norm);
    }
    let mut back = AdamW::new(&spec, groups(&weights))?;
    learner.read_into(model.layout(), &mut back)?;
    assert_eq!(back.steps(), host.steps());
    let weights_there = model.export()?;
    let pairs = weights_there.tensors().iter().zip(weights.tensors()).map(|(a, b)| (&a[..], &b[..]));
    let mut worst = 0f32;
    for (a, b) in pairs.chain(back.state().map(|s| s.1).zip(host.state().map(|s| s.1))) {
        let most = b.iter().fold(1e-9f32, |m, x| m.max(x.abs()));
        worst = a.iter().zip(b).fold(worst, |m, (a, b)| m.max((a - b).abs() / most));
    }
    println!("optimiser off by {worst:e}");
    assert!(worst < 1e-5, "{worst:e}");
    Ok(())
}

/// The losses of a run.
fn losses(recipe: &Recipe, folder: &std::path::Path, device: Device) -> Result<Vec<f64>> {
    let (mut losses, stop) = (Vec::new(), Arc::new(AtomicBool::new(false)));
    let mut observe = |event: &Event| {
        if let Event::Step { loss, step, .. } = event {
            losses.push(*loss);
            stop.store(*step == 19, Ordering::Relaxed);
        }
    };
    let mut options = RunOptions {
        out: folder.join(if device.is_cpu() { "cpu" } else { "gpu" }),
        resume: false,
        from: None,
        minutes: None,
        device,
        threads: Some(2),
        commit: String::new(),
        place: None,
        stop: Arc::clone(&stop),
        observe: &mut observe,
    };
    train(recipe, &mut options)?;
    Ok(losses)
}

/// Writes four seconds of a hum in noise.
fn hum(folder: &std::path::Path, name: &str, seed: u64) -> Result<()> {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(|e| Error::io("create", &path, e))?;
    let (mut dice, mut wave) = (Dice::new(7, seed), 0.0);
    let sound = (0..64_000).map(|n| {
        wave = 0.9 * wave + 0.1 * dice.normal();
        wave + 0.2 * (n as f32 * 0.06).sin()
    });
    let sound = Sound::new(SampleRate::new(16_000)?, vec![sound.collect()])?;
    write_path(&path, &sound, WavDepth::Float32)?;
    Ok(())
}

/// Holds twenty steps on the GPU against twenty on the CPU.
fn twenty_steps_agree(recipe: &Recipe, folder: &std::path::Path) -> Result<()> {
    let gpu = device("cuda")?;
    let (on_cpu, on_gpu) = (losses(recipe, folder, Device::Cpu)?, losses(recipe, folder, gpu)?);
    assert_eq!((on_cpu.len(), on_gpu.len()), (20, 20));
    let off = |(a, b): (&f64, &f64)| (a - b).abs() / a.abs().max(1e-3);
    let worst = on_cpu.iter().zip(&on_gpu).map(off).fold(0.0, f64::max);
    println!("losses off by {worst:e} at most: {on_cpu:?}");
    assert!(worst < 1e-3, "{on_cpu:?} {on_gpu:?}");
    Ok(())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_twenty_steps_have_the_same_losses_on_both() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", std::path::Path::new("folder"), e))?;
    for (name, seed) in ["clean/a", "noise/wind", "valid-clean/b", "valid-noise/rain"].into_iter().zip(0..) {
        hum(folder.path(), &format!("{name}/x.wav"), seed)?;
    }
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = include_str!("../../models/denoise.toml")
        .replace("data/denoise/train/clean", &at("clean"))
        .replace("data/denoise/train/noise", &at("noise"))
        .replace("data/denoise/valid/clean", &at("valid-clean"))
        .replace("data/denoise/valid/noise", &at("valid-noise"))
        .replace("seconds = 3.0", "seconds = 0.512")
        .replace("batch = 128", "batch = 8")
        .replace("products = \"tf32\"", "products = \"f32\"")
        .replace("valid_examples = 64", "valid_examples = 1")
        .replace("settle_seconds = 60", "settle_seconds = 1");
    twenty_steps_agree(&Recipe::parse(&text, "twenty.toml")?, folder.path())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_twenty_steps_of_a_generator_have_the_same_losses_on_both() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", std::path::Path::new("folder"), e))?;
    for (name, seed) in ["zero-a", "zero-b", "one-a", "one-b"].into_iter().zip(0..) {
        hum(folder.path(), &format!("digits/{name}.wav"), seed)?;
    }
    // Of the bundled recipe's shape; windows of a carried state, whole and in segments.
    for (name, segment) in [("whole", 0), ("parts", 200)] {
        let mut recipe = Recipe::parse(include_str!("../../models/digits.toml"), "twenty.toml")?;
        let digits = || vec![folder.path().join("digits")];
        recipe.data = Data { clean: digits(), valid_clean: digits(), ..Data::default() };
        recipe.clips = recipe.clips.map(|clips| ClipsSpec {
            seconds: 0.064,
            windows: 3,
            valid_seconds: 0.2,
            nameless: None,
            ..clips
        });
        recipe.run = RunSpec { batch: 4, segment, products: Products::F32, valid_examples: 1, ..recipe.run };
        twenty_steps_agree(&recipe, &folder.path().join(name))?;
    }
    Ok(())
}
