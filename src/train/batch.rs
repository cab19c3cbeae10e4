//! One step's gradient: examples spread over threads, summed in a fixed order.
//!
//! Each group of examples is one graph over one `[S, T, 1]` tensor. The model answers `latency` samples late, so its output
//! from there on is held against the clean sound's beginning, and the loss's gradient goes back over the plan. Sums over groups run
//! in the groups' order: the threads' number changes nothing.
//!
//! On the CPU each thread makes and learns from its own groups; on a GPU the whole batch is one graph.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;

use super::begins::Begins;
use super::judge::{Judge, Verdict};
use super::loss::{LossParts, LossValues};
use super::mix::{Example, Mixer};
use crate::exec::candle::{CandleInput, CandleModel, CandleState, Dropout, train_error};
use crate::{Error, Result};

/// What a step's examples gave.
pub struct Gradient {
    /// The mean loss and its terms' means.
    pub mean: LossValues,
    /// The gradient of the mean loss, laid out as the model's weights.
    pub flat: Vec<f32>,
    /// Where the streams of each graph ended.
    pub ends: Vec<CandleState>,
}

/// One graph's: sums over its examples, where the model lies.
pub struct Graph {
    /// The losses.
    pub verdict: Verdict,
    /// The gradient of the summed loss, laid out as the model's weights.
    pub flat: Tensor,
    /// Where the streams ended.
    pub end: CandleState,
}

/// A thread's own things.
pub struct Worker {
    /// Makes examples.
    pub mixer: Mixer,
    /// Judges outputs.
    pub judge: Judge,
}

/// What a step's graphs need beside their examples.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The model as it stands.
    pub model: &'a CandleModel,
    /// Samples that its output is late.
    pub latency: usize,
    /// Where streams begin.
    pub begins: &'a Begins,
    /// What dropout draws by.
    pub dropout: Dropout,
}

impl Step<'_> {
    /// The gradient over examples `first .. first + batch`, `group` of them a graph.
    pub fn gradient(
        &self,
        workers: &mut [Worker],
        first: u64,
        (batch, group): (usize, usize),
    ) -> Result<Gradient> {
        let groups = batch / group;
        let next = AtomicUsize::new(0);
        type Part = (Vec<LossValues>, Vec<f32>, CandleState);
        let done: Mutex<Vec<Option<Result<Part>>>> = Mutex::new((0..groups).map(|_| None).collect());
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
                        let result = self.graph(&mut worker.judge, &examples, i, from).and_then(|graph| {
                            let flat = graph.flat.to_vec1::<f32>().map_err(train_error)?;
                            Ok((graph.verdict.values()?, flat, graph.end))
                        });
                        if let Some(place) = done.lock().unwrap_or_else(|e| e.into_inner()).get_mut(i) {
                            *place = Some(result);
                        }
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
        let missing = || Err(Error::Train("a worker thread stopped early".into()));
        let (mut values, mut sum, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for part in done {
            let (more, flat, end) = part.unwrap_or_else(missing)?;
            values.extend(more);
            ends.push(end);
            match sum.is_empty() {
                true => sum = flat,
                false => sum.iter_mut().zip(&flat).for_each(|(sum, x)| *sum += x),
            }
        }
        let share = 1.0 / batch as f32;
        sum.iter_mut().for_each(|g| *g *= share);
        Ok(Gradient { mean: mean(&values), flat: sum, ends })
    }

    /// Graph `number` of a step, over these examples, the first of which is `first` of the run.
    pub fn graph(&self, judge: &mut Judge, examples: &[Example], number: usize, first: u64) -> Result<Graph> {
        let (model, latency) = (self.model, self.latency);
        let len = examples.first().map_or(0, |e| e.noisy.len());
        if len <= latency {
            let expected = format!("examples longer than the model's latency of {latency} samples");
            return Err(Error::input("recipe [mix]", expected, format!("{len} samples")));
        }
        let begin = self.begins.of(model, number, first, examples.len())?;
        let noisy = examples.iter().map(|e| e.noisy.as_slice()).collect::<Vec<_>>().concat();
        let input = Tensor::from_vec(noisy, (examples.len(), len, 1), model.device()).map_err(train_error)?;
        let in_batch = (number * examples.len()) as u64;
        let dropout = Dropout { first_stream: in_batch, ..self.dropout };
        let (y, end, tape) = model.record(&begin, CandleInput::Samples(&input), Some(dropout))?;
        let (verdict, grad) = judge.judge(&y, latency, examples)?;
        let grads = tape.backward(&grad, None)?;
        let flat = model.layout().gather(&grads, model.flat()).map_err(train_error)?;
        Ok(Graph { verdict, flat, end })
    }
}

/// The mean of losses and of their terms.
pub fn mean(values: &[LossValues]) -> LossValues {
    let (mut total, mut parts) = (0.0, LossParts::default());
    for values in values {
        total += values.total;
        each_part(&mut parts, &values.parts, |a, b| a + b);
    }
    let count = values.len().max(1) as f64;
    each_part(&mut parts, &LossParts::default(), |a, _| a / count);
    LossValues { total: total / count, parts }
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
