//! The GPU against f64 on the CPU: every scan, matrix products, every op in one plan, the denoiser's gradients. Run by
//! `make gpu-test`.

use candle_core::{DType, Device, Result as Candle, Tensor};

use super::super::scan::{ScanShape, tests as scans};
use super::super::tests::{everything, noise, random_state, samples, there_and_back};
use super::super::{CandleInput, CandleModel, Dropout, Products, device, embed, linear, train_error};
use super::{call, scan};
use crate::plan::Weights;
use crate::train::recipe::Recipe;
use crate::{Error, Result};

/// max |a − b| / max |b|.
fn error(a: &Tensor, b: &Tensor) -> Candle<f64> {
    let wide = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (a, b) = (wide(a)?, wide(b)?);
    let most = b.iter().fold(1e-12f64, |m, x| m.max(x.abs()));
    let off = a.iter().zip(&b).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    Ok(if a.iter().all(|x| x.is_finite()) { off / most } else { f64::INFINITY })
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_scans_agree_with_f64_forward_and_backward() -> Candle<()> {
    let gpu = Device::new_cuda(0)?;
    let mut worst = [0f64; 5];
    let mut agree = |shape, streams, t| -> Candle<()> {
        let inputs = scans::inputs(&shape, streams, t)?;
        let on_gpu = inputs.each_ref().map(|t| t.to_dtype(DType::F32)?.to_device(&gpu));
        let [Ok(rows), Ok(params), Ok(h0)] = on_gpu else { candle_core::bail!("no transfer") };
        let expected = [&rows, &params, &h0].map(|t| t.to_device(&Device::Cpu)?.to_dtype(DType::F64));
        let [Ok(a), Ok(b), Ok(c)] = expected else { candle_core::bail!("no transfer") };
        let (got, expected) =
            (scans::there_and_back(shape, &[rows, params, h0])?, scans::there_and_back(shape, &[a, b, c])?);
        for (i, worst) in worst.iter_mut().enumerate() {
            let error = error(&got[i], &expected[i])?;
            assert!(error < 1e-5, "{shape:?}, {streams} streams of {t} rows, result {i}: {error:e}");
            *worst = worst.max(error);
        }
        Ok(())
    };
    for (d, n) in [(1, 1), (17, 3), (70, 16), (33, 40), (8, 64), (64, 16), (320, 12)] {
        for shape in scans::variants(d, n) {
            // The longest has several shares of chunks a block, in more blocks than one.
            let long = if shape.selective || d > 17 { 300 } else { 4_200 };
            for t in [1, 33, 64, 65, long] {
                agree(shape, 3, t)?;
            }
        }
    }
    // As many streams as fill the chip by themselves, so that the warps of a block take turns.
    let multiprocessors = call::multiprocessors(gpu.as_cuda_device()?)?;
    for (d, n, times) in [(64usize, 16, 1), (36, 12, 3)] {
        let (streams, t) = ((times * multiprocessors / d.div_ceil(16)).max(1), 401);
        let shape = ScanShape { d, n, complex: false, selective: true };
        assert!(
            scan::Relay::new(multiprocessors, shape, (streams, t)).is_some(),
            "{shape:?}, {streams} streams"
        );
        agree(shape, streams, t)?;
    }
    println!("worst errors (y, h, rows, params, h0): {worst:?}");
    Ok(())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_dropout_draws_as_the_host() -> Candle<()> {
    let gpu = Device::new_cuda(0)?;
    for (streams, t, d) in [(1, 1, 1), (3, 70, 33), (2, 2_049, 64)] {
        let x = Tensor::zeros((streams, t, d), DType::F32, &Device::Cpu)?;
        let dropout = Dropout { seed: u64::MAX - 4, step: 1 << 40, first_stream: (1 << 45) + 3 };
        for (rate, position) in [(0.0, 0), (0.1, 1 << 33), (0.75, 5)] {
            let [host, device] = [x.clone(), x.to_device(&gpu)?]
                .map(|x| dropout.mask(&x, rate, 7, position)?.flatten_all()?.to_vec1::<f32>());
            assert_eq!(host?, device?, "{streams}×{t}×{d}, {rate}");
        }
    }
    Ok(())
}

/// Each way of multiplying, and by how much of the sum of its products' sizes the worst entry is off: at least, or it was done in
/// another way, and at most, a factor's rounding twice.
const PRODUCTS: [(Products, f64, f64); 3] =
    [(Products::F32, 0.0, 1e-6), (Products::Tf32, 1e-5, 1e-3), (Products::Bf16, 1e-3, 8e-3)];

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_products_agree_with_f64_there_and_back() -> Candle<()> {
    let gpu = Device::new_cuda(0)?;
    let normal =
        |shape: (usize, usize), seed| Tensor::from_vec(noise(shape.0 * shape.1, seed), shape, &Device::Cpu);
    for (products, least, bound) in PRODUCTS {
        let mut worst = 0f64;
        for (rows, k, n) in [(1, 1, 1), (3, 1, 7), (1, 33, 5), (33, 17, 1), (2_049, 128, 96), (257, 65, 130)]
        {
            let (x, w, g) = (normal((rows, k), 1)?, normal((n, k), 2)?, normal((rows, n), 3)?);
            let all = |dtype, device: &Device| -> Candle<[Tensor; 3]> {
                let to = |t: &Tensor| t.to_dtype(dtype)?.to_device(device);
                let (x, w, g) = (to(&x)?, to(&w)?, to(&g)?);
                Ok([
                    linear::linear(products, &x, &w)?,
                    linear::input_back(products, &x, &w, &g)?,
                    linear::weight_back(products, &x, &w, &g)?,
                ])
            };
            let sizes = [
                linear::linear(Products::F32, &x.abs()?, &w.abs()?)?,
                linear::input_back(Products::F32, &x.abs()?, &w.abs()?, &g.abs()?)?,
                linear::weight_back(Products::F32, &x.abs()?, &w.abs()?, &g.abs()?)?,
            ];
            let (got, expected) = (all(DType::F32, &gpu)?, all(DType::F64, &Device::Cpu)?);
            for ((got, expected), size) in got.iter().zip(&expected).zip(&sizes) {
                let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
                let off = ((got - expected)?.abs()? / size.to_dtype(DType::F64)?)?;
                let off = off.flatten_all()?.max(0)?.to_scalar::<f64>()?;
                assert!(off <= bound, "{products:?} {rows}×{k}×{n}: {off:e}");
                worst = worst.max(off);
            }
        }
        println!("products as {products:?} off by {worst:e} of the sum of sizes");
        assert!(worst >= least, "{products:?}: {worst:e}");
    }
    Ok(())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_an_embedding_agrees_with_f64() -> Candle<()> {
    let gpu = Device::new_cuda(0)?;
    let mut worst = 0f64;
    for (rows, vocabulary, d) in
        [(1, 1, 1), (33, 7, 40), (2_049, 256, 64), (100_003, 256, 64), (5_000, 700, 33)]
    {
        let tokens: Vec<u32> =
            (0..rows as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary as u32).collect();
        let tokens = Tensor::from_vec(tokens, rows, &Device::Cpu)?;
        let table = Tensor::from_vec(noise(vocabulary * d, 1), (vocabulary, d), &Device::Cpu)?;
        let g = Tensor::from_vec(noise(rows * d, 2), (rows, d), &Device::Cpu)?;
        let run = |dtype, device: &Device| -> Candle<[Tensor; 2]> {
            let to = |t: &Tensor| t.to_dtype(dtype)?.to_device(device);
            let (table, tokens) = (to(&table)?, tokens.to_device(device)?);
            Ok([embed::embed(&table, &tokens)?, embed::embed_back(&table, &tokens, &to(&g)?)?])
        };
        let (got, expected) = (run(DType::F32, &gpu)?, run(DType::F64, &Device::Cpu)?);
        for (got, expected) in got.iter().zip(&expected) {
            worst = worst.max(error(got, expected)?);
        }
        assert!(worst < 1e-5, "{rows} rows, {vocabulary} tokens of {d}: {worst:e}");
    }
    println!("embedding off by {worst:e}");
    Ok(())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_a_model_of_every_op_agrees_with_f64() -> Result<()> {
    let gpu = device("cuda")?;
    let plan = everything()?;
    let weights = Weights::random(&plan, 3);
    for (streams, rows, position) in [(1, 1, 5), (2, 29, 5), (3, 130, 0), (2, 257, 3)] {
        let run = |device: &Device, dtype| -> Result<Vec<Tensor>> {
            let model = CandleModel::on(device, &plan, &weights, dtype)?;
            let x = samples(streams, rows, 2, DType::F32)?;
            let x = x.to_dtype(dtype).and_then(|x| x.to_device(device)).map_err(train_error)?;
            let state = random_state(&model, streams, position)?;
            let (y, end, grads) = there_and_back(&model, &state, CandleInput::Samples(&x))?;
            let found = grads.params.into_iter().chain(grads.slots).chain([grads.input]).flatten();
            Ok([y].into_iter().chain(end.slots).chain(found).collect())
        };
        let (got, expected) = (run(&gpu, DType::F32)?, run(&Device::Cpu, DType::F64)?);
        let on_cpu = run(&Device::Cpu, DType::F32)?;
        assert_eq!(got.len(), expected.len());
        let mut worst = [0f64; 2];
        for (i, ((got, on_cpu), expected)) in got.iter().zip(&on_cpu).zip(&expected).enumerate() {
            if got.elem_count() == 0 {
                continue;
            }
            // Where f32 itself cannot hold 1e-5 on either device, the GPU may err twice as much as the CPU.
            let both = [error(got, expected), error(on_cpu, expected)];
            let [Ok(by_gpu), Ok(by_cpu)] = both else { return Err(Error::Train("no transfer".into())) };
            assert!(
                by_gpu < 1e-5f64.max(2.0 * by_cpu),
                "{streams}×{rows}, result {i}: {by_gpu:e}, CPU {by_cpu:e}"
            );
            worst = [worst[0].max(by_gpu), worst[1].max(by_cpu)];
        }
        println!("{streams}×{rows} from {position}: worst {:e}, CPU {:e}", worst[0], worst[1]);
    }
    Ok(())
}

#[test]
#[ignore = "needs an NVIDIA GPU: make gpu-test"]
fn gpu_the_denoisers_gradients_agree_and_repeat() -> Result<()> {
    let gpu = device("cuda")?;
    let recipe = Recipe::parse(include_str!("../../../../models/denoise.toml"), "denoise.toml")?;
    let plan = recipe.model.plan()?;
    let weights = Weights::random(&plan, 5);
    let (streams, rows) = (3, 8_003);
    let run = |device: &Device, products| -> Result<Vec<Tensor>> {
        let model = CandleModel::on(device, &plan, &weights, DType::F32)?.with_products(products);
        let x =
            Tensor::from_vec(noise(streams * rows, 9), (streams, rows, 1), device).map_err(train_error)?;
        let zero = model.zero_state(streams)?;
        let (y, _, grads) = there_and_back(&model, &zero, CandleInput::Samples(&x))?;
        Ok([y].into_iter().chain(grads.params.into_iter().flatten()).collect())
    };
    let expected = run(&Device::Cpu, Products::F32)?;
    for (products, bound) in [(Products::F32, 1e-4), (Products::Tf32, 1e-2), (Products::Bf16, 3e-2)] {
        let (got, again) = (run(&gpu, products)?, run(&gpu, products)?);
        let (mut worst, mut all) = (0f64, [0f64; 2]);
        for ((got, again), expected) in got.iter().zip(&again).zip(&expected) {
            assert_eq!(error(again, got).map_err(train_error)?, 0.0, "two runs differ");
            worst = worst.max(error(got, expected).map_err(train_error)?);
            let squares = |t: &Tensor| {
                t.to_device(&Device::Cpu)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()
            };
            let off =
                (got.to_device(&Device::Cpu).and_then(|got| squares(&(got - expected)?)), squares(expected));
            let (Ok(off), Ok(of)) = off else { return Err(Error::Train("no transfer".into())) };
            all = [all[0] + off, all[1] + of];
        }
        println!(
            "{products:?} against f32 on the CPU: worst {worst:e} of a tensor's largest, {:e} of all by length",
            (all[0] / all[1]).sqrt()
        );
        assert!(worst < bound, "{products:?}: {worst:e}");
    }
    Ok(())
}
