//! Cascabel's `cpu` executor, a row at a time.

use cascabel::exec::cpu::Cpu;
use cascabel::exec::{Executor, Feed, Limits, Rows};

use crate::{Engine, Model, Result};

pub struct Ours(Cpu);

impl Ours {
    pub fn new(model: &Model) -> Self {
        Self(Cpu::open(&model.plan, &model.weights, Limits { max_rows: 1, max_streams: 1 }))
    }
}

impl Engine for Ours {
    fn name(&self) -> String {
        format!("cascabel cpu ({:?})", self.0.isa())
    }

    fn step(&mut self, token: u32, logits: &mut [f32]) -> Result<()> {
        Ok(self.0.advance(&[Feed { stream: 0, rows: 1 }], Rows::Tokens(&[token]), logits)?)
    }
}
