//! Runs one small plan on every executor from a given state, with gradients on candle.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use cascabel::exec::candle::{CandleInput, CandleModel, CandleState};
use cascabel::exec::cpu::{Cpu, Isa};
use cascabel::exec::reference::{Reference, Scalar};
use cascabel::exec::{Executor, Feed, Limits, Rows, State};
use cascabel::plan::{Plan, PlanBuilder, View, Weights};

use crate::bounds;
use crate::golden::narrow;

/// What to run: all streams take the same number of rows.
pub struct Setup {
    pub plan: Plan,
    pub weights: Weights,
    pub streams: usize,
    /// `[B, T, width]`.
    pub input: Vec<f64>,
    /// The state at the start, one `[B, rows, width]` a slot.
    pub slots: Vec<Vec<f64>>,
    /// The incoming gradients of the output and of the final state; none, no gradients.
    pub seeds: Option<(Vec<f64>, Vec<Vec<f64>>)>,
}

/// What came out.
pub struct Outcome {
    pub executor: String,
    /// What its arithmetic allows against float64.
    pub bound: f64,
    /// `[B, T, width]`.
    pub y: Vec<f64>,
    /// The final state, as [`Setup::slots`].
    pub slots: Vec<Vec<f64>>,
    pub grads: Option<Grads>,
}

/// Gradients of Σ gy·y + Σ g·slot.
pub struct Grads {
    pub input: Vec<f64>,
    pub params: BTreeMap<String, Vec<f64>>,
    pub slots: Vec<Vec<f64>>,
}

/// A plan over sample rows, and its weights by name.
pub fn plan(
    width: usize,
    build: impl FnOnce(&mut PlanBuilder, View) -> cascabel::Result<View>,
    params: &[(&str, Vec<f32>)],
) -> (Plan, Weights) {
    let mut b = PlanBuilder::new();
    let x = b.samples(width);
    let y = build(&mut b, x).unwrap();
    let plan = b.build(y).unwrap();
    let find =
        |name: &str| params.iter().find(|p| p.0 == name).unwrap_or_else(|| panic!("no {name}")).1.clone();
    let weights = Weights::new(&plan, plan.params.iter().map(|p| find(&p.name)).collect()).unwrap();
    (plan, weights)
}

/// The instruction sets that this machine has.
pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

impl Setup {
    /// On every executor.
    pub fn run(&self) -> Vec<Outcome> {
        let limits = Limits { max_rows: 64, max_streams: self.streams };
        let mut all = vec![
            self.reference::<f64>("reference f64", bounds::OP_F64),
            self.reference::<f32>("reference f32", bounds::OP),
        ];
        for isa in isas() {
            let cpu = Cpu::open_with(&self.plan, &self.weights, limits, isa);
            all.push(self.executor(format!("cpu {isa:?}"), cpu));
        }
        all.push(self.candle(DType::F64, bounds::OP_F64));
        all.push(self.candle(DType::F32, bounds::OP));
        all
    }

    fn rows(&self) -> usize {
        self.input.len() / self.streams / self.plan.value(self.plan.input_value).width
    }

    /// The given state of one stream.
    fn state(&self, stream: usize) -> State {
        let part = |s: &Vec<f64>| {
            let len = s.len() / self.streams;
            narrow(&s[stream * len..(stream + 1) * len])
        };
        State::new(&self.plan, 0, self.slots.iter().map(part).collect()).unwrap()
    }

    fn reference<F: Scalar + Into<f64>>(&self, name: &str, bound: f64) -> Outcome {
        let limits = Limits { max_rows: 64, max_streams: self.streams };
        let mut executor = Reference::<F>::open(&self.plan, &self.weights, limits);
        let (input, rows) = (narrow(&self.input), self.rows());
        let mut y = Vec::new();
        for (stream, input) in input.chunks(input.len() / self.streams).enumerate() {
            executor.restore(stream, &self.state(stream)).unwrap();
            let out = executor.advance_one(stream, rows, Rows::Samples(input));
            y.extend(out.into_iter().map(Into::into));
        }
        let slot =
            |i: usize| (0..self.streams).flat_map(|s| &executor.slots(s)[i]).map(|x| (*x).into()).collect();
        let slots = (0..self.slots.len()).map(slot).collect();
        Outcome { executor: name.into(), bound, y, slots, grads: None }
    }

    /// All streams in one call.
    fn executor(&self, name: String, mut executor: impl Executor) -> Outcome {
        (0..self.streams).for_each(|s| executor.restore(s, &self.state(s)).unwrap());
        let feeds: Vec<_> = (0..self.streams).map(|stream| Feed { stream, rows: self.rows() }).collect();
        let width = self.plan.value(self.plan.output).width;
        let mut y = vec![f32::NAN; self.streams * self.rows() * width];
        executor.advance(&feeds, Rows::Samples(&narrow(&self.input)), &mut y).unwrap();
        let ends: Vec<State> = (0..self.streams).map(|s| executor.save(s)).collect();
        let slot = |i: usize| ends.iter().flat_map(|s| &s.slots[i]).map(|x| f64::from(*x)).collect();
        let slots = (0..self.slots.len()).map(slot).collect();
        let y = y.into_iter().map(f64::from).collect();
        Outcome { executor: name, bound: bounds::OP, y, slots, grads: None }
    }

    fn candle(&self, dtype: DType, bound: f64) -> Outcome {
        let model = CandleModel::new(&self.plan, &self.weights, dtype).unwrap();
        let width = self.plan.value(self.plan.input_value).width;
        let input = tensor(&self.input, &[self.streams, self.rows(), width], dtype);
        let slot = |(s, x): (&cascabel::plan::StateSlot, &Vec<f64>)| {
            tensor(x, &[self.streams, s.rows, s.width], dtype)
        };
        let start =
            CandleState { slots: self.plan.states.iter().zip(&self.slots).map(slot).collect(), position: 0 };
        let (y, end, tape) = model.record(&start, CandleInput::Samples(&input), None).unwrap();
        let grads = self.seeds.as_ref().map(|(gy, gslots)| {
            let seed =
                |(x, seed): (&Tensor, &Vec<f64>)| (!seed.is_empty()).then(|| tensor(seed, x.dims(), dtype));
            let slots: Vec<_> = end.slots.iter().zip(gslots).map(seed).collect();
            let grads = tape.backward(&tensor(gy, y.dims(), dtype), Some(&slots)).unwrap();
            let of = |(grad, like): (&Option<Tensor>, usize)| match grad {
                Some(grad) => numbers(grad),
                None => vec![0.0; like],
            };
            let params = grads.params.iter().zip(&self.plan.params);
            Grads {
                input: of((&grads.input, input.elem_count())),
                params: params.map(|(grad, p)| (p.name.clone(), of((grad, p.len())))).collect(),
                slots: grads.slots.iter().zip(start.slots.iter().map(Tensor::elem_count)).map(of).collect(),
            }
        });
        let executor = format!("candle {}", dtype.as_str());
        Outcome { executor, bound, y: numbers(&y), slots: end.slots.iter().map(numbers).collect(), grads }
    }
}

/// A tensor of f32 numbers.
pub fn tensor(x: &[f64], shape: &[usize], dtype: DType) -> Tensor {
    let x = Tensor::from_slice(&narrow(x), shape, &Device::Cpu).and_then(|x| x.to_dtype(dtype));
    x.unwrap()
}

/// A tensor's numbers, row-major.
pub fn numbers(x: &Tensor) -> Vec<f64> {
    x.flatten_all().and_then(|x| x.to_dtype(DType::F64)?.to_vec1()).unwrap()
}
