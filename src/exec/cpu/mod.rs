//! The real-time executor: f32, SIMD, nothing allocated after [`Cpu::open`].
//!
//! Weights are packed once to 64-byte lines in the order they are read; every value has a place in one arena. The instruction
//! set (AVX-512, AVX2 with FMA, NEON (untested), or plain code) is chosen when the model is opened and changes no bit of the output: each
//! product sums k in ascending order in a number of partial sums fixed by its shape, SIMD runs across outputs, and reductions
//! use a fixed tree of 16 lanes.
//!
//! ```
//! use cascabel::exec::{Executor, Feed, Limits, Rows, cpu::Cpu};
//! use cascabel::plan::{Act, PlanBuilder, Weights};
//! let mut b = PlanBuilder::new();
//! let x = b.samples(1);
//! let y = b.linear("gain", x, 1, true, Act::Tanh)?;
//! let plan = b.build(y)?;
//! let mut cpu = Cpu::open(&plan, &Weights::random(&plan, 1), Limits { max_rows: 64, max_streams: 1 });
//! let (input, mut output) = (vec![0.1; 100], vec![0.0; 100]);
//! cpu.advance(&[Feed { stream: 0, rows: 100 }], Rows::Samples(&input), &mut output)?;
//! # Ok::<(), cascabel::Error>(())
//! ```
#![allow(unsafe_code, reason = "SIMD over one arena")]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod elementwise;
mod float_mode;
mod history;
mod isa;
mod kernels;
mod lanes;
mod linear;
#[cfg(any(target_arch = "aarch64", test))]
mod neon;
#[cfg(all(test, not(target_arch = "aarch64")))]
mod neon_model;
mod pack;
mod pipeline;
#[cfg(test)]
mod pipeline_tests;
mod portable;
pub mod probes;
mod program;
#[cfg(test)]
mod rtsan_tests;
mod scan;
#[cfg(test)]
mod tests;

pub use isa::Isa;

use self::buffer::Aligned;
use self::kernels::Pass;
use self::pipeline::Level;
use self::program::{Program, Slot};
use std::ops::Range;

use super::{Executor, Feed, Limits, Misuse, Rows, Span, State};
use crate::Result;
use crate::plan::{Input, Plan, ValueId, Weights};

/// The CPU executor.
pub struct Cpu {
    plan: Plan,
    program: Program,
    isa: Isa,
    limits: Limits,
    /// Rows of a stream that go through all steps together when all streams are fed.
    tile: usize,
    arena: Aligned,
    /// One state a stream, and behind them the one that `reset` copies.
    states: Aligned,
    positions: Vec<u64>,
    initial_position: u64,
    /// What runs at once, with the rows of the current pass, and what runs late.
    levels: Vec<Level>,
    tokens: Vec<u32>,
    /// Rows already run of each feed of the current call.
    done: Vec<usize>,
}

impl Cpu {
    /// Packs the weights and allocates all that `advance` will touch.
    pub fn open(plan: &Plan, weights: &Weights, limits: Limits) -> Self {
        Self::open_with(plan, weights, limits, Isa::best())
    }

    /// As [`open`](Self::open), for a given instruction set; one that the CPU lacks becomes the best that it has.
    pub fn open_with(plan: &Plan, weights: &Weights, limits: Limits, isa: Isa) -> Self {
        let limits = Limits { max_rows: limits.max_rows.max(1), max_streams: limits.max_streams.max(1) };
        let tile = program::tile(plan, limits);
        let isa = isa.available();
        let program = Program::new(plan, weights, Limits { max_rows: tile, ..limits }, isa.forms(limits));
        let (arena, states) = (
            Aligned::zeros(program.arena_len),
            Aligned::zeros(program.state_len.saturating_mul(limits.max_streams.saturating_add(1))),
        );
        Self {
            isa,
            arena,
            states,
            positions: vec![0; limits.max_streams],
            initial_position: 0,
            levels: pipeline::levels(plan, &program.first, limits.max_streams),
            tokens: Vec::with_capacity(tile.saturating_mul(limits.max_streams)),
            done: vec![0; limits.max_streams],
            plan: plan.clone(),
            program,
            limits,
            tile,
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        4 * self.program.weights.as_slice().len()
    }

    /// Bytes of the arena that holds all values.
    pub fn arena_bytes(&self) -> usize {
        4 * self.program.arena_len
    }

    /// The most rows of each of `fed` streams that go together: whole tiles, those of the streams that are not fed as well. Parts of
    /// a tile would not do, since a coarse tier has room for whole tiles only.
    fn rows_a_pass(&self, fed: usize) -> usize {
        (self.tile * (self.limits.max_streams / fed.max(1))).min(self.limits.max_rows)
    }

    /// The rows of a value's tier in the current pass.
    fn spans(&self, value: ValueId) -> &[Span] {
        self.levels.first().map_or(&[], |now| now.table.spans(value))
    }

    /// One pass: at most [`rows_a_pass`](Self::rows_a_pass) of each feed. Returns false when nothing is left. With `late`, pipelined tiers
    /// only begin.
    fn pass(&mut self, feeds: &[Feed], input: Rows<'_>, output: &mut [f32], late: bool) -> bool {
        let max = self.rows_a_pass(feeds.len());
        let (positions, done) = (&self.positions, &self.done);
        let part = feeds.iter().enumerate().map(|(i, feed)| {
            let rows = (feed.rows - done.get(i).copied().unwrap_or(0)).min(max);
            (feed.stream, positions.get(feed.stream).copied().unwrap_or(0), rows)
        });
        let Some(now) = self.levels.first_mut() else { return false };
        now.table.fill(part);
        if now.table.total(self.plan.output) == 0 {
            return false;
        }
        self.take(feeds, input);
        if late {
            self.go(0, 0..usize::MAX);
        } else {
            self.run(0, 0..self.program.steps.len());
        }
        self.give(feeds, output);
        let Some(now) = self.levels.first() else { return false };
        for ((feed, done), span) in feeds.iter().zip(&mut self.done).zip(now.table.spans(self.plan.output)) {
            *done += span.rows;
            if let Some(position) = self.positions.get_mut(feed.stream) {
                *position += span.rows as u64;
            }
        }
        true
    }

    /// Runs some of the program's steps over the rows in a level's table.
    fn run(&mut self, level: usize, steps: Range<usize>) {
        let Some(level) = self.levels.get(level) else { return };
        let pass = Pass {
            arena: self.arena.as_mut_ptr(),
            weights: self.program.weights.as_ptr(),
            states: self.states.as_mut_ptr(),
            state_len: self.program.state_len,
            table: &level.table,
            tokens: &self.tokens,
        };
        let steps = self.program.steps.get(steps).unwrap_or(&[]);
        // SAFETY: arena and states were allocated for this program and these limits, which the table obeys.
        unsafe { self.isa.run(steps, &pass) };
    }

    /// Runs some of a level's own steps, in order; where it comes past the level within, a row of that begins if one is due.
    fn go(&mut self, level: usize, own: Range<usize>) {
        let Some(this) = self.levels.get(level) else { return };
        let own = own.start..own.end.min(this.steps.len());
        let Some(frame) = this.within else { return self.run_own(level, own) };
        let overlap = (frame + 1).clamp(own.start, own.end);
        let due = self.levels.get(level + 1).is_some_and(|within| this.table.total(within.value) > 0);
        if due && own.contains(&frame) {
            // Its values are about to be written over. Streams in one phase never come here with work left.
            self.finish(level + 1);
        }
        self.run_own(level, own.start..overlap);
        if own.contains(&(frame + 1)) {
            self.begin(level + 1);
        }
        self.run_own(level, overlap..own.end);
    }

    /// Runs some of a level's own steps: neighbours together.
    fn run_own(&mut self, level: usize, own: Range<usize>) {
        let mut at = own.start;
        while at < own.end {
            let this = self.levels.get(level);
            let Some((first, end)) = this.and_then(|l| Some((*l.steps.get(at)?, *l.ends.get(at)?))) else {
                return;
            };
            let end = end.min(own.end);
            self.run(level, first..first + end - at);
            at = end;
        }
    }

    /// Hands the due rows of a level over to it; the level around it goes on without them.
    fn begin(&mut self, level: usize) {
        let (around, from) = self.levels.split_at_mut(level);
        let (Some(around), Some(this)) = (around.last_mut(), from.first_mut()) else { return };
        if around.table.total(this.value) > 0 {
            this.table.take_late(&around.table, this.period);
            this.progress = Some((0, 0));
        }
        around.table.hold_back(this.period, this.progress.map(|_| &this.table));
    }

    /// Goes on with a level up to one of its steps; after the last its rows are there.
    fn go_on(&mut self, level: usize, to: usize) {
        let Some((done, rows)) = self.levels.get(level).and_then(|level| level.progress) else { return };
        self.go(level, done..to);
        let Some(this) = self.levels.get_mut(level) else { return };
        let ended = to >= this.steps.len();
        this.progress = (!ended).then_some((to, rows));
        if ended {
            let overlap = this.overlap;
            self.run(level, overlap..overlap + 1);
        }
    }

    /// Ends what a level is working on.
    fn finish(&mut self, level: usize) {
        self.go_on(level, usize::MAX);
    }

    /// Ends all that is left to do: states are whole.
    fn finish_all(&mut self) {
        if self.levels.iter().any(|level| level.progress.is_some()) {
            let mode = float_mode::FlushDenormals::on();
            (1..self.levels.len()).for_each(|level| self.finish(level));
            drop(mode);
        }
    }

    /// The share of a row in each level's work, those within first.
    fn work_late(&mut self) {
        for level in (1..self.levels.len()).rev() {
            if let Some(to) = self.levels.get_mut(level).and_then(Level::count_row) {
                self.go_on(level, to);
            }
        }
    }

    /// Seconds that each step takes for `rows` rows (at most a tile) of stream 0, in the plan's order: the least of `repeats` runs of
    /// `inner` times each. For measuring, after an `advance`; the stream is reset.
    pub fn time_steps(&mut self, rows: usize, repeats: usize, inner: usize) -> Vec<f64> {
        self.finish_all();
        let rows = rows.min(self.tile);
        self.levels.iter_mut().take(1).for_each(|now| now.table.fill([(0, 0, rows)].into_iter()));
        let (mode, steps) = (float_mode::FlushDenormals::on(), self.plan.ops.len());
        let mut once = |step: usize| {
            let start = std::time::Instant::now();
            let steps = |i: usize| self.program.first.get(i).copied().unwrap_or(0);
            let own = steps(step)..steps(step + 1);
            (0..inner).for_each(|_| self.run(0, own.clone()));
            start.elapsed().as_secs_f64() / inner as f64
        };
        let times =
            (0..steps).map(|step| (0..repeats).map(|_| once(step)).fold(f64::INFINITY, f64::min)).collect();
        drop(mode);
        self.reset(0);
        times
    }

    /// Copies the pass's input rows into the arena, or its tokens into their list.
    fn take(&mut self, feeds: &[Feed], input: Rows<'_>) {
        let place = self.program.input;
        self.tokens.clear();
        let mut first = 0;
        let Some(now) = self.levels.first() else { return };
        for ((feed, done), span) in feeds.iter().zip(&self.done).zip(now.table.spans(self.plan.input_value)) {
            let from = first + done;
            match (input, self.plan.input) {
                (Rows::Samples(x), Input::Samples(width)) => {
                    let rows = x.get(from * width..(from + span.rows) * width).unwrap_or(&[]);
                    let to = self.arena.as_mut_slice().get_mut(place.at + span.start * place.stride..);
                    copy_rows(rows, width, to.unwrap_or(&mut []), place.stride, width);
                }
                (Rows::Tokens(x), _) => {
                    self.tokens.extend_from_slice(x.get(from..from + span.rows).unwrap_or(&[]));
                }
                (Rows::Samples(_), Input::Tokens(_)) => {}
            }
            first += feed.rows;
        }
    }

    /// Copies the pass's output rows out of the arena.
    fn give(&self, feeds: &[Feed], output: &mut [f32]) {
        let place = self.program.output;
        let mut first = 0;
        for ((feed, done), span) in feeds.iter().zip(&self.done).zip(self.spans(self.plan.output)) {
            let from = self.arena.as_slice().get(place.at + span.start * place.stride..).unwrap_or(&[]);
            let range = (first + done) * place.width..(first + done + span.rows) * place.width;
            if let Some(to) = output.get_mut(range) {
                copy_rows(from, place.stride, to, place.width, place.width);
            }
            first += feed.rows;
        }
    }

    /// Puts a stream where another is. Does not allocate.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.finish_all();
        let (len, streams) = (self.program.state_len, self.limits.max_streams);
        if from < streams
            && to < streams
            && let Some(position) = self.positions.get(from).copied()
        {
            self.positions.iter_mut().skip(to).take(1).for_each(|place| *place = position);
            self.states.as_mut_slice().copy_within(from * len..(from + 1) * len, to * len);
        }
    }

    fn state(&self, stream: usize, slot: &Slot) -> Option<&[f32]> {
        let at = stream * self.program.state_len + slot.at;
        self.states.as_slice().get(at..at + slot.rows * slot.stride)
    }

    /// Writes a canonical state into stream `stream`'s place (the streams' number itself: the initial state).
    fn write_state(&mut self, stream: usize, state: &State) {
        for (slot, from) in self.program.slots.iter().zip(&state.slots) {
            let at = stream * self.program.state_len + slot.at;
            if let Some(to) = self.states.as_mut_slice().get_mut(at..at + slot.rows * slot.stride) {
                copy_rows(from, slot.width, to, slot.stride, slot.width);
                to.iter_mut().for_each(|x| *x *= slot.unit);
            }
        }
    }
}

/// Copies rows of `width` numbers from one stride to another, as many as both sides hold.
fn copy_rows(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize, width: usize) {
    for (from, to) in from.chunks(from_stride.max(1)).zip(to.chunks_mut(to_stride.max(1))) {
        if let (Some(from), Some(to)) = (from.get(..width), to.get_mut(..width)) {
            to.copy_from_slice(from);
        }
    }
}

impl Executor for Cpu {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    #[rtsan_standalone::nonblocking]
    fn advance(&mut self, feeds: &[Feed], input: Rows<'_>, output: &mut [f32]) -> Result<(), Misuse> {
        input.check(&self.plan, self.limits, feeds, output.len())?;
        self.done.fill(0);
        let mode = float_mode::FlushDenormals::on();
        let late = feeds.iter().all(|feed| feed.rows <= 1);
        if late {
            self.work_late();
        } else {
            self.finish_all();
        }
        while self.pass(feeds, input, output, late) {}
        drop(mode);
        Ok(())
    }

    fn position(&self, stream: usize) -> u64 {
        self.positions.get(stream).copied().unwrap_or(0)
    }

    #[rtsan_standalone::nonblocking]
    fn reset(&mut self, stream: usize) {
        self.finish_all();
        let len = self.program.state_len;
        if let Some(position) = self.positions.get_mut(stream) {
            *position = self.initial_position;
            let from = self.limits.max_streams * len;
            self.states.as_mut_slice().copy_within(from..from + len, stream * len);
        }
    }

    fn set_initial(&mut self, state: &State) -> Result<()> {
        state.check(&self.plan)?;
        self.initial_position = state.position;
        self.write_state(self.limits.max_streams, state);
        (0..self.limits.max_streams).for_each(|stream| self.reset(stream));
        Ok(())
    }

    fn save(&mut self, stream: usize) -> State {
        self.finish_all();
        let mut state = State::zero(&self.plan);
        state.position = self.position(stream);
        for (slot, to) in self.program.slots.iter().zip(&mut state.slots) {
            copy_rows(self.state(stream, slot).unwrap_or(&[]), slot.stride, to, slot.width, slot.width);
            to.iter_mut().for_each(|x| *x /= slot.unit);
        }
        state
    }

    fn restore(&mut self, stream: usize, state: &State) -> Result<()> {
        state.check(&self.plan)?;
        self.finish_all();
        if let Some(position) = self.positions.get_mut(stream) {
            *position = state.position;
            self.write_state(stream, state);
        }
        Ok(())
    }
}
