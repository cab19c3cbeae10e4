//! Where the streams of a step's examples begin: at zeros, in the settled state, or where another sound has just ended.
//!
//! A recurrent model that only ever learned from zeros answers badly after a long silence or a change of scene: states that it
//! never met. So a share of the examples begins in the state that a live stream begins in (silence heard until nothing moves,
//! [`settle`]), and a share goes on from the final state of the same place in the batch of the step before. Gradients stop
//! there. A model that learns long sounds window by window goes on in the same way, from each window to the next. Which example
//! begins where is a function of its index ([`Course`]); the states are in the checkpoint, so a resumed run goes on with the same.
//!
//! ```
//! use cascabel::train::begins::BeginSpec;
//! assert!(BeginSpec { settled: 0.2, carried: 0.5 }.check(true).is_ok());
//! assert!(BeginSpec { settled: 0.6, carried: 0.5 }.check(true).is_err());
//! ```

use std::thread::JoinHandle;

use candle_core::{DType, Device, Result as Candle, Tensor};
use serde::{Deserialize, Serialize};

use super::checkpoint::Heard;
use super::peers::Peers;
use super::random::Dice;
use crate::exec::candle::{CandleModel, CandleState, train_error};
use crate::exec::cpu::Cpu;
use crate::exec::{Limits, State, settle};
use crate::plan::{Plan, StateSlot, Weights};
use crate::{Error, Result};

/// The settled state follows the weights at every so many steps: found on a thread of its own, it is in use from the next time on.
pub const SETTLE_EVERY: u64 = 200;
/// Beginnings draw apart from the examples.
const SALT: u64 = 0x6265_6769_6e73;
/// What the names of its states in a checkpoint begin with.
pub const PREFIX: &str = "begin.";

/// Shares of the examples; the rest begins at zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeginSpec {
    /// In the state that `settle_seconds` gives.
    pub settled: f32,
    /// Where an example of the step before ended.
    pub carried: f32,
}

impl BeginSpec {
    /// Refuses shares that are none; `settles` says whether the recipe has a settled state.
    pub fn check(&self, settles: bool) -> Result<()> {
        let share = |s: f32| (0.0..=1.0).contains(&s);
        let fine = share(self.settled) && share(self.carried) && self.settled + self.carried <= 1.0;
        if fine && (settles || self.settled == 0.0) {
            return Ok(());
        }
        let expected = "shares of 0 to 1, together at most 1; settled above 0 only with settle_seconds";
        Err(Error::input("recipe [run.begin]", expected, format!("{self:?}")))
    }
}

/// Where an example begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At zeros.
    Zeros,
    /// In the settled state.
    Settled,
    /// Where the example of the same place in the batch ended a step before.
    Carried,
}

/// Which examples begin where.
#[derive(Clone, Copy, Debug)]
pub enum Course {
    /// As drawn for each by itself, in these shares.
    Drawn {
        /// The shares.
        spec: BeginSpec,
        /// The run's.
        seed: u64,
    },
    /// Each place of the batch goes through `windows` examples, one after the other, from zeros.
    Windows {
        /// Examples of a step.
        batch: u64,
        /// 1 or more.
        windows: u64,
    },
}

impl Course {
    /// Where example `index` begins.
    pub fn of(&self, index: u64) -> Begin {
        match self {
            Self::Drawn { spec, seed } => {
                let drawn = Dice::new(seed ^ SALT, index).unit() as f32;
                if drawn < spec.settled {
                    Begin::Settled
                } else if drawn < spec.settled + spec.carried {
                    Begin::Carried
                } else {
                    Begin::Zeros
                }
            }
            Self::Windows { batch, windows } if (index / batch).is_multiple_of(*windows) => Begin::Zeros,
            Self::Windows { .. } => Begin::Carried,
        }
    }

    /// Whether any begins in the settled state.
    pub fn settles(&self) -> bool {
        matches!(self, Self::Drawn { spec, .. } if spec.settled > 0.0)
    }

    /// Whether any goes on from another.
    pub fn carries(&self) -> bool {
        match self {
            Self::Drawn { spec, .. } => spec.carried > 0.0,
            Self::Windows { windows, .. } => *windows > 1,
        }
    }

    /// An example that goes on where another ended must begin in the same phase of every tier; `what` of the recipe says that one does.
    pub fn check(&self, what: &str, plan: &Plan, rows: usize) -> Result<()> {
        if !self.carries() || rows.is_multiple_of(plan.period()) {
            return Ok(());
        }
        let expected = format!("examples of a multiple of {} samples, the model's period", plan.period());
        Err(Error::input(what, expected, format!("{rows} samples")))
    }
}

/// A settled state to come.
enum Next {
    Nothing,
    Settling(JoinHandle<Result<State>>),
    Found(State),
}

impl Next {
    /// The state, once it is found.
    fn found(self) -> Result<Option<State>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Found(state) => Ok(Some(state)),
            Self::Settling(thread) => {
                let stopped = |_| Err(Error::Train("the thread that settles stopped early".into()));
                thread.join().unwrap_or_else(stopped).map(Some)
            }
        }
    }
}

/// The states that examples may begin from.
pub struct Begins {
    course: Course,
    settled: Option<State>,
    /// What is in use from the next time on.
    next: Next,
    /// One a graph of a step, as it ended last.
    carried: Vec<Option<CandleState>>,
}

impl Begins {
    /// Nothing heard yet, for steps of so many graphs.
    pub fn new(course: Course, graphs: usize) -> Self {
        Self { course, settled: None, next: Next::Nothing, carried: vec![None; graphs] }
    }

    /// Whether a step settles anew.
    pub fn settles_at(&self, step: u64) -> bool {
        self.course.settles() && (self.settled.is_none() || step.is_multiple_of(SETTLE_EVERY))
    }

    /// Takes the state that settled since the last time, and lets the weights of this step settle for the next.
    pub fn refresh(&mut self, step: u64, plan: &Plan, weights: &Weights, settling: Settling) -> Result<()> {
        if self.settles_at(step) {
            let Some(state) = std::mem::replace(&mut self.next, Next::Nothing).found()? else {
                // The first time there is none to take: these weights serve now and the next time.
                let state = settling.run(plan, weights)?;
                (self.settled, self.next) = (Some(state.clone()), Next::Found(state));
                return Ok(());
            };
            self.settled = Some(state);
            let (plan, weights) = (plan.clone(), weights.clone());
            self.next = Next::Settling(std::thread::spawn(move || settling.run(&plan, &weights)));
        }
        Ok(())
    }

    /// The state in which graph `graph` begins, of examples `first .. first + count`.
    pub fn of(&self, model: &CandleModel, graph: usize, first: u64, count: usize) -> Result<CandleState> {
        let mut state = model.zero_state(count)?;
        let carried = self.carried.get(graph).and_then(Option::as_ref);
        let begins: Vec<Begin> = (first..first + count as u64).map(|index| self.course.of(index)).collect();
        let settled = match self.settled.as_ref().filter(|_| begins.contains(&Begin::Settled)) {
            Some(settled) => {
                Some(CandleState::stack(model.plan(), std::slice::from_ref(settled), model.dtype())?)
            }
            None => None,
        };
        for (from, kind) in [(settled.as_ref(), Begin::Settled), (carried, Begin::Carried)] {
            if let Some(from) = from.filter(|_| begins.contains(&kind)) {
                let mut add = || -> Candle<()> {
                    let mask = begins.iter().map(|b| f32::from(*b == kind)).collect::<Vec<_>>();
                    let mask =
                        Tensor::from_vec(mask, (count, 1, 1), model.device())?.to_dtype(model.dtype())?;
                    for (slot, from) in
                        state.slots.iter_mut().zip(&from.slots).filter(|(s, _)| s.elem_count() > 0)
                    {
                        *slot = (&*slot + mask.broadcast_mul(&from.to_device(model.device())?)?)?;
                    }
                    Ok(())
                };
                add().map_err(train_error)?;
            }
        }
        Ok(state)
    }

    /// Keeps where the graphs of a step from `first` on ended; with a loss that is not finite, nothing.
    pub fn keep(&mut self, first: usize, ends: Vec<CandleState>, loss: f64) {
        let wanted = self.course.carries() && loss.is_finite();
        for (place, end) in self.carried.iter_mut().skip(first).zip(ends) {
            *place = wanted.then_some(CandleState { position: 0, ..end });
        }
    }

    /// Brings to rank 0 where the other processes' graphs ended, for a checkpoint; all call this together.
    pub fn gather(&mut self, plan: &Plan, peers: &mut dyn Peers) -> Result<()> {
        if peers.world() == 1 || !self.course.carries() {
            return Ok(());
        }
        let share = self.carried.len() / peers.world();
        for (i, place) in self.carried.iter_mut().enumerate() {
            let own = i / share.max(1) == peers.rank();
            let kept = place.as_ref().filter(|_| own);
            // Streams, lengths of all slots: a process that has none of them adds nothing.
            let mut size = [kept
                .and_then(|state| state.slots.first())
                .map_or(0, |slot| slot.dim(0).unwrap_or(0)) as f32];
            peers.sum(&mut size)?;
            let streams = size[0] as usize;
            let lengths: Vec<usize> = plan.states.iter().map(|slot| streams * slot.len()).collect();
            let mut numbers = Vec::with_capacity(lengths.iter().sum());
            for (n, length) in lengths.iter().enumerate() {
                match kept.and_then(|state| state.slots.get(n)) {
                    Some(slot) => numbers.extend(read(slot)?),
                    None => numbers.resize(numbers.len() + length, 0.0),
                }
            }
            peers.sum(&mut numbers)?;
            if peers.rank() == 0 && !own {
                let mut rest = numbers.as_slice();
                let mut slot = |(slot, length): (&StateSlot, &usize)| {
                    let (values, more) = rest.split_at(*length);
                    rest = more;
                    Tensor::from_slice(values, (streams, slot.rows, slot.width), &Device::Cpu)
                };
                let slots = plan
                    .states
                    .iter()
                    .zip(&lengths)
                    .map(&mut slot)
                    .collect::<Candle<_>>()
                    .map_err(train_error)?;
                *place = (streams > 0).then_some(CandleState { slots, position: 0 });
            }
        }
        Ok(())
    }

    /// The states by name, for a checkpoint; waits for one that is settling.
    pub fn state(&mut self, plan: &Plan) -> Result<Heard> {
        let next = std::mem::replace(&mut self.next, Next::Nothing).found()?;
        let mut named = Heard::new();
        for (prefix, state) in [("settled", &self.settled), ("next", &next)] {
            let slots = plan.states.iter().zip(state.iter().flat_map(|state| &state.slots));
            named.extend(slots.map(|(slot, values)| (key(prefix, slot), values.clone())));
        }
        self.next = next.map_or(Next::Nothing, Next::Found);
        for (i, carried) in self.carried.iter().enumerate() {
            for (slot, tensor) in plan.states.iter().zip(carried.iter().flat_map(|c| &c.slots)) {
                named.insert(key(&format!("carried.{i}"), slot), read(tensor)?);
            }
        }
        Ok(named)
    }

    /// Takes back what [`state`](Self::state) gave; what is missing there has not been heard. Graphs of another size than
    /// `count` streams begin anew.
    pub fn restore(&mut self, model: &CandleModel, count: usize, heard: &Heard) -> Result<()> {
        let plan = model.plan();
        let all = |prefix: &str| -> Option<Vec<Vec<f32>>> {
            plan.states.iter().map(|slot| heard.get(&key(prefix, slot)).cloned()).collect()
        };
        let state = |prefix| all(prefix).map(|slots| State::new(plan, 0, slots)).transpose();
        self.settled = state("settled")?;
        self.next = state("next")?.map_or(Next::Nothing, Next::Found);
        for (i, place) in self.carried.iter_mut().enumerate() {
            let fits = |slots: &Vec<Vec<f32>>| {
                plan.states.iter().zip(slots).all(|(slot, values)| values.len() == count * slot.len())
            };
            let tensors = all(&format!("carried.{i}")).filter(fits).map(|slots| -> Candle<Vec<Tensor>> {
                let tensor = |(slot, values): (&StateSlot, Vec<f32>)| {
                    let shape = (count, slot.rows, slot.width);
                    Tensor::from_vec(values, shape, model.device())?.to_dtype(model.dtype())
                };
                plan.states.iter().zip(slots).map(tensor).collect()
            });
            *place =
                tensors.transpose().map_err(train_error)?.map(|slots| CandleState { slots, position: 0 });
        }
        Ok(())
    }
}

fn read(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all().and_then(|t| t.to_dtype(DType::F32)?.to_vec1::<f32>()).map_err(train_error)
}

fn key(prefix: &str, slot: &StateSlot) -> String {
    format!("{PREFIX}{prefix}.{}", slot.name)
}

/// How a recipe's settled state comes to be.
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    /// Samples a second.
    pub rate: usize,
    /// Seconds of silence, at most.
    pub seconds: usize,
}

impl Settling {
    /// The settled state under these weights, by the executor that users run.
    pub fn run(self, plan: &Plan, weights: &Weights) -> Result<State> {
        settle(
            &mut Cpu::open(plan, weights, Limits { max_rows: 4096, max_streams: 1 }),
            self.rate,
            self.seconds,
        )
    }
}

#[cfg(test)]
#[path = "begins_tests.rs"]
mod tests;
