//! Examples of one length, side by side, as a graph takes them.

use candle_core::{Device, Shape, Tensor, WithDType};

use super::pinned::PinnedVec;
use crate::Result;
use crate::exec::candle::{CandleInput, train_error};

/// What a row of an example is: a sample (f32) or a token (u32).
pub trait Row: WithDType {
    /// The shape in which a model takes `count` examples of `len` rows.
    fn shape(count: usize, len: usize) -> Shape;

    /// A tensor of that shape as a model's input.
    fn input(rows: &Tensor) -> CandleInput<'_>;
}

impl Row for f32 {
    fn shape(count: usize, len: usize) -> Shape {
        (count, len, 1).into()
    }

    fn input(rows: &Tensor) -> CandleInput<'_> {
        CandleInput::Samples(rows)
    }
}

impl Row for u32 {
    fn shape(count: usize, len: usize) -> Shape {
        (count, len).into()
    }

    fn input(rows: &Tensor) -> CandleInput<'_> {
        CandleInput::Tokens(rows)
    }
}

/// One example, as many rows of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair<R> {
    /// What the model hears.
    pub heard: Vec<R>,
    /// What it should give.
    pub wanted: Vec<R>,
}

/// Makes examples. Each is a function of its index, whoever makes it and whatever was made before; a clone makes the same ones.
pub trait Maker: Clone + Send + 'static {
    /// What examples are made of.
    type Row: Row;

    /// Rows of an example.
    fn rows(&self) -> usize;

    /// Example `index` of the run.
    fn make(&mut self, index: u64) -> Pair<Self::Row>;
}

/// Examples `[count, len]`.
#[derive(Debug)]
pub struct Examples<R> {
    count: usize,
    heard: PinnedVec<R>,
    wanted: PinnedVec<R>,
}

impl<R: Row> Examples<R> {
    /// With room for so many of so many rows, for a device.
    pub fn with_capacity(count: usize, len: usize, device: &Device) -> Self {
        let room = || PinnedVec::with_capacity(count * len, device);
        Self { count: 0, heard: room(), wanted: room() }
    }

    /// Adds one, if there is room; all have one length.
    pub fn push(&mut self, example: &Pair<R>) {
        self.count += 1;
        self.heard.extend(&example.heard);
        self.wanted.extend(&example.wanted);
    }

    /// Makes room for others.
    pub fn clear(&mut self) {
        self.count = 0;
        self.heard.clear();
        self.wanted.clear();
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows of each.
    pub fn len(&self) -> usize {
        self.heard.len() / self.count.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the model hears.
    pub fn heard(&self) -> &[R] {
        &self.heard
    }

    /// What it should give.
    pub fn wanted(&self) -> &[R] {
        &self.wanted
    }

    /// What the model hears, where it is.
    pub fn input(&self, device: &Device) -> Result<Tensor> {
        Tensor::from_slice(&self.heard, R::shape(self.count, self.len()), device).map_err(train_error)
    }
}
