//! Executors: they run a [`Plan`] over rows of one or many streams.
//!
//! The one primitive is [`Executor::advance`]: any number of rows, at least one, for any of the open streams. However a
//! signal is cut into calls, and beside whatever other streams, the outputs and the final state are the same: bit for bit
//! on [`cpu`] and [`mod@reference`], to rounding on `candle`.
//!
//! | executor | for | numbers |
//! |---|---|---|
//! | [`mod@reference`] | being plainly right | f32 or f64, scalar |
//! | [`cpu`] | real time and files | f32, AVX-512 or AVX2 chosen at run time |
//! | `candle` | training | f32 or f64, with gradients |

#[cfg(feature = "train")]
pub mod candle;
pub mod cpu;
pub mod reference;
mod rows;
mod sampling;
mod state;
#[cfg(test)]
pub(crate) mod testing;

pub use rows::{Feed, Limits, Misuse, RowTable, Rows, Span};
pub use sampling::{Sampler, Sampling, surprise};
pub use state::State;

use crate::Result;
use crate::plan::Plan;

/// Values of a scan's state below this size are 0 by definition, on every executor: no denormal number is ever carried.
pub const TINY: f32 = f32::from_bits(27 << 23); // 2⁻¹⁰⁰

/// Runs a plan over rows of streams. On [`cpu`] opening allocates, and `advance` and `reset` do not; the [`mod@reference`] allocates as it
/// goes.
pub trait Executor {
    /// The plan it runs.
    fn plan(&self) -> &Plan;

    /// What it was opened for.
    fn limits(&self) -> Limits;

    /// Takes `feeds[i].rows` rows for stream `feeds[i].stream`, one feed after the other in `input`, and writes as many rows
    /// of the plan's output in the same order. More than `max_rows` are cut inside. On misuse nothing has moved. On [`cpu`]
    /// it does not allocate, lock or panic.
    fn advance(&mut self, feeds: &[Feed], input: Rows<'_>, output: &mut [f32]) -> Result<(), Misuse>;

    /// Input rows that a stream has consumed since its state began.
    fn position(&self, stream: usize) -> u64;

    /// Puts a stream back to the state given as its initial one (zero, unless `set_initial` gave another).
    fn reset(&mut self, stream: usize);

    /// Makes `state` what `reset` goes back to, and resets all streams.
    fn set_initial(&mut self, state: &State) -> Result<()>;

    /// A stream's state as a value; what was left to do late is done first.
    fn save(&mut self, stream: usize) -> State;

    /// Continues a stream from a saved state.
    fn restore(&mut self, stream: usize, state: &State) -> Result<()>;
}

/// Feeds silence to stream 0 of a freshly reset executor until its state moves by less than one part in 10⁶ from second to
/// second (`rate` rows), for at most `seconds`, and returns that state at a position divisible by every period.
pub fn settle(executor: &mut dyn Executor, rate: usize, seconds: usize) -> Result<State> {
    let period = executor.plan().period();
    let rows = rate.div_ceil(period).max(1) * period;
    let width = executor.plan().value(executor.plan().output).width;
    let (silence, mut sink) = (vec![0.0; rows * input_width(executor.plan())], vec![0.0; rows * width]);
    executor.reset(0);
    let mut before = executor.save(0);
    for _ in 0..seconds {
        executor.advance(&[Feed { stream: 0, rows }], Rows::Samples(&silence), &mut sink)?;
        let after = executor.save(0);
        let still = after.distance(&before) < 1e-6;
        before = after;
        if still {
            break;
        }
    }
    executor.reset(0);
    Ok(before.at_origin())
}

fn input_width(plan: &Plan) -> usize {
    match plan.input {
        crate::plan::Input::Samples(width) => width,
        crate::plan::Input::Tokens(_) => 1,
    }
}
