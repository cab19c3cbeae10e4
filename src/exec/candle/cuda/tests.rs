//! The GPU against f64 on the CPU: every scan, every op in one plan, the denoiser's gradients. Run by
//! `make gpu-test`.

use candle_core::{DType, Device, Result as Candle, Tensor};

use super::super::scan::tests as scans;
use super::super::tests::{everything, noise, random_state, samples, there_and_back};
use super::super::{CandleInput, CandleModel, device, train_error};
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
    for (d, n) in [(1, 1), (17, 3), (70, 16), (33, 40), (8, 64), (64, 16), (320, 12)] {
        for shape in scans::variants(d, n) {
            for t in [1, 33, 64, 65, 300] {
                let inputs = scans::inputs(&shape, 3, t)?;
                let on_gpu = inputs.each_ref().map(|t| t.to_dtype(DType::F32)?.to_device(&gpu));
                let [Ok(rows), Ok(params), Ok(h0)] = on_gpu else { candle_core::bail!("no transfer") };
                let expected = [&rows, &params, &h0].map(|t| t.to_device(&Device::Cpu)?.to_dtype(DType::F64));
                let [Ok(a), Ok(b), Ok(c)] = expected else { candle_core::bail!("no transfer") };
                let (got, expected) = (
                    scans::there_and_back(shape, &[rows, params, h0])?,
                    scans::there_and_back(shape, &[a, b, c])?,
                );
                for (i, worst) in worst.iter_mut().enumerate() {
                    let error = error(&got[i], &expected[i])?;
                    assert!(error < 1e-5, "{shape:?}, {t} rows, result {i}: {error:e}");
                    *worst = worst.max(error);
                }
            }
        }
    }
    println!("worst errors (y, h, rows, params, h0): {worst:?}");
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
    let run = |device: &Device| -> Result<Vec<Tensor>> {
        let model = CandleModel::on(device, &plan, &weights, DType::F32)?;
        let x =
            Tensor::from_vec(noise(streams * rows, 9), (streams, rows, 1), device).map_err(train_error)?;
        let zero = model.zero_state(streams)?;
        let (y, _, grads) = there_and_back(&model, &zero, CandleInput::Samples(&x))?;
        Ok([y].into_iter().chain(grads.params.into_iter().flatten()).collect())
    };
    let (got, again, expected) = (run(&gpu)?, run(&gpu)?, run(&Device::Cpu)?);
    let mut worst = 0f64;
    for ((got, again), expected) in got.iter().zip(&again).zip(&expected) {
        assert_eq!(error(again, got).map_err(train_error)?, 0.0, "two runs differ");
        worst = worst.max(error(got, expected).map_err(train_error)?);
    }
    println!("worst against f32 on the CPU: {worst:e}");
    assert!(worst < 1e-4, "{worst:e}");
    Ok(())
}
