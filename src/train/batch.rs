//! One step's gradient: examples spread over threads, summed in a fixed order.
//!
//! Each group of examples is one graph over one tensor of S streams of T rows. The task's judge holds its output against what was wanted, and
//! the loss's gradient goes back over the plan. Sums over groups run over halves of halves, so neither the number of threads nor that of
//! processes changes them.
//!
//! On the CPU each thread makes and learns from its own groups; on a GPU the whole batch is one graph.

use candle_core::Tensor;

use super::begins::Begins;
use super::examples::{Examples, Maker, Row};
use super::loss::{LossParts, LossValues};
use super::peers::halves;
use super::spread::spread;
use super::task::{Judge, Task, Verdict};
use crate::Result;
use crate::exec::candle::{CandleModel, CandleState, Dropout, train_error};

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
pub struct Worker<T: Task> {
    /// Makes examples.
    pub maker: T::Maker,
    /// Judges outputs.
    pub judge: T::Judge,
}

/// What a step's graphs need beside their examples.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The model as it stands.
    pub model: &'a CandleModel,
    /// Where streams begin.
    pub begins: &'a Begins,
    /// What dropout draws by.
    pub dropout: Dropout,
    /// Rows of a segment; 0 takes examples whole.
    pub segment: usize,
}

impl Step<'_> {
    /// The gradient over graphs `graphs` of a step, `group` examples each; the first example of all graphs is `first`.
    pub fn gradient<T: Task>(
        &self,
        workers: &mut [Worker<T>],
        first: u64,
        graphs: std::ops::Range<usize>,
        group: usize,
    ) -> Result<Gradient> {
        let parts = spread(workers, graphs.len(), |worker, i| {
            let number = graphs.start + i;
            let from = first + (number * group) as u64;
            let mut examples = Examples::with_capacity(group, worker.maker.rows(), self.model.device());
            (from..from + group as u64).for_each(|index| examples.push(&worker.maker.make(index)));
            let graph = self.graph(&mut worker.judge, &examples, number, from)?;
            let flat = graph.flat.to_vec1::<f32>().map_err(train_error)?;
            Ok((graph.verdict.values()?, flat, graph.end))
        })?;
        let (mut values, mut flats, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (more, flat, end) in parts {
            values.extend(more);
            flats.push(flat);
            ends.push(end);
        }
        Ok(Gradient { values, flat: halves(flats), ends })
    }

    /// Graph `number` of a step, over these examples, the first of which is `first` of the run.
    pub fn graph<J: Judge>(
        &self,
        judge: &mut J,
        examples: &Examples<J::Row>,
        number: usize,
        first: u64,
    ) -> Result<Graph> {
        let (model, count) = (self.model, examples.count());
        let begin = self.begins.of(model, number, first, count)?;
        let input = examples.input(model.device())?;
        let in_batch = (number * count) as u64;
        let dropout = Dropout { first_stream: in_batch, ..self.dropout };
        let (input, dropout) = (J::Row::input(&input), Some(dropout));
        let (verdict, grads, end) = if self.segment == 0 {
            let (y, end, tape) = model.record(&begin, input, dropout)?;
            let (verdict, grad) = judge.judge(&y, examples)?;
            (verdict, tape.of_weights().backward(&grad, None)?, end)
        } else {
            let (y, end, segments) = model.record_segments(&begin, input, dropout, self.segment)?;
            let (verdict, grad) = judge.judge(&y, examples)?;
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
