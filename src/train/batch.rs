//! One step's gradient: examples spread over threads, summed in a fixed order.
//!
//! Each group of examples is one graph over one `[S, T, 1]` tensor. The model answers `latency` samples late, so its output
//! from there on is held against the clean sound's beginning. The loss and its gradient are computed outside of autograd;
//! the gradient enters as `(y·g).sum_all()`. Sums over groups run in the groups' order: the threads' number changes nothing.
//!
//! On the CPU each thread makes and learns from its own groups; on a GPU two graphs take half of the batch each, and the
//! threads share the losses.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};

use super::loss::{Loss, LossParts};
use super::mix::{Example, Mixer};
use crate::exec::candle::{CandleInput, CandleModel, train_error};
use crate::{Error, Result};

/// What a step's examples gave.
pub struct Gradient {
    /// The mean loss.
    pub loss: f64,
    /// Its terms' means.
    pub parts: LossParts,
    /// The gradient of the mean loss, one vector a parameter, in the plan's order.
    pub grads: Vec<Vec<f32>>,
}

/// A thread's own things.
pub struct Worker {
    /// Makes examples.
    pub mixer: Mixer,
    /// Judges outputs.
    pub loss: Loss,
}

/// The gradient over examples `first .. first + batch`.
pub fn gradient(
    model: &CandleModel,
    latency: usize,
    workers: &mut [Worker],
    first: u64,
    (batch, group): (usize, usize),
) -> Result<Gradient> {
    let groups = batch / group;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Gradient>>>> = Mutex::new((0..groups).map(|_| None).collect());
    std::thread::scope(|scope| {
        for worker in workers.iter_mut() {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= groups {
                        return;
                    }
                    let from = first + (i * group) as u64;
                    let examples: Vec<_> =
                        (from..from + group as u64).map(|index| worker.mixer.example(index)).collect();
                    let losses = std::slice::from_mut(&mut worker.loss);
                    let result = one_graph(model, latency, losses, &examples);
                    if let Some(place) = done.lock().unwrap_or_else(|e| e.into_inner()).get_mut(i) {
                        *place = Some(result);
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    let missing = || Err(Error::Train("a worker thread stopped early".into()));
    let mut sum: Option<Gradient> = None;
    for part in done {
        let part = part.unwrap_or_else(missing)?;
        match &mut sum {
            None => sum = Some(part),
            Some(sum) => add(sum, &part),
        }
    }
    Ok(mean(sum.ok_or_else(|| Error::Train("an empty batch".into()))?, batch))
}

/// The gradient over these examples as two graphs, one on the GPU while the other's losses are taken on threads.
pub fn gradient_at_once(
    model: &CandleModel,
    latency: usize,
    losses: &mut [Loss],
    examples: &[Example],
) -> Result<Gradient> {
    let (half, threads) = (examples.len() / 2, losses.len() / 2);
    if half == 0 || threads == 0 {
        return Ok(mean(one_graph(model, latency, losses, examples)?, examples.len()));
    }
    let (first, second) = losses.split_at_mut(threads);
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| one_graph(model, latency, first, &examples[..half]));
        let b = one_graph(model, latency, second, &examples[half..]);
        (a.join().unwrap_or_else(|_| Err(Error::Train("a graph's thread stopped early".into()))), b)
    });
    let mut sum = a?;
    add(&mut sum, &b?);
    Ok(mean(sum, examples.len()))
}

/// Sums over a batch as means.
fn mean(mut sum: Gradient, batch: usize) -> Gradient {
    let share = 1.0 / batch as f32;
    sum.grads.iter_mut().flatten().for_each(|g| *g *= share);
    sum.loss /= batch as f64;
    each_part(&mut sum.parts, &LossParts::default(), |a, _| a / batch as f64);
    sum
}

fn add(sum: &mut Gradient, part: &Gradient) {
    sum.loss += part.loss;
    each_part(&mut sum.parts, &part.parts, |a, b| a + b);
    for (sum, part) in sum.grads.iter_mut().zip(&part.grads) {
        sum.iter_mut().zip(part).for_each(|(a, b)| *a += b);
    }
}

fn each_part(a: &mut LossParts, b: &LossParts, f: impl Fn(f64, f64) -> f64) {
    let pairs = [
        (&mut a.l1, b.l1),
        (&mut a.si_sdr, b.si_sdr),
        (&mut a.convergence, b.convergence),
        (&mut a.log_magnitude, b.log_magnitude),
        (&mut a.compressed_magnitude, b.compressed_magnitude),
        (&mut a.compressed_complex, b.compressed_complex),
        (&mut a.envelope, b.envelope),
    ];
    pairs.into_iter().for_each(|(a, b)| *a = f(*a, b));
}

/// The summed loss and gradient of one graph.
fn one_graph(
    model: &CandleModel,
    latency: usize,
    losses: &mut [Loss],
    examples: &[Example],
) -> Result<Gradient> {
    let len = examples.first().map_or(0, |e| e.noisy.len());
    if len <= latency {
        let expected = format!("examples longer than the model's latency of {latency} samples");
        return Err(Error::input("recipe [mix]", expected, format!("{len} samples")));
    }
    let noisy = examples.iter().map(|e| e.noisy.as_slice()).collect::<Vec<_>>().concat();
    let shape = (examples.len(), len, 1);
    let input = Tensor::from_vec(noisy, shape, model.device()).map_err(train_error)?;
    let (y, _) = model.forward(&model.zero_state(examples.len())?, CandleInput::Samples(&input))?;
    let estimates = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(train_error)?;
    let judged = judge(losses, latency, &estimates, examples)?;
    let backward = || {
        let seed = Tensor::from_vec(judged.seed, shape, model.device())?;
        (y * seed)?.sum_all()?.backward()
    };
    let store = backward().map_err(train_error)?;
    let flat = |(g, var): (Option<Tensor>, &candle_core::Var)| match g {
        Some(g) => {
            g.to_dtype(DType::F32).and_then(|g| g.flatten_all()?.to_vec1::<f32>()).map_err(train_error)
        }
        None => Ok(vec![0.0; var.elem_count()]),
    };
    let grads = model.gradients(&store).into_iter().zip(model.vars()).map(flat).collect::<Result<_>>()?;
    Ok(Gradient { loss: judged.loss, parts: judged.parts, grads })
}

/// What the losses say of some estimates: sums, and the gradient of the summed loss by the estimates.
struct Judged {
    loss: f64,
    parts: LossParts,
    seed: Vec<f32>,
}

/// Holds the estimates against the clean sound, a thread a loss; sums run in the examples' order.
fn judge(losses: &mut [Loss], latency: usize, estimates: &[f32], examples: &[Example]) -> Result<Judged> {
    let len = estimates.len() / examples.len();
    let mut seed = vec![0.0; estimates.len()];
    let share = examples.len().div_ceil(losses.len().max(1));
    let each = estimates.chunks(share * len).zip(seed.chunks_mut(share * len)).zip(examples.chunks(share));
    let one = |loss: &mut Loss, estimates: &[f32], seed: &mut [f32], examples: &[Example]| {
        let clips = estimates.chunks(len).zip(seed.chunks_mut(len)).zip(examples);
        let value = |((estimate, seed), example): ((&[f32], &mut [f32]), &Example)| {
            loss.value_and_grad(&estimate[latency..], &example.clean[..len - latency], &mut seed[latency..])
        };
        clips.map(value).collect::<Result<Vec<_>>>()
    };
    let values = std::thread::scope(|scope| {
        let shares = each.zip(losses.iter_mut());
        let threads: Vec<_> =
            shares.map(|(((e, s), x), loss)| scope.spawn(move || one(loss, e, s, x))).collect();
        let ended = |t: std::thread::ScopedJoinHandle<'_, _>| {
            t.join().unwrap_or_else(|_| Err(Error::Train("a loss thread stopped early".into())))
        };
        threads.into_iter().map(ended).collect::<Result<Vec<_>>>()
    })?;
    let (mut loss, mut parts) = (0.0, LossParts::default());
    for values in values.into_iter().flatten() {
        loss += values.total;
        each_part(&mut parts, &values.parts, |a, b| a + b);
    }
    Ok(Judged { loss, parts, seed })
}
