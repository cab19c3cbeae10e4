//! One step's gradient: examples spread over threads, summed in a fixed order.
//!
//! Each group of examples is one graph over one `[S, T, 1]` tensor. The model answers `latency` samples late, so its output
//! from there on is held against the clean sound's beginning, and the loss's gradient goes back over the plan. Sums over groups run
//! over halves of halves, so neither the number of threads nor that of processes changes them.
//!
//! On the CPU each thread makes and learns from its own groups; on a GPU the whole batch is one graph.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;

use super::begins::Begins;
use super::examples::Examples;
use super::judge::{Judge, Verdict};
use super::loss::{LossParts, LossValues};
use super::mix::Mixer;
use super::peers::halves;
use crate::exec::candle::{CandleInput, CandleModel, CandleState, Dropout, train_error};
use crate::{Error, Result};

/// What this process's examples of a step gave.
pub struct Gradient {
    /// The losses.
    pub values: Vec<LossValues>,
    /// The gradient of the summed loss, laid out as the model's weights.
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
    /// Samples of a segment; 0 takes examples whole.
    pub segment: usize,
}

impl Step<'_> {
    /// The gradient over graphs `graphs` of a step, `group` examples each; the first example of all graphs is `first`.
    pub fn gradient(
        &self,
        workers: &mut [Worker],
        first: u64,
        graphs: std::ops::Range<usize>,
        group: usize,
    ) -> Result<Gradient> {
        let groups = graphs.len();
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
                        let number = graphs.start + i;
                        let from = first + (number * group) as u64;
                        let len = worker.mixer.segment_len();
                        let mut examples = Examples::with_capacity(group, len, self.model.device());
                        (from..from + group as u64)
                            .for_each(|index| examples.push(&worker.mixer.example(index)));
                        let result =
                            self.graph(&mut worker.judge, &examples, number, from).and_then(|graph| {
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
        let (mut values, mut parts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for part in done {
            let (more, flat, end) = part.unwrap_or_else(missing)?;
            values.extend(more);
            ends.push(end);
            parts.push(flat);
        }
        Ok(Gradient { values, flat: halves(parts), ends })
    }

    /// Graph `number` of a step, over these examples, the first of which is `first` of the run.
    pub fn graph(&self, judge: &mut Judge, examples: &Examples, number: usize, first: u64) -> Result<Graph> {
        let (model, latency) = (self.model, self.latency);
        let (count, len) = (examples.count(), examples.len());
        if len <= latency {
            let expected = format!("examples longer than the model's latency of {latency} samples");
            return Err(Error::input("recipe [mix]", expected, format!("{len} samples")));
        }
        let begin = self.begins.of(model, number, first, count)?;
        let input =
            Tensor::from_slice(examples.noisy(), (count, len, 1), model.device()).map_err(train_error)?;
        let in_batch = (number * count) as u64;
        let dropout = Dropout { first_stream: in_batch, ..self.dropout };
        let (input, dropout) = (CandleInput::Samples(&input), Some(dropout));
        let (verdict, grads, end) = if self.segment == 0 {
            let (y, end, tape) = model.record(&begin, input, dropout)?;
            let (verdict, grad) = judge.judge(&y, latency, examples)?;
            (verdict, tape.of_weights().backward(&grad, None)?, end)
        } else {
            let (y, end, segments) = model.record_segments(&begin, input, dropout, self.segment)?;
            let (verdict, grad) = judge.judge(&y, latency, examples)?;
            (verdict, segments.of_weights().backward(&grad, None)?, end)
        };
        let flat = model.layout().gather(&grads, model.flat()).map_err(train_error)?;
        Ok(Graph { verdict, flat, end })
    }
}

/// The sum of losses and of their terms, and back: what processes tell each other of them.
pub fn sums(values: &[LossValues]) -> Vec<f32> {
    let row = |v: &LossValues| {
        let p = &v.parts;
        [
            v.total,
            p.l1,
            p.si_sdr,
            p.convergence,
            p.log_magnitude,
            p.compressed_magnitude,
            p.compressed_complex,
            p.envelope,
        ]
    };
    let mut sum = [0.0; 8];
    values.iter().for_each(|v| sum.iter_mut().zip(row(v)).for_each(|(s, x)| *s += x));
    sum.map(|x| x as f32).to_vec()
}

/// The mean loss of `count` examples from their [`sums`].
pub fn mean(sums: &[f32], count: usize) -> LossValues {
    let of = |i: usize| f64::from(sums.get(i).copied().unwrap_or(f32::NAN)) / count.max(1) as f64;
    let parts = LossParts {
        l1: of(1),
        si_sdr: of(2),
        convergence: of(3),
        log_magnitude: of(4),
        compressed_magnitude: of(5),
        compressed_complex: of(6),
        envelope: of(7),
    };
    LossValues { total: of(0), parts }
}
