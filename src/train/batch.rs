//! One step's gradient: examples spread over threads, summed in a fixed order.
//!
//! Each group of examples is one graph over one `[S, T, 1]` tensor. The model answers `latency` samples late, so its output
//! from there on is held against the clean sound's beginning. The loss and its gradient are computed outside of autograd
//! ([`Judge`]); the gradient enters as `(y·g).sum_all()`. Sums over groups run in the groups' order: the threads' number
//! changes nothing.
//!
//! On the CPU each thread makes and learns from its own groups; on a GPU the whole batch is one graph.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};

use super::begins::Begins;
use super::judge::Judge;
use super::loss::LossParts;
use super::mix::{Example, Mixer};
use crate::exec::candle::{CandleInput, CandleModel, CandleState, train_error};
use crate::{Error, Result};

/// What a step's examples gave.
pub struct Gradient {
    /// The mean loss.
    pub loss: f64,
    /// Its terms' means.
    pub parts: LossParts,
    /// The gradient of the mean loss, one vector a parameter, in the plan's order.
    pub grads: Vec<Vec<f32>>,
    /// Where the streams of each graph ended.
    pub ends: Vec<CandleState>,
}

/// A thread's own things.
pub struct Worker {
    /// Makes examples.
    pub mixer: Mixer,
    /// Judges outputs.
    pub judge: Judge,
}

/// The gradient over examples `first .. first + batch`.
pub fn gradient(
    model: &CandleModel,
    latency: usize,
    workers: &mut [Worker],
    begins: &Begins,
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
                    let result = begins
                        .of(model, i, from, group)
                        .and_then(|begin| one_graph(model, latency, &mut worker.judge, &examples, &begin));
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
            Some(sum) => add(sum, part),
        }
    }
    Ok(mean(sum.ok_or_else(|| Error::Train("an empty batch".into()))?, batch))
}

/// The gradient over these examples as one graph.
pub fn gradient_at_once(
    model: &CandleModel,
    latency: usize,
    judge: &mut Judge,
    begin: &CandleState,
    examples: &[Example],
) -> Result<Gradient> {
    Ok(mean(one_graph(model, latency, judge, examples, begin)?, examples.len()))
}

/// Sums over a batch as means.
fn mean(mut sum: Gradient, batch: usize) -> Gradient {
    let share = 1.0 / batch as f32;
    sum.grads.iter_mut().flatten().for_each(|g| *g *= share);
    sum.loss /= batch as f64;
    each_part(&mut sum.parts, &LossParts::default(), |a, _| a / batch as f64);
    sum
}

fn add(sum: &mut Gradient, part: Gradient) {
    sum.loss += part.loss;
    each_part(&mut sum.parts, &part.parts, |a, b| a + b);
    sum.ends.extend(part.ends);
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
    judge: &mut Judge,
    examples: &[Example],
    begin: &CandleState,
) -> Result<Gradient> {
    let len = examples.first().map_or(0, |e| e.noisy.len());
    if len <= latency {
        let expected = format!("examples longer than the model's latency of {latency} samples");
        return Err(Error::input("recipe [mix]", expected, format!("{len} samples")));
    }
    let noisy = examples.iter().map(|e| e.noisy.as_slice()).collect::<Vec<_>>().concat();
    let shape = (examples.len(), len, 1);
    let input = Tensor::from_vec(noisy, shape, model.device()).map_err(train_error)?;
    let (y, end) = model.forward(begin, CandleInput::Samples(&input))?;
    let (values, grad) = judge.judge(&y, latency, examples)?;
    let (mut loss, mut parts) = (0.0, LossParts::default());
    for values in values {
        loss += values.total;
        each_part(&mut parts, &values.parts, |a, b| a + b);
    }
    let store = (y * grad).and_then(|product| product.sum_all()?.backward()).map_err(train_error)?;
    let flat = |(g, var): (Option<Tensor>, &candle_core::Var)| match g {
        Some(g) => {
            g.to_dtype(DType::F32).and_then(|g| g.flatten_all()?.to_vec1::<f32>()).map_err(train_error)
        }
        None => Ok(vec![0.0; var.elem_count()]),
    };
    let grads = model.gradients(&store).into_iter().zip(model.vars()).map(flat).collect::<Result<_>>()?;
    Ok(Gradient { loss, parts, grads, ends: vec![end.detach()?] })
}
