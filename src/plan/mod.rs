//! A model compiled to a flat list of ops over numbered values, in single-assignment form.
//!
//! A [`Plan`] is what every executor runs: each [`Op`] names the values it reads (as [`View`]s), the one it writes, its
//! parameters, its state slot and its *tier*. A tier of period `P` has one row for every `P` rows of the plan's input; a
//! stream that has consumed `pos` input rows and is given `T` more makes `⌊(pos+T)/P⌋ − ⌊pos/P⌋` rows of it, 0 included
//! ([`Tier::rows`]). Only the ops with a state slot look across rows; each takes its state in and hands its state out, so
//! a signal may be cut anywhere.
//!
//! ```
//! use cascabel::plan::{Act, PlanBuilder};
//! let mut b = PlanBuilder::new();
//! let x = b.samples(1);
//! let frames = b.frame("frames", x, 4, 8)?; // 8 samples, every 4: [8] at a quarter of the rate
//! let y = b.linear("mix", frames, 4, true, Act::None)?;
//! let y = b.overlap("out", y, 4, 1)?;
//! let plan = b.build(y)?;
//! assert_eq!(plan.value(plan.output).tier.period, 1);
//! # Ok::<(), cascabel::Error>(())
//! ```

mod builder;
mod cost;
mod discretise;
mod draws;
mod op;
mod pipelined;
mod weights;

pub use builder::PlanBuilder;
pub use cost::{Cost, PlanCost};
pub use discretise::{Coefficients, coefficients};
#[cfg(feature = "train")]
pub(crate) use discretise::{Complex, discretise, discretise_back};
pub use draws::Draws;
pub use op::{Act, Dynamics, NormKind, Op, OpKind, Rule, Scan};
pub use pipelined::Pipelined;
pub use weights::{Init, Weights};

/// A value's number: its place in [`Plan::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub usize);

/// A parameter's number: its place in [`Plan::params`] and in [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub usize);

/// A state slot's number: its place in [`Plan::states`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateId(pub usize);

/// How many input rows make one row here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// Input rows per row; 1 for the outermost tier.
    pub period: usize,
}

impl Tier {
    /// Rows of this tier completed by a stream that has consumed `position` input rows.
    pub fn completed(self, position: u64) -> u64 {
        position / self.period as u64
    }

    /// Rows that fall due when `rows` more input rows are consumed at `position`.
    pub fn rows(self, position: u64, rows: usize) -> usize {
        (self.completed(position + rows as u64) - self.completed(position)) as usize
    }

    /// The most rows that `rows` input rows can make, whatever the phase.
    pub fn max_rows(self, rows: usize) -> usize {
        rows.div_ceil(self.period)
    }
}

/// One value: rows of `width` numbers, written by exactly one op (or fed in).
#[derive(Clone, Debug, Hash)]
pub struct Value {
    /// The name of the op that writes it.
    pub name: String,
    /// Numbers in a row.
    pub width: usize,
    /// The tier its rows belong to.
    pub tier: Tier,
}

/// A run of neighbouring columns of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The value read.
    pub value: ValueId,
    /// The first column.
    pub offset: usize,
    /// How many columns.
    pub width: usize,
}

/// A trained tensor: its name in the model file, shape (row-major) and how training begins with it.
#[derive(Clone, Debug)]
pub struct Param {
    /// The name, in the field's terms, e.g. `blocks.0.mixer.A_log`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The initial distribution.
    pub init: Init,
    /// Whether weight decay applies (not to A, D, biases and norms).
    pub decay: bool,
}

impl Param {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a stream carries from one row to the next for one op: `[rows, width]` f32.
#[derive(Clone, Debug, Hash)]
pub struct StateSlot {
    /// The name of the op it belongs to.
    pub name: String,
    /// Rows held: history rows, or N (2N for complex: real parts, then imaginary parts) for a scan.
    pub rows: usize,
    /// Numbers in a row.
    pub width: usize,
}

impl StateSlot {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.rows * self.width
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the input rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// f32 rows of this width.
    Samples(usize),
    /// One token a row, below this number.
    Tokens(usize),
}

/// A compiled model: see the module's page.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is fed in.
    pub input: Input,
    /// The value that input rows become; unused when the input is tokens.
    pub input_value: ValueId,
    /// The value handed out; always at period 1, so T rows in are T rows out.
    pub output: ValueId,
    /// All values, the input first.
    pub values: Vec<Value>,
    /// All parameters.
    pub params: Vec<Param>,
    /// All state slots.
    pub states: Vec<StateSlot>,
    /// The ops, in the order they run.
    pub ops: Vec<Op>,
}

impl Plan {
    /// The value with this number.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The parameter with this number.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// The state slot with this number.
    pub fn state(&self, id: StateId) -> &StateSlot {
        &self.states[id.0]
    }

    /// The tier an op's rows belong to.
    pub fn tier(&self, op: &Op) -> Tier {
        self.value(op.output).tier
    }

    /// The longest period of any tier: positions that agree modulo it have the same phases everywhere.
    pub fn period(&self) -> usize {
        self.values.iter().map(|v| v.tier.period).max().unwrap_or(1)
    }

    /// The parameter of this name.
    pub fn find_param(&self, name: &str) -> Option<ParamId> {
        self.params.iter().position(|p| p.name == name).map(ParamId)
    }

    /// A hash of the structure (ops, shapes, tiers, states; not the weights): a state fits only its own plan.
    pub fn hash(&self) -> [u8; 32] {
        let shapes: Vec<_> = self.params.iter().map(|p| (&p.name, &p.shape)).collect();
        let text =
            format!("{:?}|{:?}|{:?}|{:?}|{:?}", self.input, self.values, shapes, self.states, self.ops);
        *blake3::hash(text.as_bytes()).as_bytes()
    }

    /// Total elements of all parameters.
    pub fn param_count(&self) -> usize {
        self.params.iter().map(Param::len).sum()
    }

    /// Total f32 numbers of state a stream carries.
    pub fn state_len(&self) -> usize {
        self.states.iter().map(StateSlot::len).sum()
    }
}
